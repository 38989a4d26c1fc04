"""Images of a packed set where a folder has files: sequences of them, and what finds and judges either kind."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from pytorch_lightning import Trainer

from datamodules.images.reading import (
    NOT_RGB,
    TOO_SMALL,
    PhotoScan,
    SkippedImageError,
    find_photos,
    map_in_threads,
    scan_photos,
)
from datamodules.images.remote import MANIFEST, Folder, RemotePath
from datamodules.images.shard_files import FETCHES
from datamodules.images.shards import ALTERED, Shards
from datamodules.loading.loaders import rank_and_world
from datamodules.loading.shard_order import ShardSampler


class ShardImage(NamedTuple):
    """An image of a packed set."""

    shards: Shards
    row: int

    @property
    def relative(self) -> str:
        """Its path below the folder that was packed."""
        return self.shards.name(self.row)

    @property
    def name(self) -> str:
        return PurePosixPath(self.relative).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.relative).stem

    def open(self) -> BytesIO:
        """Its bytes. Raises SkippedImageError if they are not those that were packed."""
        return BytesIO(self.shards.read(self.row))

    def __str__(self) -> str:
        return str(self.shards.folder / self.relative)


class ShardedImages(Sequence):
    """All images of a packed set or those of ``rows``, int64 [N]; an item is made when it is asked for."""

    def __init__(self, shards: Shards, rows: np.ndarray | None = None) -> None:
        self.shards = shards
        self.rows = np.arange(len(shards.rows)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return ShardedImages(self.shards, self.rows[index])
        return ShardImage(self.shards, int(self.rows[index]))

    @property
    def is_remote(self) -> bool:
        return isinstance(self.shards.folder, RemotePath)

    def column(self, name: str) -> np.ndarray:
        """A field of ``shards.ROW``, one value an image."""
        return self.shards.rows[name][self.rows]

    def where(self, chosen: Sequence[bool] | np.ndarray) -> "ShardedImages":
        """Those for which ``chosen``, [N], is true."""
        return ShardedImages(self.shards, self.rows[np.asarray(chosen, bool)])


Images = Sequence[Path] | ShardedImages


def is_packed(folder: Path) -> bool:
    """Whether ``folder`` holds shards, finished or not. Behind a URL nothing else is read."""
    return (folder / MANIFEST).is_file() or next(folder.glob("shard-*.tar"), None) is not None


def find_images(folder: Folder) -> Images:
    """What a split's folder holds: a packed set, or the files that ``reading.find_photos`` finds."""
    if isinstance(folder, Path) and not is_packed(folder):
        return find_photos(folder)
    return ShardedImages(Shards(folder))


def relative_name(image: Path | ShardImage, folder: Folder) -> str:
    """The path below ``folder``, the same before and after packing."""
    return image.relative if isinstance(image, ShardImage) else image.relative_to(str(folder)).as_posix()


def source_of(image: Path | ShardImage) -> Path | BytesIO:
    """What ``reading.decode`` takes. Raises SkippedImageError."""
    return image.open() if isinstance(image, ShardImage) else image


def fetch_ahead(images: Any, indices: Iterable[int]) -> None:
    """Before a batch is made of these images, one by one: what comes over a network is asked for at once."""
    if isinstance(images, ShardedImages) and images.is_remote:
        images.shards.fetch(int(images.rows[index]) for index in indices)


def scan_images(
    images: Images, min_side: int = 1, gray_to_rgb: bool = False, full: bool = False, quiet: bool = False
) -> PhotoScan:
    """``reading.scan_photos`` for either kind. A packed set was decoded when it was packed, so its index says the
    rest; ``full`` reads each image once, to find those altered since."""
    if not isinstance(images, ShardedImages):
        return scan_photos(list(images), min_side, gray_to_rgb, full, quiet)
    is_gray = (images.column("channels") != 3) & (not gray_to_rgb)
    is_small = ~is_gray & (np.minimum(images.column("height"), images.column("width")) < min_side)
    is_altered = np.zeros(len(images), bool)
    if full:
        threads = FETCHES if images.is_remote else None
        is_altered[:] = list(map_in_threads(is_unreadable, list(images), "checking images", quiet, threads))
    found = {NOT_RGB: is_gray, TOO_SMALL: is_small, ALTERED: is_altered & ~is_gray & ~is_small}
    skipped = {reason: [image.name for image in images.where(those)] for reason, those in found.items() if those.any()}
    kept = images.where(~(is_gray | is_small | is_altered))
    pixels = np.dot(kept.column("height").astype(np.int64), kept.column("width"))
    return PhotoScan(kept, 3 * int(pixels), skipped)


def is_unreadable(image: ShardImage) -> bool:
    try:
        image.open()
    except SkippedImageError:
        return True
    return False


def shard_sampler(dataset: Any, at_once: int | None, seed: int, trainer: Trainer | None) -> ShardSampler | None:
    """The order of the datamodules' option ``shards_at_once`` for a dataset with ``images``; None without it.

    Raises:
        ValueError: if the images are not read from a packed set.
    """
    if at_once is None:
        return None
    if not isinstance(dataset.images, ShardedImages):
        raise ValueError("shards_at_once reads a packed set, with cache: none; pack the folder, or leave it out")
    return ShardSampler(dataset, dataset.images.column("shard"), at_once, seed, *rank_and_world(trainer))
