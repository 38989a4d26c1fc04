"""Holding the folder of a run: one process writes it, and a start that fails leaves nothing behind.

A fit locks ``<folder>/.lock``, which names the process, until it ends, however it ends: the lock is the operating
system's. It belongs to the process that chose the folder, so the ranks of one job share it.
"""

import errno
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

HELD_ELSEWHERE = (errno.EACCES, errno.EAGAIN)


class Claim:
    """What this process has made and locked for its run."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.around: list[Path] = []  # made for the folder, innermost first
        self.lock: Any = None
        self.is_trial, self.has_begun = False, False

    def undo(self) -> None:
        if self.folder is None:
            return
        shutil.rmtree(self.folder, ignore_errors=True)
        for path in self.around:
            try:
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
            except OSError:  # another run is in there
                return


_claim = Claim()


def make(folder: Path) -> None:
    """Make the folder of a new run.

    Raises:
        FileExistsError: if it is there already.
    """
    missing = [path for path in folder.parents if not path.exists()]
    folder.mkdir(parents=True)
    _claim.folder, _claim.around = folder, missing


def make_trial() -> Path:
    """A folder for a run that leaves nothing."""
    _claim.folder, _claim.is_trial = Path(tempfile.mkdtemp(prefix="parsimony-")), True
    return _claim.folder


def leave_note(file: Path, text: str) -> None:
    """Write a file that goes where the folder goes; at once, so that nobody reads half of it."""
    missing = [path for path in (file, file.parent) if not path.exists()]
    file.parent.mkdir(exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(text)
    unfinished.replace(file)
    _claim.around = missing + _claim.around


def lock(folder: Path) -> None:
    """Hold a folder until the session ends.

    Raises:
        ValueError: if another process holds it.
    """
    if fcntl is None:
        return
    file = (folder / ".lock").open("a+")
    try:
        # Record locks, unlike flock's, are not handed to forked workers, which may outlive a killed process.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD_ELSEWHERE:
            file.close()
            return  # a file system without locks
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise ValueError(f"{folder} is being written by {holder}: wait for it or stop it") from None
    file.truncate(0)
    print(f"process {os.getpid()} on {platform.node()}", file=file, flush=True)
    _claim.lock = file


def begin() -> None:
    """From now on the folder holds work, which stays even if the run fails."""
    _claim.has_begun = True


def has_begun() -> bool:
    return _claim.has_begun


@contextmanager
def session() -> Iterator[None]:
    """Undo what a failed start or a trial has made, and let go of the lock."""
    global _claim
    _claim = Claim()
    try:
        yield
    except BaseException:
        is_empty = _claim.folder is not None and not any(_claim.folder.rglob("*.ckpt"))
        if is_empty and not _claim.has_begun:
            _claim.undo()
        raise
    finally:
        if _claim.is_trial:
            _claim.undo()
        if _claim.lock is not None:
            _claim.lock.close()
