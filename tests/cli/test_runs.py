"""Whole runs: what they leave, what failed starts and trials leave, and that a run in pieces is one run."""

import csv
import json
import platform
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from tests.test_train import ROOT, RUNS, fit, result, toy, wrong_checkpoints
from train import main

assert toy  # a fixture


def everything() -> dict[str, int]:
    """Every file and folder, files with the time of their last change; a lock is written whenever it is held."""
    paths = (path for path in Path().rglob("*") if path.name != ".lock")
    return {str(path): path.stat().st_mtime_ns if path.is_file() else 0 for path in paths}


def refused(*options: str, command: str = "fit") -> None:
    """The command fails in one line and changes no file."""
    before = everything()
    with pytest.raises(SystemExit) as stop:
        fit(*options, command=command)
    assert stop.value.code == 2 and everything() == before


@pytest.mark.parametrize(
    "option",
    [
        "--data.init_args.root=/nowhere",  # known when the data are set up
        "--data.init_args.batch_size=0",
        "--ckpt_path=nowhere.ckpt",
        "--ckpt_path=other.ckpt",  # known when the weights are loaded
        "--trainer.precision=64-untrue",
    ],
)
def test_a_failed_start_leaves_nothing(option: str) -> None:
    wrong_checkpoints()
    refused(option)


def test_a_failed_test_leaves_nothing_and_a_failed_training_its_folder() -> None:
    refused("--ckpt_path=best", command="test")
    with pytest.raises(SystemExit):
        fit("--model.init_args.optimizer.init_args.lr=1e30")
    assert (RUNS / "000" / "config.fit.yaml").exists() and (RUNS / "000" / "metrics.csv").exists()


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_trial_leaves_nothing(command: str) -> None:
    before = everything()
    fit("--trainer.fast_dev_run=2", command=command)
    assert everything() == before


def test_a_trial_from_a_run_leaves_the_run_alone() -> None:
    fit()
    before = everything()
    fit("--trainer.fast_dev_run=true", "--ckpt_path=last")
    fit("--trainer.fast_dev_run=true", "--ckpt_path=best", command="predict")
    assert everything() == before


def test_without_loggers() -> None:
    fit("--trainer.logger=false")
    assert result()["best_score"] > 0
    assert not (RUNS / "000" / "csv").exists() and not (RUNS / "000" / "metrics.csv").exists()


def test_a_result_says_what_ran_and_where() -> None:
    fit("--seed_everything=4")
    found = result()
    assert found["best_path"] == "checkpoints/best.ckpt" and (RUNS / "000" / found["best_path"]).is_file()
    assert found["command"] == "python train.py fit --config toy.yaml --seed_everything=4"
    assert found["host"] == platform.node() and found["device"].startswith("1 x cpu")
    fit("--ckpt_path=best", command="test")
    assert result(command="test")["checkpoint"] == "checkpoints/best.ckpt"
    assert set(result(command="test")["metrics"]) == {"test/loss"}
    fit(f"--ckpt_path={RUNS}/000/checkpoints/best.ckpt", "--run.dir=elsewhere", command="validate")
    elsewhere = json.loads(Path("elsewhere/000/result.json").read_text())["validate"]
    assert elsewhere["checkpoint"].endswith("one/000/checkpoints/best.ckpt")


def test_a_fit_from_the_best_of_another_run_has_a_best_of_its_own(capsys: pytest.CaptureFixture) -> None:
    fit()
    best = f"{RUNS}/000/checkpoints/best.ckpt"
    fit(f"--ckpt_path={best}", "--trainer.limit_val_batches=0", "--trainer.max_epochs=3")
    assert result("001")["best_path"] is None and result("001")["best_score"] is None
    assert "val/loss" not in result("001")["metrics"]  # another run's
    assert result("001")["steps"] == 12
    fit(f"--ckpt_path={best}", "--trainer.max_epochs=3")
    assert result("002")["best_path"] == "checkpoints/best.ckpt"
    assert (RUNS / "002" / "checkpoints" / "best.ckpt").is_file()


def test_a_schedule_that_has_ended_is_not_trained_on(capsys: pytest.CaptureFixture) -> None:
    cycle = {
        "class_path": "modules.components.schedules.OneCycle",
        "init_args": {"total_steps": "${trainer.max_steps}"},
    }
    Path("cycle.yaml").write_text(yaml.safe_dump({"model": {"init_args": {"lr_scheduler": cycle}}}))
    options = ["--config=cycle.yaml", "--trainer.max_epochs=-1"]
    fit(*options, "--trainer.max_steps=20", "--model.init_args.lr_scheduler.init_args.pct_start=0.05")
    assert result()["steps"] == 20
    for path in ("last", f"{RUNS}/000/checkpoints/last.ckpt"):
        refused(*options, "--trainer.max_steps=24", f"--ckpt_path={path}")
        assert "ends at step 20: go on with --trainer.max_steps 20 at most" in capsys.readouterr().err
    fit(*options, "--trainer.max_steps=24", "--ckpt_path=last", command="test")  # only a training needs more steps


def test_a_run_in_pieces_has_one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    fit("--trainer.max_epochs=4")
    fit("--trainer.max_epochs=1")
    fit("--ckpt_path=best", "--run.dir=runs/toy/one", command="test")  # its table is no part of the training's
    for epochs in (3, 4, 4):  # at last there is nothing left to do
        fit(f"--trainer.max_epochs={epochs}", "--ckpt_path=last", "--seed_everything=9")
    assert (RUNS / "001" / "metrics.csv").read_text() == (RUNS / "000" / "metrics.csv").read_text()


@pytest.mark.parametrize("at", [{"every_n_train_steps": 5}, {"every_n_epochs": 1, "save_on_train_epoch_end": True}])
def test_the_row_of_a_checkpoints_own_step_stays(at: dict[str, object]) -> None:
    """Also of one that is saved before that step's row is written."""
    folder = "${run.dir}/{number}/checkpoints"
    init_args = {"dirpath": folder, "filename": "last", "enable_version_counter": False, **at}
    saving = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": init_args}
    Path("saving.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [saving]}}))
    for epochs in (2, 4):
        fit("--config=saving.yaml", f"--trainer.max_epochs={epochs}", "--ckpt_path=last")
    rows = [*csv.DictReader((RUNS / "000" / "metrics.csv").read_text().splitlines())]
    assert [int(row["step"]) for row in rows if row["train/loss"]] == [*range(16)]


def test_a_run_in_pieces_adds_its_seconds_and_keeps_its_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 100
        return now[0]

    fit("--trainer.max_epochs=2")
    monkeypatch.setattr("cli.run_record.time", SimpleNamespace(monotonic=tick))
    earlier = result()
    fit("--trainer.max_epochs=3", "--ckpt_path=last", "--trainer.limit_val_batches=0")
    assert 100 < result()["seconds"] < 100 * 40
    assert result()["seconds"] % 100 == pytest.approx(earlier["seconds"], abs=1)  # up to its last checkpoint
    assert result()["metrics"]["val/loss"] == earlier["metrics"]["val/loss"]
    assert result()["metrics"]["train/loss"] != earlier["metrics"]["train/loss"]
    between = result()["seconds"]
    monkeypatch.setattr("cli.run_record.time", time)
    fit(f"--ckpt_path={RUNS}/000/checkpoints/best.ckpt", "--trainer.max_epochs=3")
    assert result("001")["seconds"] < min(between, 100)  # a new run begins at zero


def test_predict_leaves_a_file_or_says_what_to_do(capfd: pytest.CaptureFixture) -> None:
    fit()
    fit("--ckpt_path=last", command="predict")
    lines = (RUNS / "000" / "outputs.predict.csv").read_text().splitlines()
    assert lines[0] == "index,value" and len(lines) == 33
    refused("--model.class_path=tests.toys.Mute", command="predict")
    assert "error: Mute has no predict_step: `fit` and `test` are what it has" in capfd.readouterr().err
    quickstart = ["--config", str(ROOT / "configs/l3c/quickstart.yaml"), "--run.dir=l3c"]
    with pytest.raises(SystemExit):
        main(["predict", *quickstart, "--model.init_args.network.init_args.channels=4"])
    assert "error: L3C has no predict_step: `python codec.py compress <images>" in capfd.readouterr().err
    assert not Path("l3c").exists()
