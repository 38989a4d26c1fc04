"""The bytes of a packed set: from files of this machine, or by ranges over a network."""

import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

from datamodules.images.remote import MANIFEST, PIECE, RemotePath
from datamodules.images.shard_cache import OpenFiles, ShardCache, open_to_read

SAMPLES, NAMES = "samples.npy", "names.txt"
HOW_TO_PACK = "run `python -m datamodules.images.pack_images` again, or copy the whole folder again"
MAX_INDEX = 1 << 32
"""Bytes of a file of the index that comes over a network; 80 million images have it."""
FETCHES = 32
"""Answers that a process waits for at once."""
BLOCK = 1 << 18
"""Bytes that are asked for at once where several images lie in them, or a cache keeps them: about what a network sends
while an answer is waited for."""


class Place(NamedTuple):
    """Where an image's bytes are."""

    shard: str
    offset: int
    length: int
    crc: int

    @property
    def end(self) -> int:
        return self.offset + self.length

    def block(self) -> tuple[str, int]:
        return self.shard, self.offset // BLOCK

    def holds(self, data: bytes) -> bool:
        """Whether ``data`` is what was packed."""
        return len(data) == self.length and zlib.crc32(data) == self.crc


class ShardFiles(Protocol):
    def manifest(self) -> bytes:
        """Of shards.json. Raises FileNotFoundError."""

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        """Bytes of each shard; None for a missing one."""

    def index(self) -> AbstractContextManager[Path]:
        """A folder of this machine with the index, to be mapped. Raises FileNotFoundError with the missing one."""

    def read(self, place: Place) -> bytes:
        """What is at ``place`` now, right or not."""

    def fetch(self, places: Iterable[Place]) -> None:
        """Get ready for reads of these."""


class LocalFiles:
    """A folder, on a disk or a mounted file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened = OpenFiles(open_to_read)

    def manifest(self) -> bytes:
        return (self.folder / MANIFEST).read_bytes()

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        paths = [self.folder / name for name in names]
        return [path.stat().st_size if path.is_file() else None for path in paths]

    @contextmanager
    def index(self) -> Iterator[Path]:
        yield self.folder

    def read(self, place: Place) -> bytes:
        return self.opened.read(self.folder / place.shard, place.offset, place.length)

    def fetch(self, places: Iterable[Place]) -> None:
        """Nothing: a file system reads ahead by itself."""


class RemoteFiles:
    """A folder behind a URL. The images of a batch are asked for together, and what is near each other by one range."""

    def __init__(self, folder: RemotePath) -> None:
        self.folder = folder
        self.cache: ShardCache | None = None
        self.length: dict[str, int] = {}
        self.ahead: dict[Place, bytes] = {}

    def manifest(self) -> bytes:
        content = (self.folder / MANIFEST).read_bytes()  # type: ignore[union-attr]
        if self.folder.cache is not None:
            self.cache = ShardCache(self.folder.cache, self.folder.url, content)
        return content

    def sizes(self, names: Sequence[str]) -> list[int | None]:
        def size(name: str) -> int | None:
            try:
                return self._file(name).size()
            except FileNotFoundError:
                return None

        with ThreadPoolExecutor(FETCHES) as pool:
            found = list(pool.map(size, names))
        self.length = {name: size or 0 for name, size in zip(names, found, strict=True)}
        return found

    @contextmanager
    def index(self) -> Iterator[Path]:
        """In the cache, or in a temporary folder: what is mapped outlives its name."""
        with tempfile.TemporaryDirectory(prefix="shards-") as folder:
            for name in (SAMPLES, NAMES):
                size = self._file(name).size()
                if size > MAX_INDEX:
                    raise ValueError(f"{self._file(name)} has {size:,} bytes, more than {MAX_INDEX:,}")
                if self.cache is None:
                    self._download(name, size, Path(folder, name))
                else:
                    self.cache.whole(name, size, partial(self._download, name, size))
            yield Path(folder) if self.cache is None else self.cache.folder

    def read(self, place: Place) -> bytes:
        data = self.ahead.get(place)
        return self._read_group([place])[place] if data is None else data

    def fetch(self, places: Iterable[Place]) -> None:
        """Hold the images of a batch, in place of those of the last one."""
        self.ahead = {}
        groups = [list(group) for _, group in groupby(sorted(places), Place.block)]
        with ThreadPoolExecutor(min(FETCHES, len(groups) or 1)) as pool:
            self.ahead = {place: data for group in pool.map(self._read_group, groups) for place, data in group.items()}

    def _read_group(self, places: Sequence[Place]) -> dict[Place, bytes]:
        """Images that begin in the same block; those that come damaged are asked for once more."""
        found = {place: data for place in places if place.holds(data := self._cached(place))}
        missing = [place for place in places if place not in found]
        if missing:
            start, span = self._span(missing)
            for place in missing:
                data = span[place.offset - start : place.end - start]
                found[place] = data if place.holds(data) else self._range(place.shard, place.offset, place.end)
        return found

    def _cached(self, place: Place) -> bytes:
        return b"" if self.cache is None else self.cache.read(place.shard, place.offset, place.length)

    def _span(self, places: Sequence[Place]) -> tuple[int, bytes]:
        """Bytes around all of ``places``, and where they begin: whole blocks if the cache keeps them."""
        shard = places[0].shard
        start, end = min(place.offset for place in places), max(place.end for place in places)
        first, last = start // BLOCK * BLOCK, min(-(-end // BLOCK) * BLOCK, self.length[shard])
        if self.cache is None or not self.cache.reserves(last - first):
            return start, self._range(shard, start, end)
        data = self._range(shard, first, last)
        self.cache.write(shard, first, data)
        return first, data

    def _range(self, name: str, start: int, end: int) -> bytes:
        try:
            return self._file(name).read_range(start, end)
        except FileNotFoundError as error:
            raise ValueError(f"{self._file(name)} is no longer there: {HOW_TO_PACK}") from error

    def _file(self, name: str) -> RemotePath:
        return RemotePath(f"{self.folder.url}/{name}", connection=self.folder.connection)

    def _download(self, name: str, size: int, target: Path) -> None:
        with target.open("wb") as file:
            for start in range(0, size, PIECE):
                file.write(self._file(name).read_range(start, min(start + PIECE, size)))
