"""Pictures of a segmentation: held-out images, their labels, and what the network finds."""

from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger

from callbacks.reports.scene_pictures import Shown, draw_rows, label_colours

IGNORE = 255
"""Label of pixels that count nowhere; black."""


class SegmentationPicture(Callback):
    """After ``fit`` and ``test``: ``segmentation.fit.png``, ``segmentation.test.png`` in the run folder, and on wandb.

    The module gives ``segment(image)``: labels int64 [N, H, W] of images uint8 [N, 3, H, W]. The picture has a row for
    the first image of some evaluation batches, spread over the split, since neighbours are often frames of one drive:
    itself, its labels, what is found. With ``fit`` these are validation images.

    Args:
        num_images: rows.

    Raises:
        ValueError: for no rows, or a module without ``segment``.
    """

    def __init__(self, num_images: int = 4) -> None:
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, got {num_images}")
        self.num_images = num_images

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not hasattr(pl_module, "segment"):
            raise ValueError(f"SegmentationPicture needs a module with segment(image), not {type(pl_module).__name__}")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "fit")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._draw(trainer, pl_module, "test")

    @torch.no_grad()
    def _draw(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        pl_module.eval()
        rows: list[list[Shown]] = []
        loader = data.val_dataloader() if stage == "fit" else data.test_dataloader()
        chosen = np.linspace(0, len(loader) - 1, min(self.num_images, len(loader))).round().astype(int).tolist()
        for number, batch in enumerate(loader):
            if number in chosen:
                image, mask = batch["image"][:1], batch["mask"][0].cpu().numpy()
                found = pl_module.segment(image.to(pl_module.device))[0].cpu().numpy()  # type: ignore[operator]
                pixels, counted = image[0].permute(1, 2, 0).cpu().numpy(), np.where(mask == IGNORE, IGNORE, found)
                pictures = pixels, label_colours(mask), label_colours(counted)
                rows.append(list(map(Shown, ("image", "labels", "found"), pictures)))
        path = Path(trainer.default_root_dir) / f"segmentation.{stage}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_rows(rows, path)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"segmentation/{stage}", [str(path)])
