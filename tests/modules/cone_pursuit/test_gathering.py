"""Every item counts once, however many ranks share the set."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modules.components.checkpoint_file import CheckpointError
from modules.components.gathering import gather_records
from modules.cone_pursuit.gathering import Gathering, Study
from train import main

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "configs" / "cone_pursuit" / "coding.yaml")


def test_records_are_told_apart_by_what_they_are_about() -> None:
    one = {"draw": 1, "algorithm": "amp", "with_iteration": 0, "value": 2.0}
    others = [one | {"algorithm": "pwmp"}, one | {"with_iteration": 1}, one | {"draw": 0}]
    assert gather_records([one, *others, dict(one)]) == [others[2], one, *others[:2]]


@pytest.mark.slow
def test_two_processes_log_what_one_does(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.save(tmp_path / "atoms.npy", random.random((6, 4)))
    np.save(tmp_path / "points.npy", random.random((5, 6)))
    options = [f"--model.init_args.dictionary={tmp_path / 'atoms.npy'}", "--run.dir=runs"]
    options += [f"--data.init_args.points={tmp_path / 'points.npy'}", "--trainer.accelerator=cpu"]
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", CONFIG, *options]
    ddp = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    done = subprocess.run([*command, *ddp], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    main(["fit", "--config", CONFIG, *options])
    two, one = (json.loads(Path(f"runs/00{i}/result.json").read_text())["fit"]["metrics"] for i in (0, 1))
    for name in ("train/relative_error", "train/atoms", "train/certificate"):
        assert two[name] == pytest.approx(one[name], rel=1e-9, abs=1e-12)


def test_an_interrupted_epoch_keeps_what_it_gathered() -> None:
    before, after, checkpoint = Gathering(), Gathering(), dict[str, Any]()
    before.gathered = [{"index": torch.tensor([3]), "points": torch.ones(1, 2)}]
    before.on_save_checkpoint(checkpoint)
    after.on_load_checkpoint(checkpoint)
    assert after.gathered == before.gathered


def test_a_fit_begins_without_what_a_failed_one_left() -> None:
    study = Study()
    study.gathered, study.records = [{"index": torch.tensor([3])}], [{"draw": 0, "algorithm": "amp"}]
    study.setup("predict")
    assert study.gathered and study.records
    study.setup("fit")
    assert study.gathered == [] == study.records


@pytest.mark.parametrize("checkpoint", [{}, {"gathered": []}])
def test_a_foreign_checkpoint_is_refused(checkpoint: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not one of Study"):
        Study().on_load_checkpoint(checkpoint)
