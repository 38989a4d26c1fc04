"""What is missing from a command line that names no whole experiment."""

import itertools
from collections.abc import Sequence
from pathlib import Path

COMMANDS = ("fit", "validate", "test", "predict")
ASKING = ("-h", "--help", "--version")
EXPERIMENT = "--config configs/<method>/<experiment>.yaml"


def values(words: Sequence[str], option: str) -> list[str]:
    """What follows each ``option``, as ``--option value`` or ``--option=value``."""
    found = []
    for word, after in itertools.pairwise([*words, ""]):
        if word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
        elif word == option and after:
            found.append(after)
    return found


def check(words: Sequence[str]) -> None:
    """Look at the words after ``train.py`` before they are parsed.

    Raises:
        ValueError: for options before the subcommand, for no experiment at all, and for an overlay before it.
    """
    if any(word.startswith(ASKING) for word in words):
        return
    command = next((word for word in words if word in COMMANDS), None)
    if not words or (command is None and words[0].startswith("-")):
        raise ValueError(f"name a subcommand and an experiment: python train.py fit {EXPERIMENT}")
    if words[0].startswith("-"):
        raise ValueError(f"the subcommand comes first: python train.py {command} {words[0]} ...")
    files = [Path(value) for value in values(words, "--config")]
    may_be_bare = any(word.startswith(("--model", "--print_config")) for word in words)
    if words[0] in COMMANDS and not files and not may_be_bare:
        some = "such as configs/l3c/quickstart.yaml, which needs no data"
        raise ValueError(f"{words[0]} needs an experiment: {EXPERIMENT}, {some}")
    if files and files[0].parent.name == "overlays" and "--model" not in words:
        method = files[0].parents[1]
        raise ValueError(
            f"{files[0]} is an overlay of an experiment, which comes before it: --config {method}/<experiment>.yaml "
            f"--config {files[0]}"
        )
