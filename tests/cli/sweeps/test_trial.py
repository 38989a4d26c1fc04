"""What a trial's folder says of it, whole or torn."""

import json
import math
from pathlib import Path

from cli.sweeps.trial import FINISHED, STOPPED, UNFINISHED, Trial, name_of, read_json, recorded, write_json

BASE = Path("runs/sweeps/s")


def finish(folder: Path, number: str, score: float | None, error: float = 7.0) -> None:
    (folder / number).mkdir(parents=True)
    fit = {"monitor": "val/loss", "best_score": score, "metrics": {"val/loss": 5.0, "val/error": error}}
    (folder / number / "result.json").write_text(json.dumps({"fit": fit}))


def test_the_newest_finished_run_of_a_trial_counts() -> None:
    trial = Trial({"a": 1}, BASE)
    assert trial.score("val/loss", False) is None and trial.state == UNFINISHED
    for number, score in (("998", 3.0), ("999", 2.0), ("1000", 1.0)):
        finish(trial.folder, number, score)
    (trial.folder / "1001").mkdir()
    (trial.folder / "1001" / "result.json").write_text(json.dumps({"test": {}}))
    assert trial.state == FINISHED
    assert trial.score("val/loss", False) == 1.0 and trial.score("val/error", False) == 7.0
    assert math.isnan(trial.score("val/nothing", False) or 0.0)
    finish(trial.folder, "1002", None)
    assert trial.score("val/loss", False) == 5.0  # it monitored nothing that it measured


def test_a_stopped_trial_is_worth_its_best() -> None:
    trial = Trial({"a": 1}, BASE)
    version = trial.folder / "000" / "csv" / "version_0"
    version.mkdir(parents=True)
    (version / "first_step").write_text("0\n")
    (version / "metrics.csv").write_text("step,val/loss,lr\n0,3.0,\n1,,0.1\n2,nan,\n3,2.0,\n4,4.0,\n5,")
    assert trial.score("val/loss", False) is None
    assert str(trial.history("val/loss")) == "[3.0, nan, 2.0, 4.0]" and trial.history(None) == []
    trial.note(state=STOPPED)
    assert trial.score("val/loss", False) == 2.0 and trial.score("val/loss", True) == 4.0
    assert math.isnan(trial.score("val/error", False) or 0.0)


def test_the_record_keeps_what_it_knows() -> None:
    trial = Trial({"b": 2, "a": 1}, BASE, {"a": 0.25}, 3)
    trial.note(starts=2)
    trial.note(state=STOPPED)
    assert trial.starts == 2 and trial.name == name_of({"a": 1, "b": 2}) != name_of({"a": 1, "b": 3})
    Trial({"a": 9}, BASE, {}, 1).note()
    assert [(one.number, one.parameters, one.point) for one in recorded(BASE)] == [
        (1, {"a": 9}, {}),
        (3, {"b": 2, "a": 1}, {"a": 0.25}),
    ]


def test_half_a_file_is_none() -> None:
    BASE.mkdir(parents=True)
    for text in ('{"a": ', "[1]", ""):
        (BASE / "half.json").write_text(text)
        assert read_json(BASE / "half.json") == {}
    write_json(BASE / "half.json", {"a": 1})
    assert read_json(BASE / "half.json") == {"a": 1} and read_json(BASE / "none.json") == {}
    (BASE / "x").mkdir()
    (BASE / "x" / "trial.json").write_text('{"number": 1')
    assert recorded(BASE) == []
