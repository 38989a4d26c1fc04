"""Pictures of a segmentation: held-out images, their labels, and what the network finds."""

from pathlib import Path

import numpy as np
from pytorch_lightning import LightningModule
from torch.utils.data import DataLoader

from callbacks.reports.evaluation_picture import EvaluationPicture
from callbacks.reports.scene_pictures import Shown, draw_rows, label_colours
from modules.components.options import at_least

IGNORE = 255
"""Label of pixels that count nowhere; black."""


class SegmentationPicture(EvaluationPicture):
    """After ``fit`` and ``test``: ``segmentation.fit.png``, ``segmentation.test.png`` in the run folder, and on wandb.

    The module gives ``segment(image)``: labels int64 [N, H, W] of images uint8 [N, 3, H, W]. The picture has a row for
    the first image of some evaluation batches, spread over the split, since neighbours are often frames of one drive:
    itself, its labels, what is found. With ``fit`` these are validation images.

    Args:
        num_images: rows.

    Raises:
        ValueError: for no rows, or a module without ``segment``.
    """

    name, needs = "segmentation", "segment(image)"

    def __init__(self, num_images: int = 4) -> None:
        at_least(1, num_images=num_images)
        self.num_images = num_images

    def draw(self, pl_module: LightningModule, loader: DataLoader, path: Path) -> None:
        rows: list[list[Shown]] = []
        chosen = np.linspace(0, len(loader) - 1, min(self.num_images, len(loader))).round().astype(int).tolist()
        for number, batch in enumerate(loader):
            if number in chosen:
                image, mask = batch["image"][:1], batch["mask"][0].cpu().numpy()
                found = pl_module.segment(image.to(pl_module.device))[0].cpu().numpy()  # type: ignore[operator]
                pixels, counted = image[0].permute(1, 2, 0).cpu().numpy(), np.where(mask == IGNORE, IGNORE, found)
                pictures = pixels, label_colours(mask), label_colours(counted)
                rows.append(list(map(Shown, ("image", "labels", "found"), pictures)))
        draw_rows(rows, path)
