"""What was read of remote shards, kept on a disk of this machine: a sparse file for each shard, bytes in their places.

::

    <folder>/<set>/shard-000000.tar, ...    as long as what was read of the shard, with holes
                   samples.npy, names.txt   the index, whole

Nothing says what is there. An image is if its bytes have the CRC-32 of the index, and is read again if not: a hole, a
block that another process is writing, one that a killed process or a full disk has cut. So the processes of a machine
share a cache without waiting for each other, and a damaged one heals.

Nothing is removed to make room: every image is drawn once an epoch, and the one to be kept would be the one just
removed. What does not fit is read from afar each time. A set that has changed gets a folder of its own; the old one is
the user's to remove, also while it is read.
"""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.images.remote import Cache
from modules.components.files.whole_files import unfinished

log = logging.getLogger(__name__)

MAX_OPEN = 64
"""Files that a process keeps open; a set may have thousands of shards."""
BETWEEN_SCANS = 1 << 24
"""Bytes that a process writes before it looks again what all have written; each may exceed the limit by so much."""


class OpenFiles:
    """The files used last, unbuffered, by path; ``opener`` opens one. Open files do not travel to another process."""

    def __init__(self, opener: Callable[[Path], BinaryIO]) -> None:
        self.opener = opener
        self.files: dict[Path, BinaryIO] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"opener": self.opener, "files": {}}

    def read(self, path: Path, offset: int, length: int) -> bytes:
        file = self.opened(path)  # held, so that it stays open if another thread lets go of it
        return os.pread(file.fileno(), length, offset)

    def opened(self, path: Path) -> BinaryIO:
        file = self.files.get(path)
        if file is None:
            if len(self.files) >= MAX_OPEN:
                self.files.pop(next(iter(self.files)), None)
            file = self.files[path] = self.opener(path)
        return file


def open_to_read(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)  # type: ignore[return-value]


def open_to_change(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0)  # type: ignore[return-value]


class ShardCache:
    """The part of a cache that belongs to one packed set.

    Args:
        cache: the folder of all sets, and its size.
        url, manifest: of the set; another content of ``shards.json`` is another set.

    Raises:
        ValueError: if the folder cannot be made.
    """

    def __init__(self, cache: Cache, url: str, manifest: bytes) -> None:
        self.cache = cache
        self.folder = cache.folder / hashlib.sha256(url.encode() + b"\0" + manifest).hexdigest()[:16]
        self.files = OpenFiles(open_to_change)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"shard_cache {cache.folder} cannot be made ({error.strerror})") from error
        self.room = self.measured_room()
        self.unscanned = 0
        self.warned = False

    def measured_room(self) -> int:
        """Bytes below the limit, after those on the disk; holes do not count."""
        used = 0
        for folder, _, names in os.walk(self.cache.folder):
            for name in names:
                try:
                    used += 512 * os.stat(os.path.join(folder, name)).st_blocks
                except FileNotFoundError:  # another process has renamed or removed it
                    continue
        return self.cache.max_bytes - used

    def read(self, name: str, offset: int, length: int) -> bytes:
        """What stands where an image of the shard would."""
        return self.files.read(self.folder / name, offset, length)

    def reserves(self, size: int) -> bool:
        """Whether so many bytes may be written; they then count as written."""
        if self.unscanned >= BETWEEN_SCANS:
            self.room, self.unscanned = self.measured_room(), 0
        if self.room < size:
            self._full(f"{self.cache.max_bytes:,} bytes are the limit")
            return False
        self.room -= size
        self.unscanned += size
        return True

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Keep bytes of a shard; nothing where the disk is full."""
        try:
            os.pwrite(self.files.opened(self.folder / name).fileno(), data, offset)
        except OSError as error:
            self.room = -1
            self._full(error.strerror or str(error))

    def whole(self, name: str, size: int, fetch: Callable[[Path], None]) -> Path:
        """A file of the index, of ``size`` bytes; ``fetch`` writes it to a path where it is not there."""
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size:
            with unfinished(path) as temporary:
                fetch(temporary)
            self.room = self.measured_room()
        return path

    def _full(self, reason: str) -> None:
        if not self.warned:
            log.warning("the shard cache %s keeps no more (%s); the rest is read each time", self.cache.folder, reason)
        self.warned = True
