"""Folders behind a URL, where packed image sets may be instead of on this machine: s3://, gs://, https://, memory://.

fsspec reads them. The package for a store (s3fs, gcsfs, ...) is the user's to install, and takes keys and endpoints
from its own variables. A network fails for moments: what may pass is tried again, with waits that double, before it is
one line. Everything that a server says is checked: it may be wrong, cut short or not what was asked for.
"""

import asyncio
import errno
import os
import random
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.loading.roots import chosen_root, is_url

MANIFEST = "shards.json"
"""Of a packed set (datamodules/images/shards.py)."""
ATTEMPTS = 6
FIRST_WAIT = 0.5
"""Seconds after the first failure; doubled after each, so about a quarter of a minute in all, and varied by half, for
many workers fail at the same time."""
TIMEOUT = 60.0
"""Seconds for one answer."""
PIECE = 1 << 23
"""Bytes asked for at once, at most, of a file that is read whole."""
OPTIONS = {protocol: {"client_kwargs": {"headers": {"Accept-Encoding": "identity"}}} for protocol in ("http", "https")}
"""A server that compresses what it sends has no ranges of the file itself."""
JITTER = random.SystemRandom()  # the order of training must not depend on the network


class ShortAnswerError(OSError):
    """Fewer bytes than were asked for, though the connection says nothing of an error."""


class Connection:
    """A file system of fsspec, opened where it is needed: it has threads and sockets, which a fork does not copy."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "_opened": None}

    def file_system(self) -> Any:
        if self._opened is None or self._opened[0] != os.getpid():
            from fsspec.core import url_to_fs

            options = OPTIONS.get(self.url.split("://", 1)[0], {})
            self._opened = os.getpid(), url_to_fs(self.url, **options)[0]
        return self._opened[1]

    def ask(self, question: str, url: str, *arguments: Any) -> Any:
        """A method of the file system, in a bounded time if it is one of those that wait for many answers at once."""
        system = self.file_system()
        path = system._strip_protocol(url)
        if not system.async_impl:
            return getattr(system, question)(path, *arguments)
        from fsspec.asyn import sync

        return sync(system.loop, getattr(system, f"_{question}"), path, *arguments, timeout=TIMEOUT)


def may_pass(error: BaseException) -> bool:
    """Whether the same question may be answered a little later: not what a file system of fsspec does not offer.

    fsspec's HTTP calls a file missing whatever went wrong while it asked for its size; the cause says what did.
    """
    if isinstance(error, FileNotFoundError):
        cause = error.__cause__
        of_network = isinstance(cause, OSError | asyncio.TimeoutError) or type(cause).__module__.startswith("aiohttp")
        return cause is not None and of_network and may_pass(cause)
    if isinstance(error, PermissionError | IsADirectoryError | NotImplementedError | ImportError | ValueError):
        return False
    status = getattr(error, "status", None)
    return not isinstance(status, int) or status >= 500 or status in (408, 429)


def reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        return reason(error.__cause__)
    return f"{type(error).__name__}: {error}".removeprefix("ValueError: ").removesuffix(": ")


class Cache(NamedTuple):
    """Where what was read is kept on this machine (datamodules/images/shard_cache.py)."""

    folder: Path
    max_bytes: int


class RemotePath:
    """A folder or file behind a URL, with those methods of a ``Path`` that reading a packed set takes.

    Args:
        url: as fsspec reads it, without a query.
        cache: for the sets below.

    Raises:
        ValueError: by every method that asks, if there is no answer, or none that can be right.
    """

    def __init__(self, url: str, cache: Cache | None = None, connection: Connection | None = None) -> None:
        self.url, self.cache = re.sub(r"(?<=[^:/])/+$", "", url), cache
        self.connection = connection or Connection(url)

    def __truediv__(self, name: str | Path) -> "Folder":
        """What is below; an absolute path stays one of this machine, another URL the other one."""
        if Path(name).is_absolute():
            return Path(name)
        if is_url(str(name)):
            return RemotePath(str(name), self.cache)
        return RemotePath(f"{self.url}/{name}", self.cache, self.connection)

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def with_name(self, name: str) -> "RemotePath":
        return RemotePath(f"{self.url.rpartition('/')[0]}/{name}", self.cache, self.connection)

    def size(self) -> int:
        """Bytes of a file. Raises FileNotFoundError if there is none."""
        size = self._ask("info").get("size")
        if not isinstance(size, int):
            raise ValueError(f"{self} is of unknown size: its server must say it (Content-Length)")
        return size

    def is_file(self) -> bool:
        try:
            return self._ask("info").get("type") == "file"
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether a packed set is here. There are no other folders: a store has names only."""
        return (self / MANIFEST).is_file()

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``. Raises FileNotFoundError if there is no file."""
        return self._ask("cat_file", start, end) if start < end else b""

    def read_bytes(self, at_most: int = 1 << 26) -> bytes:
        """The whole file. Raises FileNotFoundError if there is none.

        The first byte is asked for alone: a server that does not know ranges sends all of a file instead, which is
        known by then, before a large one is read.
        """
        size = self.size()
        if size > at_most:
            raise ValueError(f"{self} has {size:,} bytes, more than the {at_most:,} that such a file may have")
        starts = [0, *range(1, size, PIECE)]
        return b"".join(map(self.read_range, starts, [*starts[1:], size]))

    def _ask(self, question: str, *arguments: int) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                return checked(self.connection.ask(question, self.url, *arguments), *arguments)
            except Exception as error:
                passing = may_pass(error)
                if not passing and isinstance(error, FileNotFoundError):
                    raise FileNotFoundError(errno.ENOENT, "no such file", self.url) from error
                if not passing or attempt == ATTEMPTS - 1:
                    tries = f" after {ATTEMPTS} attempts; when it can be, --ckpt_path last goes on" * passing
                    raise ValueError(f"{self} cannot be read ({reason(error)}){tries}") from error
            time.sleep(FIRST_WAIT * 2**attempt * JITTER.uniform(0.5, 1.5))


Folder = Path | RemotePath


def checked(answer: Any, start: int = 0, end: int = 0) -> Any:
    """``answer``, of as many bytes as were asked for, if bytes were."""
    if isinstance(answer, bytes) and len(answer) < end - start:
        raise ShortAnswerError(f"{len(answer):,} bytes came of {end - start:,}")
    if isinstance(answer, bytes) and len(answer) > end - start:
        raise ValueError(f"{len(answer):,} bytes came of {end - start:,}: its server does not answer ranges")
    return answer


def image_root(root: str | None, cache: str | None = None, cache_gib: float = 0.0) -> Folder:
    """``loaders.data_root`` for data sets that may be packed: a ``Path``, or a ``RemotePath`` for a URL.

    Args:
        root: as there.
        cache: a folder of this machine for what is read from a URL.
        cache_gib: its size, at most.

    Raises:
        ValueError: for a cache without a URL, or without a size.
    """
    text = chosen_root(root)
    if cache is not None and cache_gib <= 0:
        raise ValueError(f"shard_cache_limit_gib must be above 0, got {cache_gib}")
    if is_url(text):
        return RemotePath(text, None if cache is None else Cache(Path(cache), int(cache_gib * 2**30)))
    if cache is not None:
        raise ValueError(f"shard_cache keeps what is read from a URL, and the root {text} is a folder: leave it out")
    return Path(text)
