"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
import zlib
from collections.abc import Iterator
from pathlib import Path


def stem_of(path: Path) -> str:
    """What the names of all unfinished files for ``path`` begin with, after the dot."""
    return f"{zlib.crc32(os.fsencode(path.name)):08x}"


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of ``path``; no other process may be writing it."""
    for leftover in path.parent.glob(f".{stem_of(path)}*.tmp"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file that becomes ``path`` when the block ends, and vanishes if it fails.

    The name is short, whatever the length of ``path``'s; missing folders are made. A process that is killed leaves it
    behind, for ``remove_leftovers``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{stem_of(path)}{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    with unfinished(path) as temporary:
        temporary.write_bytes(data)
