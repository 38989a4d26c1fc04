"""Packed copies of many small files: when one still matches its files, and which are no longer needed.

A packed copy is one data file and one index, both named by a fingerprint of the files that they were made of, so
changed files make a new copy. Each appears whole (``whole_files``) and the index last: a build that was interrupted
leaves no index, and two processes that build at once write the same bytes.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


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
