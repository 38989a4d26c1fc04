"""Real files of a lossy codec beside JPEG, JPEG 2000, WebP, AVIF and JPEG XL on a folder of photographs.

    python benchmarks/lossy_files.py data/kodak --checkpoint low.ckpt med.ckpt [--plot rate_distortion.png] [--quick]

Every file is decoded from its bytes, headers counted. bpp, MS-SSIM (RGB, five scales, modules/cpm/losses.py) and PSNR
are means over images, decibels of MS-SSIM those of the mean; seconds are CPU seconds of this process. The others code
at a few qualities each; JPEG XL is measured where pillow-jxl-plugin is installed (extra ``bench``). The last line
compares 1 - MS-SSIM with JPEG's at the same bpp, interpolated in decibels between its points, for the checkpoint where
it is worst.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, features
from rich.console import Console
from rich.progress import track
from rich.table import Table

from codec import load_codec
from modules.components.coding.checked_file import file_of
from modules.components.coding.container import unpack
from modules.components.files.images import SUFFIXES, read_exact
from modules.cpm.losses import decibels, ms_ssim

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


def ours(checkpoint: Path) -> Coder:
    codec = load_codec(checkpoint)
    coder = (lambda pixels: file_of(codec, pixels, verify=False)), (lambda file: codec.decompress(unpack(file)))
    coder[1](coder[0](np.zeros((16, 16, 3), np.uint8)))  # kernels are compiled once
    return coder


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True, help="one for each rate point")
    parser.add_argument("--plot", type=Path, help="a picture of the curves")
    parser.add_argument("--quick", action="store_true", help="two images, fast settings of the others")
    arguments = parser.parse_args()
    coders = {"ours": [ours(path) for path in arguments.checkpoint], **engineered(arguments.quick)}
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    paths = paths[:2] if arguments.quick else paths
    found: dict[str, list[list[Point]]] = {name: [[] for _ in points] for name, points in coders.items()}
    for path in track(paths, "coding", console=Console(stderr=True)):
        pixels = read_exact(path).pixels
        for name, points in coders.items():
            for coder, results in zip(points, found[name], strict=True):
                results.append(measure(coder, pixels))
    curves = {
        name: sorted(Point(*np.mean(results, axis=0).tolist()) for results in points) for name, points in found.items()
    }
    title = f"{len(paths)} images of {arguments.folder.name}, real files"
    table = Table("codec", "bpp", "MS-SSIM", "dB", "PSNR, dB", "encode, CPU s", "decode, CPU s", title=title)
    for name, points in curves.items():
        for p in points:
            numbers = f"{p.bpp:.3f}", f"{p.ms_ssim:.4f}", f"{p.ms_ssim_db:.2f}", f"{p.psnr_db:.2f}"
            table.add_row(name, *numbers, f"{p.encode_s:.2f}", f"{p.decode_s:.2f}")
    Console(width=100).print(table)
    if arguments.plot:
        draw(curves, arguments.plot, title)
        print(arguments.plot)
    jpeg = [[p.bpp for p in curves["JPEG"]], [p.ms_ssim_db for p in curves["JPEG"]]]
    gains = [p.ms_ssim_db - np.interp(p.bpp, *jpeg) for p in curves["ours"]]
    print(f"ratio jpeg_distortion_over_ours {10 ** (min(gains) / 10):.3f}")


if __name__ == "__main__":
    main()
