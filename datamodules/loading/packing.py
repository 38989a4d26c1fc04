"""Packed copies of many small files: when one still matches its files, and which are no longer needed.

A packed copy is one data file and one index, both named by a fingerprint of the files that they were made of, so
changed files make a new copy. Each appears whole (``whole_files``) and the index last: a build that was interrupted
leaves no index, and two processes that build at once write the same bytes.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

ATTEMPTS = 3
"""To build a packed copy that another process removes before it is loaded."""
Packed = TypeVar("Packed")


def fingerprint(files: Iterable[tuple[str, os.stat_result]], *settings: object) -> str:
    """Sixteen hex digits of the files' names, sizes and times, and of ``settings``."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, status in files:
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def remove_others(folder: Path, key: str, *patterns: str) -> None:
    """Remove the files of ``folder`` that match a pattern and do not carry ``key`` in their name."""
    for pattern in patterns:
        for old in folder.glob(pattern):
            if key not in old.name:
                old.unlink(missing_ok=True)


def load_or_build(cache: Path, load: Callable[[], Packed | None], build: Callable[[], None]) -> Packed:
    """The packed copy in the folder ``cache``, built first where it has not been done.

    Args:
        load: the finished copy, or None if there is none or a file has lost its end.
        build: writes it.

    Raises:
        ValueError: if the cache cannot be written, or another process replaces it again and again by one of other
            files or settings.
    """
    for _ in range(ATTEMPTS):
        if (found := load()) is not None:
            return found
        try:
            build()
        except OSError as error:
            raise ValueError(
                f"cannot write the cache {cache} ({error.strerror}): set cache_dir to another folder"
            ) from error
    if (found := load()) is not None:
        return found
    raise ValueError(f"another process replaces the cache {cache} by its own: set cache_dir to a folder for each")
