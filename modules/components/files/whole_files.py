"""Files that appear whole or not at all."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file that becomes ``path`` when the block ends, and vanishes if it fails.

    The name is short, whatever the length of ``path``'s; missing folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    with unfinished(path) as temporary:
        temporary.write_bytes(data)
