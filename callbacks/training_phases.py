"""Training in phases: each starts from the best weights of the one before, with other parts in training."""

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from modules.components.checkpoint_file import read_checkpoint
from modules.components.options import at_least

ATTRIBUTES = ("head", "train_features", "stage")
SETTINGS = {"name", "epochs", "lr", "milestones", "anneal", "fresh_optimizer", *ATTRIBUTES}
DECAY = 0.1
"""Of the learning rate at each milestone."""


def check_phases(phases: list[dict[str, Any]]) -> None:
    """Raise a ValueError for a phase that cannot be."""
    if not phases:
        raise ValueError("phases must name at least one phase")
    for number, phase in enumerate(phases):
        if unknown := set(phase) - SETTINGS:
            raise ValueError(f"phase {number} knows {', '.join(sorted(SETTINGS))}, not {', '.join(sorted(unknown))}")
        epochs = phase.get("epochs")
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f"phase {number} needs epochs of at least 1, got {epochs}")
        if ("milestones" in phase or phase.get("anneal")) and phase.get("lr") is None:
            raise ValueError(f"phase {number} has a schedule of the learning rate and needs lr, its first value")
        if "milestones" in phase and phase.get("anneal"):
            raise ValueError(f"phase {number} takes milestones or anneal, not both")


def scheduled_lr(phase: dict[str, Any], age: int) -> float:
    """The learning rate of a phase's epoch ``age``: its ``lr``, times 0.1 from each milestone on, or along a cosine."""
    if phase.get("anneal"):
        return phase["lr"] * 0.5 * (1.0 + math.cos(math.pi * age / phase["epochs"]))
    return phase["lr"] * DECAY ** sum(age >= milestone for milestone in phase.get("milestones", []))


class TrainingPhases(Callback):
    """Lead a network through phases and keep the best checkpoint of each, ``<dirpath>/phase<i>.ckpt``.

    A phase ends after its epochs, or earlier when the score has not improved for ``patience`` epochs and the phase is
    older than ``min_epochs``. The next one starts from its best weights, with the optimizer's state of that moment,
    and with a fresh memory of scores; equal scores count as better. After the last phase its best weights are put
    back and training stops.

    The change happens at the start of an epoch, so ``last.ckpt`` of the epoch before holds what a resumed run needs to
    make it too, together with the file of the phase that ended. Within a phase a run resumes anywhere.

    A phase sets these attributes of the module's network: ``head``, ``train_features`` and ``stage``; and the
    learning rate, which with ``milestones`` or ``anneal`` changes within the phase, too.

    Args:
        phases: one dict each: ``epochs``, and optionally ``name``, ``head``, ``train_features``, ``stage``, ``lr``
            (None or missing keeps the optimizer's), ``milestones`` (epochs of the phase from which on the rate is a
            tenth of the one before), ``anneal`` (a cosine from ``lr`` towards 0, by epoch) and ``fresh_optimizer``
            (start without the optimizer's state: momentum, moments).
        dirpath: where checkpoints go.
        monitor: logged by validation.
        mode: ``max`` or ``min``: which of its values is best.
        patience: epochs without improvement; None never ends a phase early.
        min_epochs: of a phase that may end early.
        network: the module's attribute that holds the network.

    Raises:
        ValueError: for a phase that cannot be.
        FileNotFoundError: if a resumed run misses the file of the phase that ended.
    """

    def __init__(
        self,
        phases: list[dict[str, Any]],
        dirpath: str,
        monitor: str = "val/f1",
        mode: str = "max",
        patience: int | None = None,
        min_epochs: int = 0,
        network: str = "network",
    ) -> None:
        check_phases(phases)
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min, got {mode!r}")
        at_least(0, patience=patience, min_epochs=min_epochs)
        self.phases, self.dirpath, self.monitor = phases, Path(dirpath), monitor
        self.sign = 1.0 if mode == "max" else -1.0
        self.patience, self.min_epochs, self.network = patience, min_epochs, network
        self.index, self.age, self.best_age = 0, 0, 0
        self.best_score: float | None = None
        self.is_over = False

    @property
    def path(self) -> Path:
        return self.dirpath / f"phase{self.index}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("index", "age", "best_age", "best_score", "is_over")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set what no checkpoint holds; a resumed optimizer knows its learning rate."""
        self._set(trainer, pl_module, with_lr=self.index == 0 and self.age == 0)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_over and self.index + 1 < len(self.phases):
            self._restore(trainer, pl_module)
            self.index, self.age, self.best_age = self.index + 1, 0, 0
            self.best_score, self.is_over = None, False
            self._set(trainer, pl_module)
        elif self.age > 0 and {"milestones", "anneal"} & set(self.phases[self.index]):
            self._set_lr(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.sanity_checking or trainer.state.fn != "fit" or value is None or bool(torch.isnan(value)):
            return
        score = self.sign * float(value)
        if self.best_score is None or score >= self.best_score:
            self.best_score, self.best_age = score, self.age
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.age += 1
        stale = self.age - 1 - self.best_age
        is_stale = self.patience is not None and stale > self.patience and self.age > self.min_epochs
        self.is_over = is_stale or self.age >= self.phases[self.index]["epochs"]
        if self.is_over and self.index + 1 == len(self.phases):
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_over and self.index + 1 == len(self.phases):
            self._restore(trainer, pl_module)

    def _set(self, trainer: Trainer, pl_module: LightningModule, with_lr: bool = True) -> None:
        phase, network = self.phases[self.index], getattr(pl_module, self.network)
        for name in ATTRIBUTES:
            if name in phase:
                setattr(network, name, phase[name])
        if with_lr and phase.get("fresh_optimizer"):
            trainer.optimizers[0].state = defaultdict(dict)
        if with_lr and phase.get("lr") is not None:
            self._set_lr(trainer)

    def _set_lr(self, trainer: Trainer) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = scheduled_lr(self.phases[self.index], self.age)

    def _restore(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The weights and the optimizer's state of this phase's best epoch, if it had a validation."""
        if self.best_score is None:
            return
        if not self.path.is_file():
            raise FileNotFoundError(f"no file {self.path}, the best checkpoint of the phase that ended: resume there")
        content = read_checkpoint(self.path, pl_module.device)
        pl_module.load_state_dict(content["state_dict"])
        trainer.optimizers[0].load_state_dict(content["optimizer_states"][0])
