"""Image files in and out without a change: what cannot be kept exactly is refused by name."""

import os
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"}
MAX_PIXELS = 100_000_000
_REMEDIES = {
    "RGBA": "remove its alpha channel first",
    "LA": "remove its alpha channel first",
    "P": "convert it to RGB first",
    "1": "convert it to 8-bit grayscale first",
    "CMYK": "convert it to RGB first",
}


class UnsupportedImageError(ValueError):
    """An image that an 8-bit RGB or grayscale codec would change."""


def read_exact(path: Path) -> tuple[np.ndarray, dict[str, bytes]]:
    """Pixels, uint8 [H, W] or [H, W, 3], and the metadata that is kept: "icc_profile" and "exif".

    Raises:
        UnsupportedImageError: for alpha, palettes, CMYK, other than 8 bits, animations, more than 100 megapixels.
        OSError: if the file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            _check(image, path)
            image.load()
            metadata = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
            return np.array(image), metadata
    except Image.DecompressionBombError as error:
        raise UnsupportedImageError(str(error)) from error
    except (SyntaxError, EOFError, ValueError) as error:  # Pillow's readers raise these for damaged files
        if isinstance(error, UnsupportedImageError):
            raise
        raise OSError(f"damaged image: {error}") from error


def _check(image: ImageFile, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise UnsupportedImageError(f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}")
    if image.mode not in ("L", "RGB"):
        remedy = _REMEDIES.get(image.mode, "convert it to 8-bit RGB or grayscale first")
        raise UnsupportedImageError(f"mode {image.mode} is not 8-bit RGB or grayscale; {remedy}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise UnsupportedImageError(f"an animation of {frames} frames; save its frames first")
    if "transparency" in image.info:
        raise UnsupportedImageError("it has a transparent colour; remove its transparency first")
    if _bits_per_sample(image, path) != 8:
        raise UnsupportedImageError(f"{_bits_per_sample(image, path)} bits per sample; convert it to 8 bits first")


def _bits_per_sample(image: ImageFile, path: Path) -> int:
    """Bits in the file: Pillow opens 16-bit RGB and 1- to 4-bit gray PNGs as 8-bit without a word."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,)))  # type: ignore[attr-defined]
    if image.format == "PPM" and image.tile[0].codec_name == "ppm":  # Pillow rescales: maximum other than 255
        return int(image.tile[0].args[1]).bit_length()  # type: ignore[index]
    return 8


def write_png(path: Path, pixels: np.ndarray, metadata: dict[str, bytes]) -> None:
    """A PNG that appears whole or not at all."""
    kept = {key: value for key, value in metadata.items() if key in ("icc_profile", "exif")}
    replace_with(path, lambda temporary: Image.fromarray(pixels).save(temporary, "PNG", **kept))


def replace_with(path: Path, write) -> None:  # type: ignore[no-untyped-def]
    """Let ``write`` make a temporary file beside ``path``, then rename it to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
