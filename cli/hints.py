"""What is missing from a command line that names no whole experiment."""

import itertools
from collections.abc import Sequence
from pathlib import Path

COMMANDS = ("fit", "validate", "test", "predict")
ASKING = ("-h", "--help", "--version", "--print_config")
EXPERIMENT = "--config configs/<method>/<experiment>.yaml"


def values(words: Sequence[str], option: str) -> list[str]:
    """What follows each ``option``, as ``--option value`` or ``--option=value``."""
    apart = [after for word, after in itertools.pairwise(words) if word == option]
    return apart + [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]


def check(words: Sequence[str]) -> None:
    """Look at the words after ``train.py`` before they are parsed.

    Raises:
        ValueError: for options before the subcommand, for no experiment at all, and for overlays without one.
    """
    if any(word.startswith(ASKING) for word in words):
        return
    command = next((word for word in words if word in COMMANDS), None)
    if not words or (command is None and words[0].startswith("-")):
        raise ValueError(f"name a subcommand and an experiment: python train.py fit {EXPERIMENT}")
    if words[0].startswith("-"):
        raise ValueError(f"the subcommand comes first: python train.py {command} {words[0]} ...")
    files = [Path(value) for value in values(words, "--config")]
    if words[0] in COMMANDS and not files and not any(word.startswith("--model") for word in words):
        some = "such as configs/l3c/quickstart.yaml, which needs no data"
        raise ValueError(f"{words[0]} needs an experiment: {EXPERIMENT}, {some}")
    if files and all(file.parent.name == "overlays" for file in files) and "--model" not in words:
        method = files[0].parents[1]
        raise ValueError(
            f"{files[0]} is an overlay of an experiment, which comes before it: --config {method}/<experiment>.yaml "
            f"--config {files[0]}"
        )
