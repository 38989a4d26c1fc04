"""Square thumbnails of images of any size, made once, packed into one array and handed out from memory.

::

    <cache>/images-<fingerprint>.npy     uint8 [N, S, S, 3]
            index-<fingerprint>.json     images made, and the files that were left out, by reason

A thumbnail is the image with its shorter side scaled to S (bilinear over the area, as Pillow does it) and the centre
cut out. The cache follows datamodules/loading/packing.py. It is written and read in pieces, so a set may be larger
than memory.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images.reading import SkippedImageError, map_in_threads
from datamodules.loading.packing import load_or_build, remove_others
from modules.components.files.whole_files import unfinished, write_whole

VERSION = 1
"""Of what ``pack`` writes; part of the fingerprint."""


class Source(NamedTuple):
    """The images of one split before they are packed."""

    names: Sequence[str]
    """What the user calls them, in the order in which they are packed."""
    pixels: Callable[[str], np.ndarray]
    """Of one of them, uint8 [H, W, 3]; raises SkippedImageError for one that cannot be used."""
    key: str
    """Fingerprint of the files that they come from."""


class Packed(NamedTuple):
    images: np.ndarray
    """uint8 [N, S, S, 3]."""
    skipped: dict[str, list[str]]
    """Reason -> names of the images left out."""


def thumbnail(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] -> [size, size, 3]; the sides as torchvision's Resize and CenterCrop round them."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    scaled = (size * width // short, size * height // short)
    image = Image.fromarray(pixels)
    if image.size != scaled:
        image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in scaled)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def pack(source: Source, cache: Path, size: int, quiet: bool) -> None:
    """Write the thumbnails of ``source``; older caches in ``cache`` are removed."""

    def make(name: str) -> np.ndarray | str:
        try:
            return thumbnail(source.pixels(name), size)
        except SkippedImageError as error:
            return error.reason

    cache.mkdir(parents=True, exist_ok=True)
    data, rows, skipped = cache / f"images-{source.key}.npy", 0, dict[str, list[str]]()
    with unfinished(data) as temporary, temporary.open("wb") as file:
        file.write(header(0, size))
        made = map_in_threads(make, list(source.names), "packing images", quiet)
        for name, pixels in zip(source.names, made, strict=True):
            if isinstance(pixels, str):
                skipped.setdefault(pixels, []).append(name)
            else:
                file.write(pixels.tobytes())
                rows += 1
        file.seek(0)
        file.write(header(rows, size))
    write_whole(cache / f"index-{source.key}.json", json.dumps({"images": rows, "skipped": skipped}).encode())
    remove_others(cache, source.key, "images-*.npy", "index-*.json")


def header(rows: int, size: int) -> bytes:
    """Of a .npy file, 128 bytes whatever the number of rows."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({rows}, {size}, {size}, 3), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def load(cache: Path, key: str, size: int, in_memory: bool) -> Packed | None:
    """The finished cache of this key; None if there is none or a file has lost its end."""
    data, index = cache / f"images-{key}.npy", cache / f"index-{key}.json"
    try:
        content = json.loads(index.read_bytes())
        images = np.load(data, allow_pickle=False, mmap_mode=None if in_memory else "r")
        if images.shape != (content["images"], size, size, 3) or images.dtype != np.uint8:
            return None
        return Packed(images, content["skipped"])
    except (OSError, ValueError, KeyError, EOFError, TypeError):  # also where another process replaces it
        return None


def open_cache(source: Source, cache: Path, size: int, in_memory: bool = True, quiet: bool = False) -> Packed:
    """The thumbnails of ``source``, packed into ``cache`` first where that has not been done.

    Args:
        source: the images.
        cache: a folder for the packed files, made if needed.
        size: S.
        in_memory: read them into memory; otherwise they stay on the disk, mapped.
        quiet: no progress bar.

    Raises:
        ValueError: if the cache cannot be written, or another process replaces it again and again.
    """
    return load_or_build(
        cache, lambda: load(cache, source.key, size, in_memory), lambda: pack(source, cache, size, quiet)
    )


class Thumbnails(Dataset):
    """Whole batches at once; a draw is (epoch, index) or an index.

    Args:
        images: uint8 [N, S, S, 3], in memory or mapped.
    """

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: tuple[int, int] | int) -> dict[str, Tensor]:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[tuple[int, int] | int]) -> dict[str, Tensor]:
        """``image`` uint8 [B, 3, S, S] in channels_last format, ``index`` int64 [B]."""
        index = np.asarray([draw[1] if isinstance(draw, tuple) else draw for draw in draws], np.int64)
        return {"image": torch.from_numpy(self.images[index]).permute(0, 3, 1, 2), "index": torch.from_numpy(index)}
