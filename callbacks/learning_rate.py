"""The optimizers' learning rates beside the metrics."""

from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LearningRateMonitor


class LearningRate(LearningRateMonitor):
    """Lightning's monitor, which refuses a run without a logger, where there is one."""

    def on_train_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)
