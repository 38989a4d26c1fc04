"""Confusion matrix and a table per class, after validation and test, on the terminal, in a file and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor


def class_scores(confusion: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """One row per class: records, recall, precision and F1 in 0..1; None where a quotient is 0 / 0."""
    counts = confusion.double().cpu()
    actual, predicted, right = counts.sum(1), counts.sum(0), counts.diagonal()
    rows = []
    for index, name in enumerate(names):
        values = {
            "recall": right[index] / actual[index],
            "precision": right[index] / predicted[index],
            "f1": 2 * right[index] / (actual[index] + predicted[index]),
        }
        rows.append(
            {"class": name, "records": int(actual[index])}
            | {key: None if value.isnan() else float(value) for key, value in values.items()}
        )
    return rows


def confusion_figure(confusion: Tensor, names: Sequence[str], title: str) -> Figure:
    """Counts, coloured by their share of the true class."""
    counts = confusion.cpu()
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    figure = Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(len(names)):
        for column in range(len(names)):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(int(counts[row, column])), ha="center", va="center", color=colour)
    axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="predicted", ylabel="true", title=title)
    axes.set_xticklabels(names)
    axes.set_yticklabels(names)
    return figure


class ClassificationReport(Callback):
    """Report the confusion matrices of ``pl_module.matrices()``, a dict split -> [K, K] (rows the true class).

    A test prints its table and leaves ``<run folder>/report.test.json`` and ``report.test.png``; a validation leaves
    ``report.val.*``, of the last one. The pictures also go to wandb.

    Args:
        classes: names, in the order of the labels.
    """

    def __init__(self, classes: Sequence[str] = ("N", "A", "O", "~")) -> None:
        self.classes = list(classes)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        confusion: Tensor = pl_module.matrices()[split]  # type: ignore[operator]  # a collective: before the rank is asked
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        rows = class_scores(confusion, self.classes)
        accuracy = float(confusion.diagonal().sum() / confusion.sum().clamp(min=1))
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"classes": rows, "accuracy": accuracy, "confusion": confusion.tolist()}
        (folder / f"report.{split}.json").write_text(json.dumps(content, indent=2) + "\n")
        with matplotlib.rc_context({"font.size": 9}):
            figure = confusion_figure(confusion, self.classes, f"{split}, epoch {trainer.current_epoch}")
            figure.savefig(folder / f"report.{split}.png", dpi=100)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image(f"{split}/confusion", [str(folder / f"report.{split}.png")], trainer.global_step)
        if split == "test":
            print_table(rows, accuracy)


def print_table(rows: list[dict[str, Any]], accuracy: float) -> None:
    table = Table("class", "records", "recall", "precision", "F1", title=f"accuracy {accuracy:.4f}")
    for row in rows:
        values = (row["recall"], row["precision"], row["f1"])
        table.add_row(row["class"], str(row["records"]), *("-" if v is None else f"{v:.4f}" for v in values))
    Console().print(table)
