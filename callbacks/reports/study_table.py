"""Tables of a study: every record, and their means over the draws, as CSV files in the run's folder.

    draws.csv    one line per record
    table.csv    one line per setting, algorithm and option: number of draws, mean, median and standard error

It reads the module's ``records``, a list of dicts with ``draw``, what distinguishes a record (numbers of the setting,
``algorithm``, options that start with ``with_``) and measured numbers.
"""

import csv
import time
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.predictions import is_writer
from modules.components.options import at_least

Record = dict[str, Any]


def write_csv(path: Path, records: list[Record]) -> None:
    """All keys as columns, in the order in which they first occur; replaces the file at once."""
    if not records:
        return
    columns = list(dict.fromkeys(name for record in records for name in record))
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(records)
    unfinished.replace(path)


def group(records: list[Record], measured: list[str]) -> list[Record]:
    """Means, medians and standard errors of the ``measured`` numbers over records that agree in all the rest."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        key = tuple((k, v) for k, v in record.items() if k not in measured and k != "draw")
        groups.setdefault(key, []).append(record)
    table = []
    for key, members in groups.items():
        line: Record = {**dict(key), "draws": len(members)}
        for name in measured:
            if values := [member[name] for member in members if name in member]:
                spread = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
                line |= {name: float(np.mean(values)), f"{name}_median": float(np.median(values))}
                line[f"{name}_stderr"] = spread
        table.append(line)
    return table


class StudyTable(Callback):
    """Write both files every ``seconds`` and at the end.

    Args:
        measured: which numbers of a record are outcomes; everything else is part of the setting.
        seconds: between two writings.
    """

    def __init__(self, measured: list[str], seconds: float = 30.0) -> None:
        at_least(0, seconds=seconds)
        self.measured, self.seconds = measured, seconds
        self.written = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if time.monotonic() - self.written > self.seconds:
            self.write(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer, pl_module)

    def write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not is_writer(trainer):
            return
        folder, records = Path(trainer.default_root_dir), list(pl_module.records)  # type: ignore[arg-type]
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "draws.csv", records)  # type: ignore[arg-type]
        write_csv(folder / "table.csv", group(records, self.measured))  # type: ignore[arg-type]
        self.written = time.monotonic()
