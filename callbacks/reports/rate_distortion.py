"""Where a lossy codec stands in rate and distortion beside JPEG, JPEG 2000, WebP, AVIF and JPEG XL, on real files."""

import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, features
from pytorch_lightning import LightningModule
from rich.console import Console
from rich.table import Table

from callbacks.reports.held_out import HeldOutReport
from modules.components.coding.checked_file import Codec, file_of
from modules.components.coding.container import unpack
from modules.components.ms_ssim import decibels, ms_ssim

Coder = tuple[Callable[[np.ndarray], bytes], Callable[[bytes], np.ndarray]]


class Point(NamedTuple):
    """Of one image, or the mean of several."""

    bpp: float
    ms_ssim: float
    psnr_db: float
    encode_s: float
    decode_s: float

    @property
    def ms_ssim_db(self) -> float:
        return float(decibels(torch.tensor(self.ms_ssim)))


def with_pillow(name: str, **options: object) -> Coder:
    def encode(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, name, **options)
        return buffer.getvalue()

    return encode, lambda file: np.array(Image.open(io.BytesIO(file)).convert("RGB"))


def engineered(quick: bool) -> dict[str, list[Coder]]:
    """The codecs that this machine has, each at a few qualities between about 0.2 and 1 bpp."""
    found = {"JPEG": [with_pillow("JPEG", quality=q, optimize=True) for q in (12, 25, 45, 65)]}
    if features.check("jpg_2000"):
        rates = [24 / bpp for bpp in (0.25, 0.5, 0.75)]
        options = {"quality_mode": "rates", "irreversible": True, "mct": 1}
        found["JPEG 2000"] = [with_pillow("JPEG2000", quality_layers=[rate], **options) for rate in rates]
    if features.check("webp"):
        found["WebP"] = [with_pillow("WEBP", quality=q, method=2 if quick else 6) for q in (10, 40, 70)]
    if features.check("avif"):
        found["AVIF"] = [with_pillow("AVIF", quality=q, speed=8 if quick else 6) for q in (30, 45, 60)]
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401

        found["JPEG XL"] = [with_pillow("JXL", quality=q, effort=3 if quick else 7) for q in (35, 60, 75)]
    return found


def measure(coder: Coder, pixels: np.ndarray) -> Point:
    start = time.process_time()
    file = coder[0](pixels)
    middle = time.process_time()
    decoded = coder[1](file)
    end = time.process_time()
    x, x_hat = (torch.tensor(image).permute(2, 0, 1)[None].float() for image in (pixels, decoded))
    psnr = 10 * np.log10(255**2 / float((x - x_hat).square().mean()))
    score = float(ms_ssim(x, x_hat))
    return Point(8 * len(file) / pixels[..., 0].size, score, psnr, middle - start, end - middle)


def draw(curves: dict[str, list[Point]], path: Path, title: str) -> None:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, value, label in zip(axes, ("ms_ssim_db", "psnr_db"), ("MS-SSIM, dB", "PSNR, dB"), strict=True):
        for name, points in curves.items():
            style = {"linewidth": 2.5, "marker": "o", "color": "black"} if name == "ours" else {"marker": "."}
            axis.plot([p.bpp for p in points], [getattr(p, value) for p in points], label=name, **style)
        axis.set(xlabel="bits per pixel", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def coder_of(codec: Codec) -> Coder:
    """One of this project's codecs."""
    return (lambda pixels: file_of(codec, pixels, verify=False)), (lambda file: codec.decompress(unpack(file)))


def mean_curves(found: dict[str, list[list[Point]]]) -> dict[str, list[Point]]:
    """Codec -> settings -> images to codec -> means over images, by rate."""
    return {name: sorted(Point(*np.mean(rows, axis=0).tolist()) for rows in found[name]) for name in found}


def table_of(curves: dict[str, list[Point]], title: str) -> Table:
    table = Table("codec", "bpp", "MS-SSIM", "dB", "PSNR, dB", "encode, CPU s", "decode, CPU s", title=title)
    for name, points in curves.items():
        for p in points:
            numbers = f"{p.bpp:.3f}", f"{p.ms_ssim:.4f}", f"{p.ms_ssim_db:.2f}", f"{p.psnr_db:.2f}"
            table.add_row(name, *numbers, f"{p.encode_s:.2f}", f"{p.decode_s:.2f}")
    return table


class RateDistortion(HeldOutReport):
    """A table and ``rate_distortion.png`` beside other codecs, the files and what they decode to.

    Args:
        options: as for ``HeldOutReport``; the module gives ``codec()``.
    """

    def report(self, pl_module: LightningModule, images: dict[str, np.ndarray]) -> Path:
        codec = pl_module.codec()  # type: ignore[operator]
        coders = {"ours": [coder_of(codec)], **engineered(quick=True)}
        found = {name: [[measure(c, pixels) for pixels in images.values()] for c in coders[name]] for name in coders}
        for name, pixels in images.items():
            path = self.write_file(codec, name, pixels)
            Image.fromarray(codec.decompress(unpack(path.read_bytes()))).save(path.with_suffix(".png"))
        title = f"{len(images)} held-out photographs, real files"
        Console(soft_wrap=True).print(table_of(mean_curves(found), title))
        picture = self.folder / "rate_distortion.png"
        draw(mean_curves(found), picture, title)
        return picture
