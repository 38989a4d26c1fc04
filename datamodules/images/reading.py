"""Finding and decoding photographs: which files count, and which are skipped and why. No torch in here.

Read are PNG, JPEG and WebP with 8 bits per channel and mode RGB. Skipped, counted and named by rule:

- ``unreadable``: truncated, damaged, or not an image despite its name;
- ``not 8-bit RGB``: grayscale, CMYK, palette, alpha, 16 bit (evaluation may take 8-bit grayscale, see ``decode``);
- ``over 200 megapixels``: refused on the header's word, before any pixel is allocated;
- ``smaller than the crop``: a side below ``min_side``.
"""

import csv
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from datamodules.loading.reporting import track

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
MAX_PIXELS = 200_000_000

UNREADABLE = "unreadable"
NOT_RGB = "not 8-bit RGB"
TOO_LARGE = "over 200 megapixels"
TOO_SMALL = "smaller than the crop"

# Pillow warns above this and only refuses at twice its value; the refusal at MAX_PIXELS is open_photo's.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS

Item = TypeVar("Item")
Result = TypeVar("Result")


class SkippedImageError(Exception):
    """A file that a rule leaves out; ``reason`` is one of the rules above."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PhotoScan(NamedTuple):
    """What a folder holds after the rules."""

    paths: list[Path]
    num_bytes: int
    """Size of all kept photographs decoded, 3 bytes a pixel."""
    skipped: dict[str, list[str]]
    """File names by reason."""


def open_photo(path: Path, gray_to_rgb: bool = False) -> Image.Image:
    """Open lazily: the header is read and judged, no pixel is decoded. The caller closes it.

    Raises:
        SkippedImageError: by the rules at the top of this file.
    """
    try:
        image = Image.open(path, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SkippedImageError(TOO_LARGE) from error
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise SkippedImageError(UNREADABLE) from error
    modes = ("RGB", "L") if gray_to_rgb else ("RGB",)
    reason = None
    if image.width * image.height > MAX_PIXELS:
        reason = TOO_LARGE
    elif image.mode not in modes or has_16_bits(image):
        reason = NOT_RGB
    if reason is not None:
        image.close()
        raise SkippedImageError(reason)
    return image


def has_16_bits(image: Image.Image) -> bool:
    """Pillow presents a 16-bit RGB PNG as mode RGB; only the raw mode of its data tells."""
    return image.format == "PNG" and any("16" in str(tile[3]) for tile in getattr(image, "tile", []))


def decode(path: Path, gray_to_rgb: bool = False) -> np.ndarray:
    """The pixels [H, W, 3], uint8.

    Args:
        path: the file.
        gray_to_rgb: also take 8-bit grayscale, replicated to three channels.

    Raises:
        SkippedImageError: by the rules at the top of this file.
    """
    with open_photo(path, gray_to_rgb) as image:
        try:
            return np.array(image.convert("RGB"))
        except Exception as error:  # as above: truncated data, bad checksums, impossible sizes
            raise SkippedImageError(UNREADABLE) from error


def find_photos(folder: Path) -> list[Path]:
    """All files below ``folder`` named like a photograph, hidden ones left out, ordered by relative path."""
    found = [
        Path(directory, name)
        for directory, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    ]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_image_list(path: Path) -> set[str]:
    """The ImageIDs of an Open Images CSV: the first column, under a header.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the first column is not called ImageID.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image list {path}: expected is a CSV of Open Images, first column ImageID")
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:1] != ["ImageID"]:
            raise ValueError(f"the first column of {path} must be ImageID, got {header[:1]}")
        return {row[0] for row in rows if row}


def scan_photos(
    paths: list[Path], min_side: int = 1, gray_to_rgb: bool = False, full: bool = False, quiet: bool = False
) -> PhotoScan:
    """Apply the rules to every file, in threads, by header only; ``full`` decodes each once to find truncated ones."""

    def judge(path: Path) -> tuple[int, int] | str:
        try:
            if full:
                height, width = decode(path, gray_to_rgb).shape[:2]
            else:
                with open_photo(path, gray_to_rgb) as image:
                    width, height = image.size
        except SkippedImageError as error:
            return error.reason
        return TOO_SMALL if min(height, width) < min_side else (height, width)

    kept, num_bytes = [], 0
    skipped: dict[str, list[str]] = {}
    for path, verdict in zip(paths, map_in_threads(judge, paths, "checking photos", quiet), strict=True):
        if isinstance(verdict, str):
            skipped.setdefault(verdict, []).append(path.name)
        else:
            kept.append(path)
            num_bytes += 3 * verdict[0] * verdict[1]
    return PhotoScan(kept, num_bytes, skipped)


def map_in_threads(
    function: Callable[[Item], Result], items: list[Item], description: str, quiet: bool
) -> Iterator[Result]:
    """``map`` in order over threads (Pillow decodes outside the GIL), behind a progress bar."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from track(pool.map(function, items), len(items), description, quiet)
