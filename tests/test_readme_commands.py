"""Every command of every page, config and sweep file is one that the programs take.

Blocks, inline commands and comments go through bash with programs that only listen.
``train.py`` is parsed up to the resolved config, the other programs up to their options; nothing is run. Python
snippets are compiled.
"""

import argparse
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sweep
import train

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for folder in (".", "docs", "modules/*", "weights") for path in ROOT.glob(f"{folder}/*.md"))
FILES = sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("sweeps/*.yaml")])
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LISTENING = """
python() { printf '%s\\037' "$@"; printf '\\n'; }
torchrun() { while [ $# -gt 0 ] && [ "$1" != train.py ]; do shift; done; python "$@"; }
srun() { while [ $# -gt 0 ] && [ "$1" != python ]; do shift; done; "$@"; }
pip() { :; }
for name in pytest ruff mypy wandb git pre-commit sbatch export scontrol; do eval "$name() { :; }"; done
"""
BASH = [shutil.which("bash") or "bash", "--restricted", "-c"]
"""Writes no file: a drawing with arrows is a redirection to it."""
PLACEHOLDER = re.compile(r"\[--|<\w+[^>]*>|\{fit,|(^|\s)\.\.\.(\s|$)")
"""Of lines that say what a command looks like."""


class Command(NamedTuple):
    page: str
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def heard(text: str) -> list[list[str]]:
    """The words of each ``python`` command of a shell block; bash sets variables and walks loops."""
    whole = re.sub(r"\\\n\s*", "", text)
    lines = [line for line in whole.splitlines() if not PLACEHOLDER.search(line.partition(" #")[0])]
    script = LISTENING + "\n".join(lines)
    done = subprocess.run([*BASH, script], capture_output=True, text=True, check=False, env={"PATH": "/nowhere"})
    return [line.split("\x1f")[:-1] for line in done.stdout.splitlines() if line]


def blocks() -> Iterator[tuple[Path, str]]:
    """What a reader may type: (file, lines)."""
    for page in PAGES:
        text = page.read_text()
        yield from ((page, block) for language, block in BLOCK.findall(text) if language in ("", "sh", "bash"))
        inline = re.findall(r"`(python [^`]+)`", BLOCK.sub("", text))
        yield page, "\n".join(" ".join(words.split()) for words in inline)
    for file in FILES:
        lines = re.findall(r"^#   (.*)$", file.read_text(), re.MULTILINE)
        yield (
            file,
            "\n".join(re.split(r"\s{2,}", line.strip())[0] for line in lines),
        )  # what follows two blanks is prose


def source(words: list[str]) -> str:
    """The text of the program that the words start."""
    return (ROOT / (words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0])).read_text()


def has_options(words: list[str]) -> bool:
    return "argparse" in source(words)


def is_left_out(words: list[str]) -> bool:
    """What names a program only, and what other tests parse: test_train.py configs, test_add_a_method.py its own."""
    is_name = len(words) < 3 and has_options(words) and words[0] not in ("train.py", "sweep.py", "report.py")
    is_plain = words[:3] == ["train.py", "fit", "--config"] and len(words) == 4
    return is_name or is_plain


def commands() -> Iterator[Command]:
    for path, block in blocks():
        found = [words for words in heard(block) if not is_left_out(words)]
        yield from (Command(path.relative_to(ROOT).as_posix(), words) for words in found)


EVERY = list({tuple(command.words): command for command in commands()}.values())


class TakenError(Exception):
    """The options were parsed."""


def parse_with(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a program up to its options."""
    original = argparse.ArgumentParser.parse_args

    def parse(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        raise TakenError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises((TakenError, SystemExit)) as stop:
        run()
    assert stop.type is TakenError or stop.value.code == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("command", EVERY, ids=str)
def test_the_programs_take_it(command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    program, *words = command.words
    monkeypatch.chdir(ROOT)
    if program == "train.py":
        with pytest.raises(SystemExit) as stop:
            train.main([*words, "--print_config"])
        assert stop.value.code in (0, None), capsys.readouterr().err
    elif program == "sweep.py" and words[0] != "table":
        assert sweep.main([*words, "--dry-run"]) == 0
    elif not has_options(command.words):
        assert (program == "-m") == bool(words)  # it takes none
    elif program == "-m":
        monkeypatch.setattr(sys, "argv", words)
        parse_with(lambda: runpy.run_module(words[0], run_name="__main__", alter_sys=True), monkeypatch)
    else:
        monkeypatch.setattr(sys, "argv", [program, *words])
        monkeypatch.syspath_prepend(Path(program).parent.resolve())
        parse_with(lambda: runpy.run_path(program, run_name="__main__"), monkeypatch)


def test_the_commands_were_found() -> None:
    assert len(EVERY) > 90 and {"train.py", "codec.py", "sweep.py", "report.py", "-m"} <= {c.words[0] for c in EVERY}
    assert heard("A=--b\nfor c in 1 2; do python x.py $A $c \\\n  --d 'e f'  # why\ndone\npython y <id>") == [
        ["x.py", "--b", "1", "--d", "e f"],
        ["x.py", "--b", "2", "--d", "e f"],
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_snippets_are_python(page: Path) -> None:
    for language, text in BLOCK.findall(page.read_text()):
        if language == "python":
            compile(text, page.name, "exec")


def test_the_failures_of_the_readme_are_the_programs_own() -> None:
    """Each message of the table, without what is put into it, stands in the code, in one piece or in several."""
    text = (ROOT / "README.md").read_text().partition("## When something goes wrong")[2]
    messages = re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)
    code = "".join(
        path.read_text()
        for folder in ("cli", "callbacks", "datamodules", "modules")
        for path in (ROOT / folder).rglob("*.py")
    )
    plain = re.sub(r"\"\s*\n\s*f?\"", "", code)  # strings that go on in the next line
    put_in = r"process 4711|node7|trainer\.max_epochs|fit(?= needs)|best(?=: no)|L3C|4(?= missing)|nan|120"
    for message in messages:
        parts = [part.strip(" ?)") for part in re.split(rf"\b(?:{put_in})\b|--config configs/.*", message)]
        missing = [part for part in parts if part and part not in plain]
        assert not missing, f"{message}: {missing}"
    assert len(messages) >= 10
