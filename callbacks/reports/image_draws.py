"""Pictures of a stochastic decoder: each held-out image beside several draws for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.reports.evaluation_picture import EvaluationPicture


def contact_sheet(rows: Tensor, scale: int = 1) -> Image.Image:
    """Images uint8 [R, K, 3, H, W] as R rows of K cells, pixel by pixel; each pixel ``scale`` times as large."""
    count, columns, _, height, width = rows.shape
    pixels = rows.permute(0, 3, 1, 4, 2).reshape(count * height, columns * width, 3).cpu().numpy()
    sheet = Image.fromarray(np.ascontiguousarray(pixels))
    return sheet.resize((scale * sheet.width, scale * sheet.height), Image.Resampling.NEAREST)


class ImageDraws(EvaluationPicture):
    """After ``fit`` and ``test``: ``draws.fit.png``, ``draws.test.png`` in the run's folder, and on wandb.

    The module gives ``draws(image, count)``: uint8 [count, N, 3, H, W] for images uint8 [N, 3, H, W]. The picture has a
    row for each of the first evaluation images: itself, then its draws. With ``fit`` these are validation images.

    Args:
        num_images: rows.
        num_draws: draws of each.
        scale: side of a pixel in the picture.
    """

    name, needs = "draws", "draws(image, count)"

    def __init__(self, num_images: int = 12, num_draws: int = 6, scale: int = 1) -> None:
        if min(num_images, num_draws, scale) < 1:
            raise ValueError(f"num_images, num_draws and scale must be at least 1: {num_images}, {num_draws}, {scale}")
        self.num_images, self.num_draws, self.scale = num_images, num_draws, scale

    def draw(self, pl_module: LightningModule, loader: DataLoader, path: Path) -> None:
        images = next(iter(loader))["image"][: self.num_images]
        drawn = pl_module.draws(images, self.num_draws).cpu()  # type: ignore[operator]
        contact_sheet(torch.cat([images[None].cpu(), drawn]).transpose(0, 1), self.scale).save(path)
