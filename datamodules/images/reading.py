"""Finding and decoding photographs: which files count, and which are skipped and why. No torch in here.

What an 8-bit image is says modules/components/files/images.py. Of those, training takes PNG, JPEG and WebP of mode
RGB without transparency; the others are skipped, counted and named by the rules there (evaluation may take 8-bit
grayscale, see ``decode``) and by one more: ``smaller than the crop``, a side below ``min_side``.
"""

import csv
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from datamodules.images.remote import Folder
from datamodules.loading.reporting import track
from modules.components.files.images import (
    NOT_RGB,
    UNREADABLE,
    ImageError,
    decoder_errors,
    has_transparency,
    open_image,
)

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
TOO_SMALL = "smaller than the crop"

Item = TypeVar("Item")
Result = TypeVar("Result")


class SkippedImageError(Exception):
    """A file that a rule leaves out; ``reason`` is one of the rules."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class PhotoScan(NamedTuple):
    """What a folder holds after the rules."""

    paths: Any
    """The files, or the images of a packed set, in their order."""
    num_bytes: int
    """Size of all kept photographs decoded, 3 bytes a pixel."""
    skipped: dict[str, list[str]]
    """File names by reason."""


def open_photo(path: Path | BinaryIO, gray_to_rgb: bool = False) -> Image.Image:
    """Open lazily: the header is read and judged, no pixel is decoded. The caller closes it.

    Raises:
        SkippedImageError: by the rules that the top of this file names.
    """
    try:
        image = open_image(path, FORMATS)
    except ImageError as error:
        raise SkippedImageError(error.reason) from error
    except OSError as error:
        raise SkippedImageError(UNREADABLE) from error
    if image.mode not in (("RGB", "L") if gray_to_rgb else ("RGB",)) or has_transparency(image):
        image.close()
        raise SkippedImageError(NOT_RGB)
    return image


def decode(path: Path | BinaryIO, gray_to_rgb: bool = False) -> np.ndarray:
    """The pixels [H, W, 3], uint8.

    Args:
        path: the file, or an open one.
        gray_to_rgb: also take 8-bit grayscale, replicated to three channels.

    Raises:
        SkippedImageError: by the rules that the top of this file names.
    """
    with open_photo(path, gray_to_rgb) as image:
        try:
            with decoder_errors():
                return np.array(image.convert("RGB"))
        except ImageError as error:
            raise SkippedImageError(error.reason) from error


def find_photos(folder: Path) -> list[Path]:
    """All files below ``folder`` named like a photograph, but for hidden files and folders, by relative path."""
    found: list[Path] = []
    for directory, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        shown = (name for name in names if not name.startswith("."))
        found += (Path(directory, name) for name in shown if Path(name).suffix.lower() in SUFFIXES)
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_image_list(path: Folder) -> set[str]:
    """The ImageIDs of an Open Images CSV: the first column, under a header.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the first column is not called ImageID.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image list {path}: expected is a CSV of Open Images, first column ImageID")
    rows = csv.reader(StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
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
    function: Callable[[Item], Result], items: list[Item], description: str, quiet: bool, threads: int | None = None
) -> Iterator[Result]:
    """``map`` in order over threads (Pillow decodes outside the GIL), behind a progress bar."""
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        yield from track(pool.map(function, items), len(items), description, quiet)
