"""A run whose loss is no longer a number stops at once instead of training on."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

UNLOGGED = 50
"""Steps between two looks where a run logs none: looking waits for the GPU."""


class FiniteLoss(Callback):
    """Look at the loss of every ``trainer.log_every_n_steps``-th step, or every 50th where none is logged.

    Raises:
        ValueError: for NaN or infinity, naming the step and what to try.
    """

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % (trainer.log_every_n_steps or UNLOGGED):  # type: ignore[attr-defined]
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if isinstance(loss, torch.Tensor) and not bool(torch.isfinite(loss).all()):
            raise ValueError(
                f"the loss is {loss.item()} at step {trainer.global_step}; try a lower learning rate or --trainer."
                "precision 32-true. The checkpoints of the run folder are older than this step"
            )
