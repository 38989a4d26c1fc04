"""One output for every input, as a file in the run's folder."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from modules.components.gathering import Batch, all_items

Columns = dict[str, Any]
"""Tensors [N, ...] and lists of N words by their names."""


class Predictions(Callback):
    """Write what ``predict_step`` returns: a tensor with one row for each item of its batch, or several such tensors
    and lists of words (records' names) by their names.

    The rows are in the order of the set, every item once whatever the world size: batches tell their items by
    ``index`` int64 [B]. Batches without it are taken as they come, which needs a single process. With ``file``
    labels.csv, ``predict`` leaves ``labels.predict.csv``, and ``fit`` leaves ``labels.csv`` if the module has
    ``fitted_outputs()``, which gives the (index, rows) of the items that it was fitted to, or None.

    Args:
        file: name ending in .npy, an array [N, ...] of the rows alone; or in .csv, lines of the item's index and its
            row, numbers, vectors or words.
        column: what the numbers of a .csv are called where the module gives them no name: ``label``, or for vectors
            ``label_0``, ``label_1``, ...

    Raises:
        ValueError: for another ending; if the outputs are no such tensors; for several loaders; and for several
            processes without ``index``.
    """

    def __init__(self, file: str, column: str = "value") -> None:
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
        columns = outputs if isinstance(outputs, dict) else {self.column: outputs}
        if not columns or not all(is_column(column) for column in columns.values()):
            raise ValueError(f"{self.file} takes a tensor for each batch; {type(pl_module).__name__} gives none")
        part = {f"column {n}": v.detach().cpu() if isinstance(v, Tensor) else list(v) for n, v in columns.items()}
        if isinstance(batch, dict) and "index" in batch:
            part["index"] = batch["index"].cpu()
        lengths = {len(column) for column in part.values()}
        if len(lengths) > 1:
            items = f"the {len(part['index'])} items of a batch" if "index" in part else "one batch"
            raise ValueError(f"{', '.join(str(len(column)) for column in columns.values())} outputs for {items}")
        self.parts.append(part)

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        items = all_items(self.parts)  # a collective: before the rank is asked
        self.parts = []
        if items and is_writer(trainer):
            name = Path(self.file)
            path = Path(trainer.default_root_dir) / name.with_name(f"{name.stem}.predict{name.suffix}")
            index = items.pop("index", None)
            columns = {name.removeprefix("column "): value for name, value in items.items()}
            write(path, torch.arange(len(next(iter(columns.values())))) if index is None else index, columns)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unlike the end of training this comes, too, where a run that was stopped behind its last step goes on."""
        outputs = getattr(pl_module, "fitted_outputs", lambda: None)()
        if outputs is not None and is_writer(trainer):
            index, rows = outputs
            write(Path(trainer.default_root_dir) / self.file, index, {self.column: rows})


def write_predictions(trainer: Trainer, pl_module: LightningModule) -> None:
    """See before a predict that it leaves a file: ``outputs.predict.csv`` where the config names none.

    Raises:
        ValueError: for a module that predicts nothing, with the command that it names as ``instead_of_predict``.
    """
    if type(pl_module).predict_step is LightningModule.predict_step:
        remedy = getattr(pl_module, "instead_of_predict", "`fit` and `test` are what it has")
        raise ValueError(f"{type(pl_module).__name__} has no predict_step: {remedy}")
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if not any(isinstance(callback, Predictions) for callback in callbacks):
        callbacks.append(Predictions("outputs.csv"))


def is_writer(trainer: Trainer) -> bool:
    return trainer.is_global_zero and not trainer.fast_dev_run  # type: ignore[attr-defined]


def is_column(value: Any) -> bool:
    is_words = isinstance(value, (list, tuple)) and all(isinstance(word, str) for word in value)
    return is_words or (isinstance(value, Tensor) and value.ndim > 0)


def as_array(column: Any) -> np.ndarray:
    """numpy has no bfloat16."""
    if isinstance(column, Tensor):
        return (column.float() if column.dtype == torch.bfloat16 else column).numpy()
    return np.asarray(column)


def write(path: Path, index: Tensor, columns: Columns) -> None:
    """Replaces the file at once.

    Raises:
        ValueError: for a .npy file and anything but one tensor, or a .csv file and rows that are matrices.
    """
    arrays = {name: as_array(column) for name, column in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".tmp")
    if path.suffix == ".npy":
        if len(arrays) > 1 or not isinstance(next(iter(columns.values())), Tensor):
            raise ValueError(f"{', '.join(arrays)} do not fit one array {path.name}: name a .csv file")
        with unfinished.open("wb") as file:
            np.save(file, next(iter(arrays.values())), allow_pickle=False)
    else:
        write_csv(unfinished, index.tolist(), arrays)
    unfinished.replace(path)


def write_csv(path: Path, index: list[int], arrays: dict[str, np.ndarray]) -> None:
    """A header, then a line for each item."""
    header, fields = ["index"], [[[i] for i in index]]
    for name, values in arrays.items():
        if values.ndim > 2:
            raise ValueError(f"outputs {[*values.shape[1:]]} do not fit a line of {path.stem}.csv: name a .npy file")
        header += [name] if values.ndim == 1 else [f"{name}_{k}" for k in range(values.shape[1])]
        fields.append(values.reshape(len(index), -1).tolist())
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([value for part in parts for value in part] for parts in zip(*fields, strict=True))
