"""What the readers of files tell the user: progress on a terminal, and which files they left out."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

MAX_NAMES = 10

Item = TypeVar("Item")


def describe_skipped(skipped: dict[str, list[str]]) -> str:
    """One line such as ``2 unreadable (a.jpg, b.jpg), 1 not 8-bit RGB (c.png)``; at most 10 names a reason."""
    parts = []
    for reason, names in skipped.items():
        more = ", ..." if len(names) > MAX_NAMES else ""
        parts.append(f"{len(names)} {reason} ({', '.join(names[:MAX_NAMES])}{more})")
    return ", ".join(parts)


def track(items: Iterable[Item], total: int, description: str, quiet: bool = False) -> Iterator[Item]:
    """Yield ``items`` behind a progress bar on stderr, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as progress:
        yield from progress.track(items, total=total, description=description)
