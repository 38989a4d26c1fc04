"""Where a run goes on, as its checkpoint means it and not as Lightning reads it."""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class ResumePoint(Callback):
    """Put the counters of a checkpoint right before Lightning restores them.

    A checkpoint from ``on_train_epoch_end`` counts its epoch as processed, but not as completed. What Lightning 2.6
    makes of that depends on the trainer's options:

    - With ``max_steps`` it ends the epoch once more: hooks run twice, epochs, and where there is a validation logged
      steps, are counted one too high, and a second restart from there may leave out batches and validations.
    - An epoch that ``max_steps``, ``max_time`` or early stopping cut off counts as processed too: without
      ``max_steps`` the batches that are left of it are never trained on.

    Here an epoch with its last batch is completed and the next one begins; any other goes on in the middle.
    """

    def __init__(self) -> None:
        self.begins_an_epoch = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if loops := checkpoint.get("loops", {}).get("fit_loop"):
            self.begins_an_epoch = settle(loops)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Between restoring the loops and the first of them that runs."""
        if self.begins_an_epoch:
            trainer.fit_loop.epoch_loop.restarting = False
        self.begins_an_epoch = False


def settle(loops: dict[str, Any]) -> bool:
    """Change the state of a fit loop in place; True if the next thing to do is to begin an epoch."""
    epochs, batches = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
    if not epochs["current"]["processed"] == epochs["current"]["started"] > 0:
        return False  # in the middle of an epoch, or before the first
    for count in (epochs["total"], epochs["current"]):
        count["processed"] -= not batches["is_last_batch"]
        count["completed"] = count["processed"]
    if batches["is_last_batch"]:
        loops["state_dict"].pop("combined_loader", None)  # of the epoch that is over
    return batches["is_last_batch"]
