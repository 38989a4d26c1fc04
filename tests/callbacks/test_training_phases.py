"""Phases: what each starts from, when it ends, and that an interruption changes no number."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.rng_state import RngState
from callbacks.training_phases import TrainingPhases
from datamodules.loading.loaders import training_loader

PHASES = [
    {"name": "first", "epochs": 3, "head": "mean", "lr": 0.1},
    {"name": "second", "epochs": 2, "head": "lstm", "train_features": False, "lr": 0.05},
    {"name": "third", "epochs": 2, "head": "lstm", "train_features": True},
]


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.3), nn.Linear(3, 1))
        self.head, self.train_features = "mean", True


class Regression(LightningModule):
    """Its validation scores are given, so that the best epoch of a phase is known; a trace tells what happened."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.network = Network()
        self.scores = scores
        self.trace: list[tuple[Any, ...]] = []

    def training_step(self, batch: list[Tensor]) -> Tensor:
        loss = (self.network.layers(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean()
        lr = self.trainer.optimizers[0].param_groups[0]["lr"]
        self.trace.append((self.current_epoch, self.network.head, self.network.train_features, lr, float(loss)))
        return loss

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("val/f1", self.scores[self.current_epoch])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.1)


class Draws(TensorDataset):
    def __getitem__(self, draw: Any) -> tuple[Tensor, ...]:
        return super().__getitem__(draw[1] if isinstance(draw, tuple) else draw)


class SaveEverywhere(Callback):
    """A checkpoint after every batch and, like a ModelCheckpoint, at the end of every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        trainer.save_checkpoint(self.folder / f"batch{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, *args: object) -> None:
        trainer.save_checkpoint(self.folder / f"epoch{trainer.global_step}.ckpt")


SCORES = [0.3, 0.5, 0.4, 0.6, 0.2, 0.7, 0.1]


def run(folder: Path, scores: list[float], resume: str | None = None, **options: Any) -> Regression:
    """Three batches an epoch."""
    data = Draws(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))
    module = Regression(scores)
    phases = TrainingPhases(**{"phases": PHASES, "dirpath": str(folder), **options})
    trainer = Trainer(
        max_epochs=len(scores),
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[RngState(), phases, SaveEverywhere(folder)],
    )
    torch.manual_seed(5 if resume is None else 6)  # must not matter to a resumed run
    path = None if resume is None else folder / f"{resume}.ckpt"
    loader = training_loader(data, 4, 0, 0, trainer)
    trainer.fit(module, loader, DataLoader(data, 12), ckpt_path=path, weights_only=True)
    return module


def test_settings_of_each_phase(tmp_path: Path) -> None:
    trace = run(tmp_path, SCORES).trace
    expected = [("mean", True, 0.1)] * 9 + [("lstm", False, 0.05)] * 6 + [("lstm", True, 0.05)] * 6
    assert [entry[1:4] for entry in trace] == expected


def test_each_phase_starts_from_the_best_of_the_one_before(tmp_path: Path) -> None:
    module = run(tmp_path, SCORES)
    best = torch.load(tmp_path / "phase0.ckpt", weights_only=True)
    assert best["epoch"] == 1 and best["global_step"] == 6
    assert torch.load(tmp_path / "phase1.ckpt", weights_only=True)["epoch"] == 3
    after = torch.load(tmp_path / "batch10.ckpt", weights_only=True)  # one step into the second phase
    moments, old = after["optimizer_states"][0]["state"][0], best["optimizer_states"][0]["state"][0]
    assert float(moments["step"]) == float(old["step"]) + 1 == 7  # Adam went on from the best epoch
    last = torch.load(tmp_path / "phase2.ckpt", weights_only=True)
    assert last["epoch"] == 5
    for name, value in module.state_dict().items():
        assert torch.equal(value, last["state_dict"][name])


def test_equal_scores_count_as_better(tmp_path: Path) -> None:
    run(tmp_path, [0.5, 0.5, 0.4, 0.1, 0.1, 0.1, 0.1])
    assert torch.load(tmp_path / "phase0.ckpt", weights_only=True)["epoch"] == 1
    assert torch.load(tmp_path / "phase2.ckpt", weights_only=True)["epoch"] == 6


def test_patience_ends_a_phase_early(tmp_path: Path) -> None:
    phases = [{"epochs": 9, "head": "mean"}, {"epochs": 9, "head": "lstm"}]
    scores = [0.5, 0.6] + [0.1] * 16
    trace = run(tmp_path, scores, phases=phases, patience=2, min_epochs=4).trace
    heads = [entry[1] for entry in trace[::3]]
    assert heads == ["mean"] * 5 + ["lstm"] * len(heads[5:])
    slower = run(tmp_path, scores, phases=phases, patience=2, min_epochs=7).trace
    assert [entry[1] for entry in slower[::3]].count("mean") == 8


def test_patience_alone(tmp_path: Path) -> None:
    """Two epochs in a row may bring nothing, a third ends the phase, however young it is."""
    phases = [{"epochs": 9, "head": "mean"}, {"epochs": 9, "head": "lstm"}]
    for patience, count in ((0, 3), (1, 4), (2, 5)):
        trace = run(tmp_path, [0.5, 0.6] + [0.1] * 16, phases=phases, patience=patience, min_epochs=0).trace
        assert [entry[1] for entry in trace[::3]].count("mean") == count
    never = run(tmp_path, [0.5, 0.6] + [0.1] * 16, phases=phases).trace
    assert [entry[1] for entry in never[::3]].count("mean") == 9


def test_the_lowest_score_can_be_the_best(tmp_path: Path) -> None:
    run(tmp_path, SCORES, mode="min")
    assert [torch.load(tmp_path / f"phase{i}.ckpt", weights_only=True)["epoch"] for i in range(3)] == [0, 4, 6]


@pytest.mark.parametrize("saved", ["batch2", "epoch6", "epoch9", "batch11", "epoch12", "batch14", "epoch15", "batch17"])
def test_a_resumed_run_is_the_same_run(tmp_path: Path, saved: str) -> None:
    """In the middle of a phase and of an epoch, and between two phases."""
    whole = run(tmp_path, SCORES)
    rest = run(tmp_path, SCORES, resume=saved)
    assert rest.trace == whole.trace[int(saved[5:]) :]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, rest.state_dict()[name])


SCHEDULES = [
    {"epochs": 3, "stage": "full", "lr": 0.1, "milestones": [1, 2]},
    {"epochs": 4, "stage": "quantized", "lr": 0.2, "anneal": True, "fresh_optimizer": True},
]


def test_schedules_within_a_phase(tmp_path: Path) -> None:
    module = run(tmp_path, SCORES, phases=SCHEDULES)
    rates = [0.1, 0.01, 0.001, *(0.1 * (1 + math.cos(math.pi * age / 4)) for age in range(4))]
    assert [entry[3] for entry in module.trace[::3]] == pytest.approx(rates)
    assert module.network.stage == "quantized"


def test_a_fresh_optimizer_forgets_its_moments(tmp_path: Path) -> None:
    run(tmp_path, SCORES, phases=SCHEDULES)
    after = torch.load(tmp_path / "batch10.ckpt", weights_only=True)
    assert float(after["optimizer_states"][0]["state"][0]["step"]) == 1


@pytest.mark.parametrize("saved", ["batch2", "epoch3", "batch5", "epoch9", "batch11", "epoch15"])
def test_schedules_resume(tmp_path: Path, saved: str) -> None:
    whole = run(tmp_path, SCORES, phases=SCHEDULES)
    rest = run(tmp_path, SCORES, resume=saved, phases=SCHEDULES)
    assert rest.trace == whole.trace[int(saved[5:]) :]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    run(tmp_path, SCORES)
    (tmp_path / "phase0.ckpt").unlink()
    with pytest.raises(FileNotFoundError, match=r"phase0\.ckpt, the best checkpoint of the phase that ended"):
        run(tmp_path, SCORES, resume="epoch9")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phases": []}, "at least one phase"),
        ({"phases": [{"epochs": 0}]}, "phase 0 needs epochs of at least 1, got 0"),
        ({"phases": [{"epochs": 1, "heads": "mean"}]}, "not heads"),
        ({"phases": PHASES, "mode": "most"}, "mode must be max or min"),
        ({"phases": [{"epochs": 2, "milestones": [1]}]}, "phase 0 has a schedule of the learning rate and needs lr"),
        ({"phases": [{"epochs": 2, "anneal": True}]}, "needs lr"),
        ({"phases": [{"epochs": 2, "lr": 1, "anneal": True, "milestones": [1]}]}, "milestones or anneal, not both"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingPhases(dirpath="x", **options)
