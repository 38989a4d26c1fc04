"""What a codec in training has learnt, shown on held-out photographs: real file sizes, samples, a file that decodes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import LightningModule
from rich.console import Console
from rich.table import Table

from callbacks.reports.held_out import HeldOutReport


def size_as(pixels: np.ndarray, file_format: str, **options: Any) -> int:
    """Bytes of uint8 pixels [H, W, 3] in one of Pillow's formats."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.tell()


class CodecReport(HeldOutReport):
    """A table of bpsp against PNG and WebP, samples as ``samples.png``, one compressed file of each photograph.

    Args:
        options: as for ``HeldOutReport``; the module gives ``codec()`` and, for the picture, ``sample(image)``.
    """

    needs = "codec", "sample"

    def report(self, pl_module: LightningModule, images: dict[str, np.ndarray]) -> Path:
        Console(soft_wrap=True).print(self._table(pl_module, images))
        return draw_samples(pl_module, images, self.folder / "samples.png")

    def _table(self, pl_module: LightningModule, images: dict[str, np.ndarray]) -> Table:
        """bpsp of real files; each of ours is decoded from its bytes and compared."""
        codec = pl_module.codec()  # type: ignore[operator]
        rows, path = [], self.folder
        for name, pixels in images.items():
            path = self.write_file(codec, name, pixels)
            sizes = [
                path.stat().st_size,
                size_as(pixels, "PNG", optimize=True),
                size_as(pixels, "WEBP", lossless=True, quality=100, method=6),
            ]
            rows.append((name, [8 * size / pixels.size for size in sizes]))
        table = Table("held-out photograph", "ours", "PNG", "WebP", title="bpsp of files", caption=f"{path} decodes")
        for name, values in [*rows, ("mean", list(np.mean([values for _, values in rows], axis=0)))]:
            table.add_row(name, *(f"{value:.3f}" for value in values))
        return table


def draw_samples(pl_module: LightningModule, images: dict[str, np.ndarray], path: Path) -> Path:
    """A row per photograph: itself, then samples with more and more scales drawn from the model."""
    import matplotlib.pyplot as plt

    columns: list[list[np.ndarray]] = []
    for pixels in images.values():
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        samples = pl_module.sample(x)[:, 0].permute(0, 2, 3, 1).cpu().numpy()  # type: ignore[operator]
        columns.append([pixels, *samples])
    titles = ["photograph", "pixels sampled", *(f"and z1..z{s}" if s > 1 else "and z1" for s in range(1, 9))]
    height, width = columns[0][0].shape[:2]
    size = (2.4 * len(columns[0]), 2.4 * len(columns) * height / width + 0.3)
    figure, axes = plt.subplots(len(columns), len(columns[0]), figsize=size, squeeze=False, layout="constrained")
    for row, pictures in zip(axes, columns, strict=True):
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture)
            axis.axis("off")
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=80)
    plt.close(figure)
    return path
