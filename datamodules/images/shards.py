"""Image sets packed into tar shards, with an index that finds each image: what data beyond one disk is read from.

::

    <folder>/shard-000000.tar, ...   the image files as they were, under their path below the packed folder
             samples.npy             a row of ``ROW`` for each image: where its bytes are, their CRC-32, its size
             names.txt               the paths of all images, one after the other
             shards.json             the shards' sizes, the class folders, what was left out; written last

``python -m datamodules.images.pack_images`` writes them. The shards are plain tar files: ``tar xf`` gives the folder
back, and webdataset reads them as a stream. A stream does not go on in the middle of an epoch (webdataset leaves that
to its user), so images are fetched here by their place instead: the same samplers order, share and resume them as they
do files in a folder. Opening reads no shard, whatever the number of images.

The folder may be behind a URL (datamodules/images/shard_files.py): the index is then fetched first, the images by
ranges. The index maps into memory, once for all processes of a machine if it lies on a disk. It may come from a
stranger: nothing in it is executed, every place is checked against the files, and the images are as untrusted as files
are.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from datamodules.images.reading import SkippedImageError
from datamodules.images.remote import MANIFEST, Folder
from datamodules.images.shard_files import (
    HOW_TO_PACK,
    NAMES,
    SAMPLES,
    LocalFiles,
    Place,
    RemoteFiles,
    ShardFiles,
)

VERSION = 1
ROW = np.dtype(
    [
        ("offset", "<u8"),  # of the image's first byte in its shard
        ("name", "<u8"),  # of its path's first byte in names.txt
        ("bytes", "<u4"),
        ("crc", "<u4"),
        ("name_bytes", "<u4"),
        ("shard", "<u4"),
        ("label", "<i4"),  # the place of its first folder among the classes; -1 for a file outside of folders
        ("height", "<u4"),
        ("width", "<u4"),
        ("channels", "<u4"),  # 1 or 3
    ]
)
ALTERED = "altered since it was packed"


class Shards:
    """An open set; ``rows`` [N] of dtype ``ROW``, in the order of packing.

    Args:
        folder: holds the files above.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, they do not belong together, or they cannot be reached.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.files: ShardFiles = LocalFiles(folder) if isinstance(folder, Path) else RemoteFiles(folder)
        try:
            text = self.files.manifest()
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder} holds shards but no {MANIFEST}, so it is incomplete: {HOW_TO_PACK}"
            ) from None
        try:
            manifest = json.loads(text)
            self.sizes = {str(shard["name"]): int(shard["bytes"]) for shard in manifest["shards"]}
            self.classes = [str(name) for name in manifest["classes"]]
            self.skipped = {str(reason): list(map(str, names)) for reason, names in manifest["skipped"].items()}
            self.key, self.version = str(manifest["key"]), manifest["version"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / MANIFEST} is damaged ({type(error).__name__}): {HOW_TO_PACK}") from error
        if self.version != VERSION:
            raise ValueError(f"{folder / MANIFEST} is of version {self.version!r}; this program reads {VERSION}")
        self.shards = list(self.sizes)
        self._check_shards()
        self.rows, self.names = self._load_index()

    def _check_shards(self) -> None:
        for name in self.shards:
            if not re.fullmatch(r"[\w.-]+\.tar", name):
                raise FileNotFoundError(f"no shard {self.folder / name}: {HOW_TO_PACK}")
        for (name, size), found in zip(self.sizes.items(), self.files.sizes(self.shards), strict=True):
            if found is None:
                raise FileNotFoundError(f"no shard {self.folder / name}: {HOW_TO_PACK}")
            if found != size:
                raise ValueError(f"{self.folder / name} has {found:,} bytes instead of {size:,}: {HOW_TO_PACK}")

    def _load_index(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            with self.files.index() as folder:
                rows, names = self._mapped(folder)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no {error.filename}: {HOW_TO_PACK}") from error
        if rows.dtype != ROW or rows.ndim != 1 or not len(rows) or not self._are_within(rows, len(names)):
            raise ValueError(f"{self.folder / SAMPLES} does not belong to its shards: {HOW_TO_PACK}")
        return rows, names

    def _mapped(self, folder: Path) -> tuple[np.ndarray, np.ndarray]:
        try:
            rows = np.load(folder / SAMPLES, allow_pickle=False, mmap_mode="r")
            return rows, np.memmap(folder / NAMES, np.uint8, "r")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"the index of {self.folder} is damaged: {HOW_TO_PACK}") from error

    def _are_within(self, rows: np.ndarray, length_of_names: int) -> bool:
        if rows["shard"].max() >= len(self.shards) or rows["label"].max() >= len(self.classes):
            return False
        ends = np.array(list(self.sizes.values()), np.uint64)[rows["shard"]]
        fits = (rows["bytes"] <= ends) & (rows["offset"] <= ends - np.minimum(rows["bytes"], ends))
        end = np.uint64(length_of_names)
        named = (rows["name_bytes"] <= end) & (rows["name"] <= end - np.minimum(rows["name_bytes"], end))
        return bool((fits & named & (rows["label"] >= -1)).all())

    def name(self, row: int) -> str:
        """The path of an image below the folder that was packed."""
        start, length = int(self.rows["name"][row]), int(self.rows["name_bytes"][row])
        return self.names[start : start + length].tobytes().decode(errors="replace")

    def read(self, row: int) -> bytes:
        """The bytes of an image file.

        Raises:
            SkippedImageError: if they are not those that were packed.
        """
        place = self._place(row)
        data = self.files.read(place)
        if not place.holds(data):
            raise SkippedImageError(ALTERED)
        return data

    def fetch(self, rows: Iterable[int]) -> None:
        """Get ready to read these, where one by one would take long: over a network."""
        self.files.fetch(self._place(row) for row in rows)

    def _place(self, row: int) -> Place:
        offset, _, length, crc, _, shard, *_ = self.rows[row].item()
        return Place(self.shards[shard], offset, length, crc)
