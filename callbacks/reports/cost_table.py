"""Multiplications, additions and bits of every layer: a table before training, and costs.csv in the run's folder."""

from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.table import Table

from callbacks.reports.study_table import write_csv

COLUMNS = ("layer", "kind", "multiplications", "additions", "bits")


class CostTable(Callback):
    """Ask the module for ``costs(batch)``, a list of records with the attributes in ``COLUMNS``, at the first batch.

    Args:
        every_layer: print each layer; otherwise the totals alone. The file holds all in either case.
    """

    def __init__(self, every_layer: bool = True) -> None:
        self.every_layer = every_layer
        self.is_done = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.is_done or not trainer.is_global_zero:
            return
        self.is_done = True
        rows = [{name: getattr(cost, name) for name in COLUMNS} for cost in pl_module.costs(batch)]  # type: ignore[operator]
        sums = {name: sum(row[name] for row in rows) for name in COLUMNS[2:]}
        rows = [*rows, {"layer": "total", "kind": "", **sums}]
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(folder / "costs.csv", [{k: float(v) if k in sums else v for k, v in row.items()} for row in rows])
        print_costs(rows if self.every_layer else rows[-1:])


def print_costs(rows: list[dict[str, Any]]) -> None:
    table = Table()
    for name in COLUMNS[:2]:
        table.add_column(name, overflow="fold")
    for name in COLUMNS[2:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row["layer"], row["kind"], *(f"{float(row[name]):,.0f}" for name in COLUMNS[2:]))
    Console().print(table)
