"""An ImageFolder of small images of one size, packed once into a single array.

::

    <cache>/images-<fingerprint>.npy     uint8 [N, S, S, 3], class after class, by path within a class
            index-<fingerprint>.json     class names, images of each, and the files that were left out, by reason

Decoding 60,000 JPEGs at each start takes far longer than reading the array. When a cache is used again and when it is
not says datamodules/loading/packing.py; it holds no pickled object.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.images.reading import SkippedImageError, decode, find_photos, map_in_threads
from datamodules.loading.packing import fingerprint, load_or_build, remove_others
from modules.components.files.whole_files import unfinished, write_whole

VERSION = 1
"""Of what ``build`` writes; part of the fingerprint."""


class PackedImages(NamedTuple):
    """All usable images of a folder."""

    images: np.ndarray
    """uint8 [N, S, S, 3]."""
    labels: np.ndarray
    """int64 [N]: the position of an image's class in ``classes``."""
    classes: list[str]
    """Names of the class folders, sorted."""
    skipped: dict[str, list[str]]
    """Reason -> paths, below the folder, of the files left out."""


def class_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, one for each class, sorted by name; hidden ones do not count."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def read_images(paths: list[Path], size: int, quiet: bool) -> tuple[np.ndarray, list[str | None]]:
    """Images uint8 [N, S, S, 3] and, for each path, None or why its place in the array means nothing."""

    def read(path: Path) -> np.ndarray | str:
        try:
            pixels = decode(path)
        except SkippedImageError as error:
            return error.reason
        return pixels if pixels.shape == (size, size, 3) else f"not {size}x{size}"

    images = np.zeros((len(paths), size, size, 3), np.uint8)
    reasons: list[str | None] = []
    for place, pixels in zip(images, map_in_threads(read, paths, "packing images", quiet), strict=True):
        reasons.append(pixels if isinstance(pixels, str) else None)
        if not isinstance(pixels, str):
            place[:] = pixels
    return images, reasons


def build(folder: Path, files: dict[str, list[Path]], cache: Path, key: str, size: int, quiet: bool) -> None:
    """Pack ``files`` (class -> paths); older caches in ``cache`` are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    paths = [path for part in files.values() for path in part]
    images, reasons = read_images(paths, size, quiet)
    skipped: dict[str, list[str]] = {}
    counts = dict.fromkeys(files, 0)
    for name, path, reason in zip([n for n, part in files.items() for _ in part], paths, reasons, strict=True):
        if reason is None:
            counts[name] += 1
        else:
            skipped.setdefault(reason, []).append(path.relative_to(folder).as_posix())
    data = cache / f"images-{key}.npy"
    with unfinished(data) as temporary, temporary.open("wb") as file:
        np.save(file, images[[reason is None for reason in reasons]], allow_pickle=False)
    write_whole(cache / f"index-{key}.json", json.dumps({"counts": counts, "skipped": skipped}).encode())
    remove_others(cache, key, "images-*.npy", "index-*.json")


def load(cache: Path, key: str, size: int) -> PackedImages | None:
    """The finished cache of this key; None if there is none or a file has lost its end."""
    data, index = cache / f"images-{key}.npy", cache / f"index-{key}.json"
    try:
        content = json.loads(index.read_bytes())
        counts = list(content["counts"].values())
        images = np.load(data, allow_pickle=False)
    except (OSError, ValueError, KeyError, EOFError):  # the first also where another process replaces it
        return None
    if images.shape != (sum(counts), size, size, 3) or images.dtype != np.uint8:
        return None
    labels = np.repeat(np.arange(len(counts)), counts)
    return PackedImages(images, labels, list(content["counts"]), content["skipped"])


def open_cache(folder: Path, cache: Path, size: int, quiet: bool = False) -> PackedImages:
    """The images of ``folder``, packed into ``cache`` first where that has not been done.

    Args:
        folder: holds a folder of PNG, JPEG or WebP files for each class.
        cache: a folder for the packed files, made if needed.
        size: S; images of another width or height are left out, and so is what ``reading.decode`` refuses.
        quiet: no progress bar.

    Raises:
        ValueError: if the cache cannot be written, or another process replaces it again and again.
    """
    files = {path.name: find_photos(path) for path in class_folders(folder)}
    stamps = ((path.relative_to(folder).as_posix(), path.stat()) for part in files.values() for path in part)
    key = fingerprint(stamps, VERSION, size, *files)
    return load_or_build(cache, lambda: load(cache, key, size), lambda: build(folder, files, cache, key, size, quiet))
