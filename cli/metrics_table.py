"""One metrics.csv for a run, whatever the number of processes that it took.

Lightning's CSVLogger begins a file in every process, ``csv/version_<n>/metrics.csv``. A fit notes beside it the step
at which it begins; what an earlier process logged from there on, behind its last checkpoint, was taken back.
"""

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

Row = dict[str, str]
START = "first_step"


def note_start(trainer: "Trainer") -> None:
    """Called before a process's first batch: only then has Lightning counted the step that saved its checkpoint."""
    from pytorch_lightning.loggers import CSVLogger  # here, since programs that only read tables need no Lightning

    step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the loggers' step
    for logger in trainer.loggers:
        if isinstance(logger, CSVLogger):
            folder = Path(logger.log_dir)
            folder.mkdir(parents=True, exist_ok=True)
            unfinished = folder / f"{START}.tmp"
            unfinished.write_text(f"{step}\n")
            unfinished.replace(folder / START)


def rows_of(file: Path) -> list[Row]:
    """Complete rows; the last one of a process that was killed may be half a row."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.DictReader(lines)
        return [row for row in rows if (row.get("step") or "").isdecimal() and None not in row.values()]


def merged(folder: Path) -> list[Row]:
    """The rows of all fits in a run's folder, in the order in which they count."""
    starts = sorted(folder.glob(f"csv/version_*/{START}"), key=lambda path: int(path.parent.name.rpartition("_")[2]))
    rows: list[Row] = []
    for start in starts:
        text = start.read_text().strip()
        first = int(text) if text.isdecimal() else math.inf  # a power cut may leave it empty: nothing is taken back
        rows = [row for row in rows if int(row["step"]) < first] + rows_of(start.with_name("metrics.csv"))
    return rows


def write_merged(folder: Path) -> None:
    """``<folder>/metrics.csv``, replaced at once; nothing if nothing was logged."""
    rows = merged(folder)
    if not rows:
        return
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [*(name for name in ("epoch", "step") if name in names), *sorted(names.keys() - {"epoch", "step"})]
    unfinished = folder / "metrics.tmp"
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    unfinished.replace(folder / "metrics.csv")
