"""Scores of folds put together, and which runs are tested."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from modules.ecg import cross_validate


def finished_run(folder: Path, fold: int, score: float | None) -> Path:
    folder.mkdir(parents=True)
    results: dict[str, Any] = {"fit": {"metrics": {}}}
    if score is not None:
        results["test"] = {"metrics": {"test/f1": score}}
    (folder / "result.json").write_text(json.dumps(results))
    (folder / "config.fit.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"fold": fold}}}))
    return folder


def test_mean_and_deviation(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scores = {2: 0.7, 0: 0.8, 1: 0.75}
    folders = [finished_run(tmp_path / f"{fold:03d}", fold, score) for fold, score in scores.items()]
    assert cross_validate.main([*map(str, folders), "--output", "all.json"]) == 0
    summary = json.loads(Path("all.json").read_text())
    assert summary["folds"] == {"0": 0.8, "1": 0.75, "2": 0.7}
    assert summary["mean"] == pytest.approx(0.75) and summary["standard_deviation"] == pytest.approx(0.05)
    assert "0.7500 +- 0.0500" in capsys.readouterr().out


def test_only_untested_runs_are_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = finished_run(tmp_path / "runs" / "000", 0, 0.8)
    fresh = finished_run(tmp_path / "runs" / "001", 1, None)
    commands: list[list[str]] = []

    def run(words: list[str]) -> int:
        commands.append(words)
        result = json.loads((fresh / "result.json").read_text())
        (fresh / "result.json").write_text(json.dumps(result | {"test": {"metrics": {"test/f1": 0.6}}}))
        return 0

    monkeypatch.setattr(cross_validate, "run", run)
    assert cross_validate.main([str(done), str(fresh)]) == 0
    [command] = commands
    assert command[1:4] == ["test", "--config", str(fresh / "config.fit.yaml")]
    assert command[4:] == [f"--run.dir={tmp_path / 'runs'}", f"--ckpt_path={fresh / 'checkpoints' / 'best.ckpt'}"]
    assert json.loads(Path("cross_validation.json").read_text())["mean"] == pytest.approx(0.7)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cross_validate.main([str(tmp_path / "absent")]) == 2
    assert "holds no finished fit" in capsys.readouterr().err
    twice = [str(finished_run(tmp_path / name, 3, 0.5)) for name in ("a", "b")]
    assert cross_validate.main(twice) == 2
    assert "same test fold" in capsys.readouterr().err
