"""How the project's numba kernels are compiled and kept: the one place for these settings.

Numba keeps compiled kernels beside the source and looks only at the kernel's own file to see whether it has changed.
A kernel here also holds what it took from other files: inlined functions, constants. Its entry therefore carries the
hash of every project file that its own imports, directly or not, so that no kernel outlives what it was made from.
A folder that cannot be written, a full disk or a damaged entry costs the compilation again and never ends a run.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.caching import FunctionCache

ROOT = Path(__file__).resolve().parents[2]


@functools.cache
def imported_files(source: bytes) -> frozenset[Path]:
    """Project files that this source imports itself."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = [(ROOT / name.replace(".", "/")).with_suffix(".py") for name in names]
    return frozenset(candidate for candidate in candidates if candidate.is_file())


def sources_of(path: Path) -> list[Path]:
    """``path`` and every project file that it imports, directly or not, sorted."""
    found, waiting = set(), [path]
    while waiting:
        if (source := waiting.pop()) not in found:
            found.add(source)
            waiting += imported_files(source.read_bytes())
    return sorted(found)


def stamp(path: Path) -> bytes:
    """SHA-256 of the names and contents of ``sources_of(path)``."""
    sha = hashlib.sha256()
    for source in sources_of(path):
        sha.update(hashlib.sha256(source.name.encode()).digest() + hashlib.sha256(source.read_bytes()).digest())
    return sha.digest()


class SourceCache(FunctionCache):
    """Numba's cache of one kernel, stamped with all its sources and silent where the disk fails."""

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = stamp(Path(inspect.getfile(function)).resolve())

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # whatever unpickling a damaged entry raises
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a kernel; an index that is damaged, which saving reads first, is begun anew."""
        try:
            super().save_overload(sig, data)
        except Exception:  # as above, or what the disk raises
            with contextlib.suppress(Exception):
                self.flush()
                super().save_overload(sig, data)


def kernel(**options: Any) -> Callable[[Callable], Any]:
    """Decorator: ``numba.njit(nogil=True, **options)``, compiled on first use and kept for the next run if possible."""

    def compiled(function: Callable) -> Any:
        dispatcher = njit(nogil=True, **options)(function)
        if not isinstance(dispatcher, types.FunctionType):  # which it is under NUMBA_DISABLE_JIT
            with contextlib.suppress(RuntimeError, OSError):  # no folder to write to
                dispatcher._cache = SourceCache(function)
        return dispatcher

    return compiled
