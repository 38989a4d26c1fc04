"""What pictures of evaluation images share: when they are drawn and where they go."""

from pathlib import Path
from typing import ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from torch.utils.data import DataLoader


class EvaluationPicture(Callback):
    """After ``fit`` of validation images and after ``test``: ``<name>.<stage>.png`` in the run's folder, and on wandb.

    Raises:
        ValueError: at setup, for a module without the method that a subclass ``needs``.
    """

    name: ClassVar[str]
    needs: ClassVar[str]
    """Of the module, as a call: ``segment(image)``."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not hasattr(pl_module, self.needs.partition("(")[0]):
            raise ValueError(f"{type(self).__name__} needs a module with {self.needs}, not {type(pl_module).__name__}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "fit")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test")

    def draw(self, pl_module: LightningModule, loader: DataLoader, path: Path) -> None:
        """Write the picture of some images of ``loader``; the module is in eval mode."""
        raise NotImplementedError

    @torch.no_grad()
    def _write(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        pl_module.eval()
        path = Path(trainer.default_root_dir) / f"{self.name}.{stage}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.draw(pl_module, data.val_dataloader() if stage == "fit" else data.test_dataloader(), path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{self.name}/{stage}", [str(path)])
