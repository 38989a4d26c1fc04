"""One output for every input, as a file in the run's folder."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from modules.components.gathering import Batch, all_items


class Predictions(Callback):
    """Write what ``predict_step`` returns: a tensor with one row for each item of its batch.

    The rows are in the order of the set, every item once whatever the world size: batches tell their items by
    ``index`` int64 [B]. Batches without it are taken as they come, which needs a single process. A datamodule with
    ``predict_names`` names the items of a .csv in place of their index. With ``file``
    labels.csv, ``predict`` leaves ``labels.predict.csv``, and ``fit`` leaves ``labels.csv`` if the module has
    ``fitted_outputs()``, which gives the (index, rows) of the items that it was fitted to, or None.

    Args:
        file: name ending in .npy, an array [N, ...] of the rows alone; or in .csv, lines of the item's index and its
            row, a number or a vector.
        column: what the numbers of a .csv are called: ``label``, or for vectors ``label_0``, ``label_1``, ...; or a
            list, one name for each number of a vector.

    Raises:
        ValueError: for another ending; if the outputs are no such tensors; for several loaders; and for several
            processes without ``index``.
    """

    def __init__(self, file: str, column: str | list[str] = "value") -> None:
        if not file.endswith((".npy", ".csv")):
            raise ValueError(f"predictions can be written to .npy or .csv, not to {file}")
        self.file, self.column = file, column
        self.parts: list[Batch] = []

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.parts = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if dataloader_idx > 0:
            raise ValueError(f"{self.file} takes the outputs of one loader: predict the sets one after the other")
        if not isinstance(outputs, Tensor) or outputs.ndim < 1:
            raise ValueError(f"{self.file} takes a tensor for each batch; {type(pl_module).__name__} gives none")
        part = {"rows": outputs.detach().cpu()}
        if isinstance(batch, dict) and "index" in batch:
            part["index"] = batch["index"].cpu()
            if len(part["index"]) != len(outputs):
                raise ValueError(f"{len(outputs)} outputs for the {len(part['index'])} items of a batch")
        self.parts.append(part)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        items = all_items(self.parts)  # a collective: before the rank is asked
        self.parts = []
        if items and is_writer(trainer):
            name = Path(self.file)
            path = Path(trainer.default_root_dir) / name.with_name(f"{name.stem}.predict{name.suffix}")
            names = getattr(trainer.datamodule, "predict_names", None)  # type: ignore[attr-defined]
            write(path, items.get("index", torch.arange(len(items["rows"]))), items["rows"], self.column, names)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unlike the end of training this comes, too, where a run that was stopped behind its last step goes on."""
        outputs = getattr(pl_module, "fitted_outputs", lambda: None)()
        if outputs is not None and is_writer(trainer):
            index, rows = outputs
            write(Path(trainer.default_root_dir) / self.file, index, rows, self.column)


def is_writer(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]


def write(path: Path, index: Tensor, rows: Tensor, column: str | list[str], names: Sequence[str] | None = None) -> None:
    """Replaces the file at once."""
    values = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    if path.suffix == ".npy":
        with unfinished.open("wb") as file:
            np.save(file, values, allow_pickle=False)
    else:
        write_csv(unfinished, index.tolist(), values, column, names)
    unfinished.replace(path)


def write_csv(
    path: Path, index: list[int], values: np.ndarray, column: str | list[str], names: Sequence[str] | None
) -> None:
    """A header, then a line for each item.

    Raises:
        ValueError: for rows that are matrices, and for a list of columns that does not fit them.
    """
    if values.ndim > 2:
        raise ValueError(f"outputs of shape {values.shape[1:]} do not fit a line of {path.stem}.csv: name a .npy file")
    width = 1 if values.ndim == 1 else values.shape[1]
    if isinstance(column, str):
        columns = [column] if values.ndim == 1 else [f"{column}_{k}" for k in range(width)]
    elif len(column) == width:
        columns = column
    else:
        raise ValueError(f"{path.stem}.csv: {width} numbers an item, but the columns {', '.join(column)}")
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index" if names is None else "name", *columns])
        lines = values.reshape(len(index), -1).tolist()
        writer.writerows([names[i] if names else i, *line] for i, line in zip(index, lines, strict=True))
