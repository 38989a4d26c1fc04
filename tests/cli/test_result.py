"""What result.json says of the code, the machine and the files of a run."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from cli import result
from cli.result import best_of, device_of, origin, print_summary, save_result, within


def git(*words: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], check=True, capture_output=True)


def test_the_commit_and_whether_it_is_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "ROOT", tmp_path)
    assert origin([])["commit"] is None and origin([])["dirty"] is None  # no repository
    git("init")
    Path("code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "-m", "first")
    Path("notes.txt").touch()  # untracked files are nobody's business
    clean = origin(["fit", "--config", "a b.yaml"])
    assert len(clean["commit"]) == 40 and clean["dirty"] is False
    assert clean["command"] == "python train.py fit --config 'a b.yaml'"
    Path("code.py").write_text("a = 2\n")
    assert origin([])["dirty"] is True and origin([])["commit"] == clean["commit"]
    monkeypatch.setenv("PATH", "")
    assert origin([])["commit"] is None  # no git


def test_paths_in_the_run_are_relative_to_it() -> None:
    folder = Path("runs/a/000")
    assert within(folder, "runs/a/000/checkpoints/best.ckpt") == "checkpoints/best.ckpt"
    assert within(folder, folder.resolve() / "x") == "x"
    assert within(folder, "runs/a/001/x") == "runs/a/001/x"
    assert within(folder, "") is None and within(folder, None) is None


def trainer(callback: ModelCheckpoint) -> SimpleNamespace:
    return SimpleNamespace(
        checkpoint_callbacks=[ModelCheckpoint(monitor=None), callback], default_root_dir="runs/a/000"
    )


def test_the_best_is_this_runs() -> None:
    callback = ModelCheckpoint(dirpath="runs/a/000/checkpoints", monitor="val/x")
    callback.best_model_path = "runs/a/001/checkpoints/best.ckpt"  # of the run that this one began with
    assert best_of(trainer(callback)) == {"monitor": "val/x", "best_score": None, "best_path": None}  # type: ignore[arg-type]
    callback.best_model_path = "runs/a/000/checkpoints/best.ckpt"
    callback.best_model_score = torch.tensor(0.5)
    assert best_of(trainer(callback))["best_path"] == "checkpoints/best.ckpt"  # type: ignore[arg-type]
    assert best_of(trainer(callback))["best_score"] == 0.5  # type: ignore[arg-type]


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    of_rank = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), world_size=2)
    assert device_of(of_rank).startswith("2 x cpu ")  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    of_rank.strategy.root_device = torch.device("cuda", 3)
    assert device_of(of_rank) == "2 x GPU 3"  # type: ignore[arg-type]


def test_results_stand_beside_each_other(capsys: pytest.CaptureFixture) -> None:
    about = {"steps": 3, "epochs": 1, "seconds": 2.5, "metrics": {"a": 0.25}}
    best = {"monitor": "val/x", "best_score": 0.5, "best_path": "checkpoints/best.ckpt"}
    save_result(Path(), "fit", about | best)
    save_result(Path(), "test", about)
    save_result(Path(), "test", about | {"steps": 4})
    assert json.loads(Path("result.json").read_text()) == {"fit": about | best, "test": about | {"steps": 4}}
    print_summary(Path("runs/a/000"), about | best, "wandb sync here")
    print_summary(Path("runs/a/000"), about, None)
    assert capsys.readouterr().out.splitlines() == [
        "run folder  runs/a/000",
        "best        val/x 0.5 in runs/a/000/checkpoints/best.ckpt",
        "time        2.5 s, 3 steps, 1 epochs",
        "wandb       wandb sync here",
        "run folder  runs/a/000",
        "metrics     a 0.25",
        "time        2.5 s, 3 steps, 1 epochs",
    ]
