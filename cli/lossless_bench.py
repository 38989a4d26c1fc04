"""A lossless codec of ours beside PNG, JPEG 2000, WebP and JPEG XL: sizes, CPU seconds, every file decoded again.

Two sizes each, as means over images: bits per sub-pixel (8 * bytes / values) and CPU seconds of this process per
megapixel. oxipng and JPEG XL are measured where pyoxipng and pillow-jxl-plugin are installed (extra ``bench``).
"""

import contextlib
import csv
import io
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features
from rich.table import Table

from modules.components.coding.checked_file import file_of
from modules.components.coding.container import unpack
from modules.components.files.images import read_exact
from modules.components.files.whole_files import unfinished

OURS = "ours"


class Peer(NamedTuple):
    """A codec of whole pictures, uint8 [H, W] or [H, W, 3]."""

    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


class Measurement(NamedTuple):
    image: str
    codec: str
    num_bytes: int
    bpsp: float
    encode_seconds: float
    decode_seconds: float
    """CPU seconds of this process, with all its threads."""
    megapixels: float


def with_pillow(name: str, **options: Any) -> Peer:
    def encode(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        colour_only = {"mct": 1} if name == "JPEG2000" and pixels.ndim == 3 else {}
        Image.fromarray(pixels).save(buffer, name, **options, **colour_only)
        return buffer.getvalue()

    return Peer(encode, read)


def read(file: bytes) -> np.ndarray:
    """Pixels uint8 [H, W] or [H, W, 3]; a palette, which oxipng makes of few colours, becomes colours again."""
    with Image.open(io.BytesIO(file)) as image:
        return np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def engineered(quick: bool) -> dict[str, Peer]:
    """The codecs that this machine has; ``quick`` leaves out what takes seconds for an image."""
    found = {"PNG": with_pillow("PNG", optimize=True)}
    with contextlib.suppress(ImportError):
        import oxipng

        fast = with_pillow("PNG")
        if not quick:
            found["oxipng"] = fast._replace(
                encode=lambda p: bytes(oxipng.optimize_from_memory(fast.encode(p), level=6))
            )
    if features.check("jpg_2000"):
        found["JPEG 2000"] = with_pillow("JPEG2000", irreversible=False)
    found["WebP"] = with_pillow("WEBP", lossless=True, quality=100, method=4 if quick else 6)
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401

        for effort in (7,) if quick else (7, 9):
            found[f"JPEG XL e{effort}"] = with_pillow("JXL", lossless=True, effort=effort)
    return found


def ours(codec: Any) -> Peer:
    """A codec of modules/<method>/codec.py, its kernels compiled.

    Raises:
        ValueError: for a lossy one.
    """
    peer = Peer(lambda pixels: file_of(codec, pixels, verify=False), lambda file: codec.decompress(unpack(file)))
    if hasattr(codec, "read"):
        raise ValueError("bench compares lossless codecs; this model is of a lossy one")
    peer.decode(peer.encode(np.zeros((16, 16, 3), np.uint8)))
    return peer


def same(decoded: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether a peer's picture is ``pixels``; grayscale is three equal channels, whichever of the two has it."""

    def colour(image: np.ndarray) -> np.ndarray:
        return image if image.ndim == 3 else np.broadcast_to(image[..., None], (*image.shape, 3))

    return np.array_equal(colour(decoded), colour(pixels))


def measure(path: Path, peers: dict[str, Peer]) -> list[Measurement]:
    """Every codec on the pixels of one file.

    Raises:
        ImageError: for a file that is no image of 8 bits.
        RuntimeError: if a codec did not return the pixels.
    """
    pixels = read_exact(path).pixels
    rows = []
    for name, (encode, decode) in peers.items():
        start = time.process_time()
        file = encode(pixels)
        middle = time.process_time()
        decoded = decode(file)
        seconds = (middle - start, time.process_time() - middle)
        if not same(decoded, pixels):
            raise RuntimeError(f"its pixels did not come back from {name}")
        megapixels = pixels.shape[0] * pixels.shape[1] / 1e6
        rows.append(Measurement(str(path), name, len(file), 8 * len(file) / pixels.size, *seconds, megapixels))
    return rows


class Mean(NamedTuple):
    """Of one codec over all images."""

    bpsp: float
    num_bytes: int
    """In all."""
    encode: float
    decode: float
    """CPU seconds per megapixel."""


def means(rows: Iterable[Measurement]) -> dict[str, Mean]:
    """By codec, in the order in which they were measured."""
    by_codec: dict[str, list[Measurement]] = {}
    for row in rows:
        by_codec.setdefault(row.codec, []).append(row)
    result = {}
    for name, own in by_codec.items():
        megapixels = sum(row.megapixels for row in own)
        encode, decode = (
            sum(getattr(row, f"{way}_seconds") for row in own) / megapixels for way in ("encode", "decode")
        )
        result[name] = Mean(
            float(np.mean([row.bpsp for row in own])), sum(row.num_bytes for row in own), encode, decode
        )
    return result


def table(mean: dict[str, Mean], num_images: int) -> Table:
    """A line for each codec, the smallest files first."""
    columns = ("codec", "bpsp", "bytes", "ours is smaller by", "encode, CPU s/MP", "decode, CPU s/MP")
    result = Table(*columns, title=f"{num_images} images, all decoded to identical pixels")
    for name, row in sorted(mean.items(), key=lambda item: item[1].num_bytes):
        saved = "" if name == OURS else f"{100 * (1 - mean[OURS].num_bytes / row.num_bytes):.1f} %"
        result.add_row(name, f"{row.bpsp:.3f}", f"{row.num_bytes:,}", saved, f"{row.encode:.2f}", f"{row.decode:.3f}")
    return result


def write_products(folder: Path, rows: list[Measurement]) -> list[Path]:
    """``bench.csv`` with a line for each image and codec, ``bench.png`` with sizes over times."""
    with unfinished(folder / "bench.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Measurement._fields)
        writer.writerows(rows)
    with unfinished(folder / "bench.png") as path:
        _draw(means(rows), path)
    return [folder / "bench.csv", folder / "bench.png"]


def _draw(mean: dict[str, Mean], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, way in zip(figure.subplots(1, 2, sharey=True), ("encode", "decode"), strict=True):
        for name, row in mean.items():
            seconds = max(getattr(row, way), 1e-3)
            axes.plot(seconds, row.bpsp, "o", color="C1" if name == OURS else "C0")
            axes.annotate(name, (seconds, row.bpsp), xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.set(xscale="log", xlabel=f"{way}, CPU seconds per megapixel")
        axes.margins(x=0.25)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("bits per sub-pixel")
    figure.savefig(path, dpi=120, format="png")
