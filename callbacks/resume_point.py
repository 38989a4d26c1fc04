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

    A schedule that follows a metric (ReduceLROnPlateau) sees it behind the checkpoint of its epoch's end, and in an
    epoch that was resumed not at all. What it has missed is made up for when the next epoch begins.
    """

    def __init__(self) -> None:
        self.begins_an_epoch, self.is_behind = False, False
        self.values: dict[int, float] = {}
        """What each schedule looks at, by its number, at the newest end of an epoch."""
        self.must_step = False

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        loops = checkpoint.get("loops", {}).get("fit_loop")
        if loops and not trainer.fast_dev_run:  # type: ignore[attr-defined]  # a trial's one epoch is over anyway
            self.is_behind = is_behind_an_end(loops)
            self.begins_an_epoch = settle(loops)

    def state_dict(self) -> dict[str, Any]:
        return {"values": dict(self.values), "must_step": self.must_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.values = dict(state_dict["values"])
        self.must_step = self.begins_an_epoch and (state_dict["must_step"] or not self.is_behind)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Between restoring the loops and the first of them that runs."""
        if self.begins_an_epoch:
            trainer.fit_loop.epoch_loop.restarting = False

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number, value in self.values.items() if self.must_step else ():
            pl_module.lr_scheduler_step(trainer.lr_scheduler_configs[number].scheduler, value)
        self.must_step = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.values = {}
        for number, config in enumerate(trainer.lr_scheduler_configs if pl_module.automatic_optimization else ()):
            is_due = config.interval == "epoch" and (trainer.current_epoch + 1) % config.frequency == 0
            if config.reduce_on_plateau and is_due and config.monitor in trainer.callback_metrics:
                self.values[number] = float(trainer.callback_metrics[config.monitor])
        self.must_step = trainer.fit_loop.restarting  # Lightning leaves it out


def is_behind_an_end(loops: dict[str, Any]) -> bool:
    """True for a checkpoint from behind the hooks of an epoch's end, where schedules have seen their metrics."""
    count = loops["epoch_progress"]["current"]
    return count["completed"] == count["processed"]


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
