"""The progress bar: a live one in a terminal, a line now and then in a log file."""

import sys
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar

from modules.components.options import at_least


class Progress(RichProgressBar):
    """Rich's bar with the metrics that the module logs with ``prog_bar=True``.

    Args:
        monitor: the number that matters; shown first.
        seconds_per_line: without a terminal, a line at most this often and one after each validation.
    """

    def __init__(self, monitor: str | None = None, seconds_per_line: float = 60.0, refresh_rate: int = 1) -> None:
        at_least(0, seconds_per_line=seconds_per_line, refresh_rate=refresh_rate)
        self.in_terminal = sys.stdout.isatty()
        super().__init__(refresh_rate=refresh_rate if self.in_terminal else 0)
        self.monitor, self.seconds_per_line = monitor, seconds_per_line
        self.last_line = time.monotonic()

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        first = {name: metrics.pop(name) for name in [self.monitor] if name in metrics}
        return {**first, **metrics}

    def print_line(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.in_terminal or not trainer.is_global_zero or trainer.sanity_checking:
            return
        numbers = [
            f"{name} {float(value):.5g}"
            for name, value in self.get_metrics(trainer, pl_module).items()
            if isinstance(value, (int, float, str))
        ]
        print(f"epoch {trainer.current_epoch} step {trainer.global_step} {' '.join(numbers)}", flush=True)
        self.last_line = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *args)
        if time.monotonic() - self.last_line > self.seconds_per_line:
            self.print_line(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self.print_line(trainer, pl_module)
