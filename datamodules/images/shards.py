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

The index maps into memory, once for all processes of a machine. It may come from a stranger: nothing in it is
executed, every place is checked against the files, and the images are as untrusted as files are.
"""

import json
import os
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from datamodules.images.reading import SkippedImageError

VERSION = 1
MANIFEST, SAMPLES, NAMES = "shards.json", "samples.npy", "names.txt"
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
MAX_OPEN = 64
"""Files that a process keeps open; a set may have thousands of shards."""
HOW_TO_PACK = "run `python -m datamodules.images.pack_images` again, or copy the whole folder again"


class Shards:
    """An open set; ``rows`` [N] of dtype ``ROW``, in the order of packing.

    Args:
        folder: holds the files above.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if one is damaged, or they do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / MANIFEST).is_file():
            raise FileNotFoundError(f"{folder} holds shards but no {MANIFEST}, so it is incomplete: {HOW_TO_PACK}")
        try:
            manifest = json.loads((folder / MANIFEST).read_bytes())
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
        self._files: dict[int, BinaryIO] = {}

    def _check_shards(self) -> None:
        for name, size in self.sizes.items():
            path = self.folder / name
            if PurePosixPath(name).name != name or not path.is_file():
                raise FileNotFoundError(f"no shard {path}: {HOW_TO_PACK}")
            if path.stat().st_size != size:
                raise ValueError(f"{path} has {path.stat().st_size:,} bytes instead of {size:,}: {HOW_TO_PACK}")

    def _load_index(self) -> tuple[np.ndarray, np.ndarray]:
        samples, names_file = self.folder / SAMPLES, self.folder / NAMES
        try:
            rows = np.load(samples, allow_pickle=False, mmap_mode="r")
            names = np.memmap(names_file, np.uint8, "r")
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no {error.filename}: {HOW_TO_PACK}") from error
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"the index of {self.folder} is damaged: {HOW_TO_PACK}") from error
        if rows.dtype != ROW or rows.ndim != 1 or not len(rows) or not self._are_within(rows, len(names)):
            raise ValueError(f"{samples} does not belong to its shards: {HOW_TO_PACK}")
        return rows, names

    def _are_within(self, rows: np.ndarray, length_of_names: int) -> bool:
        if rows["shard"].max() >= len(self.shards) or rows["label"].max() >= len(self.classes):
            return False
        ends = np.array(list(self.sizes.values()), np.uint64)[rows["shard"]]
        fits = (rows["bytes"] <= ends) & (rows["offset"] <= ends - np.minimum(rows["bytes"], ends))
        end = np.uint64(length_of_names)
        named = (rows["name_bytes"] <= end) & (rows["name"] <= end - np.minimum(rows["name_bytes"], end))
        return bool((fits & named & (rows["label"] >= -1)).all())

    def __getstate__(self) -> dict[str, Any]:
        """Open files do not travel to another process."""
        return self.__dict__ | {"_files": {}}

    def name(self, row: int) -> str:
        """The path of an image below the folder that was packed."""
        start, length = int(self.rows["name"][row]), int(self.rows["name_bytes"][row])
        return self.names[start : start + length].tobytes().decode(errors="replace")

    def read(self, row: int) -> bytes:
        """The bytes of an image file.

        Raises:
            SkippedImageError: if they are not those that were packed.
        """
        offset, _, length, crc, _, shard, *_ = self.rows[row].item()
        file = self._open(shard)  # held, so that it stays open if another thread lets go of it
        data = os.pread(file.fileno(), length, offset)
        if len(data) != length or zlib.crc32(data) != crc:
            raise SkippedImageError(ALTERED)
        return data

    def _open(self, shard: int) -> BinaryIO:
        file = self._files.get(shard)
        if file is None:
            if len(self._files) >= MAX_OPEN:
                self._files.pop(next(iter(self._files)), None)
            file = self._files[shard] = (self.folder / self.shards[shard]).open("rb", buffering=0)  # type: ignore
        return file
