"""What modules without gradients share: batches that are kept, records, and what a checkpoint holds of both."""

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
from modules.components.gathering_module import Gathering, Study
from train import main

ROOT = Path(__file__).parents[3]
CONFIG = str(ROOT / "configs" / "cone_pursuit" / "coding.yaml")


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
    np.testing.assert_allclose(*(np.load(f"runs/00{i}/codes.npy") for i in (0, 1)), atol=1e-12)


def test_an_interrupted_epoch_keeps_what_it_gathered() -> None:
    before, after, checkpoint = Gathering(), Gathering(), dict[str, Any]()
    before.gathered = [{"index": torch.tensor([3]), "points": torch.ones(1, 2)}]
    before.on_save_checkpoint(checkpoint)
    after.on_load_checkpoint(checkpoint)
    assert after.gathered == before.gathered


class GatheringStudy(Gathering, Study):
    """As factorisation and unmixing are."""

    def predict_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """It can."""


def test_a_fit_begins_without_what_a_failed_one_left() -> None:
    study = GatheringStudy()
    study.gathered, study.records = [{"index": torch.tensor([3])}], [{"draw": 0, "algorithm": "amp"}]
    study.setup("predict")
    assert study.gathered and study.records
    study.setup("fit")
    assert study.gathered == [] == study.records


def test_a_checkpoint_holds_records_and_what_was_gathered() -> None:
    study, again, checkpoint = GatheringStudy(), GatheringStudy(), dict[str, Any]()
    study.gathered, study.records = [{"index": torch.tensor([3])}], [{"draw": 0, "algorithm": "amp"}]
    study.on_save_checkpoint(checkpoint)
    again.on_load_checkpoint(checkpoint)
    assert (again.gathered, again.records) == (study.gathered, study.records)


@pytest.mark.parametrize("checkpoint", [{}, {"gathered": []}, {"records": []}])
def test_a_foreign_checkpoint_is_refused(checkpoint: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="not one of GatheringStudy"):
        GatheringStudy().on_load_checkpoint(checkpoint)


def test_a_step_is_counted_without_moving_anything() -> None:
    """One idle number, so that Lightning counts, saves and takes DDP."""
    study = Study()
    assert [name for name, _ in study.named_parameters()] == ["idle"] and not study.automatic_optimization
    optimizer = study.configure_optimizers()
    assert optimizer.param_groups[0]["params"] == [study.idle]


def test_what_only_measures_does_not_predict() -> None:
    with pytest.raises(ValueError, match=r"Study measures and has nothing to predict: `train\.py fit`"):
        Study().setup("predict")
    Study().setup("fit")
