"""REPRODUCTION.md is what benchmarks/results.yaml says, and its commands exist."""

import re
from pathlib import Path

import pytest
import yaml

from benchmarks import reproduction

ROOT = Path(__file__).parents[2]


def test_the_table_is_up_to_date() -> None:
    assert reproduction.main(["--check"]) == 0


def test_a_table_that_has_drifted_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    drifted = Path("table.md")
    drifted.write_text(reproduction.markdown(reproduction.read()).replace("3.702", "2.702"))
    monkeypatch.setattr(reproduction, "TABLE", drifted)
    assert reproduction.main(["--check"]) == 1 and "is not what" in capsys.readouterr().out
    assert reproduction.main([]) == 0 == reproduction.main(["--check"])


def test_commands_name_files_that_are_there() -> None:
    for entry in reproduction.read()["results"]:
        for path in re.findall(r"(?:configs|benchmarks|sweeps)/[\w/.]+", entry["command"]):
            assert (ROOT / path).is_file(), f"{entry['what']}: {path}"
        for module in re.findall(r"-m ([\w.]+)", entry["command"]):
            assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"status": "fine"}, "status is one of"),
        ({"machine": "Z"}, "no machine 'Z'"),
        ({"our": 1}, r"unknown \['our'\]"),
        ({"paper": ...}, r"missing \['paper'\]"),
    ],
)
def test_a_wrong_entry_is_named(change: dict, complaint: str) -> None:
    content = yaml.safe_load(reproduction.RESULTS.read_text())
    entry = content["results"][1] | change
    content["results"][1] = {name: value for name, value in entry.items() if value is not ...}
    path = Path("results.yaml")
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=complaint):
        reproduction.read(path)
