"""One output for every input, in the order of the set, alone and in two processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.predictions import Predictions
from datamodules.loading.loaders import EvaluationSampler

SIZE = 7


class Squares(LightningModule):
    """Returns (x, x^2) of each item, or x^2 alone."""

    def __init__(self, is_vector: bool = True, outputs: Any = None) -> None:
        super().__init__()
        self.is_vector, self.outputs = is_vector, outputs

    def predict_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> Any:
        x = batch["points"] if isinstance(batch, dict) else batch
        both = torch.stack((x, x.square()), 1)
        own = both if self.is_vector else both[:, 1]
        return own if self.outputs is None else self.outputs


def loader(rank: int = 0, world: int = 1, order: list[int] | None = None) -> DataLoader:
    items: list[Any] = [{"points": 10.0 * i, "index": i} for i in order or range(SIZE)]
    return DataLoader(items, batch_size=2, sampler=EvaluationSampler(items, rank, world))  # type: ignore[arg-type]


class TwoShards(Squares):
    def predict_dataloader(self) -> DataLoader:
        return loader(self.trainer.global_rank, self.trainer.world_size)


def trainer(path: Path, file: str, **options: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    callback = Predictions(file, "square")
    return Trainer(default_root_dir=str(path), accelerator="cpu", callbacks=[callback], **quiet, **options)


def test_csv_in_the_order_of_the_set_each_item_once(tmp_path: Path) -> None:
    run = trainer(tmp_path, "squares.csv")
    for is_vector, header in ((False, "index,square"), (True, "index,square_0,square_1")):
        run.predict(Squares(is_vector), loader(order=[3, 0, 2, 2, 1]))
        lines = (tmp_path / "squares.predict.csv").read_text().splitlines()
        assert lines[0] == header
        expected = [[i, 10.0 * i, 100.0 * i * i] if is_vector else [i, 100.0 * i * i] for i in range(4)]
        assert [[float(word) for word in line.split(",")] for line in lines[1:]] == expected


class Named(LightningDataModule):
    predict_names = tuple("abcdefg")

    def predict_dataloader(self) -> DataLoader:
        return loader(order=[3, 0, 2, 1])


def test_items_and_columns_with_names(tmp_path: Path) -> None:
    run = trainer(tmp_path, "squares.csv")
    callback = next(c for c in run.callbacks if isinstance(c, Predictions))  # type: ignore[attr-defined]
    callback.column = ["x", "x2"]
    run.predict(Squares(), Named())
    lines = (tmp_path / "squares.predict.csv").read_text().splitlines()
    assert lines == ["name,x,x2", "a,0.0,0.0", "b,10.0,100.0", "c,20.0,400.0", "d,30.0,900.0"]
    callback.column = ["x", "x2", "x3"]
    with pytest.raises(ValueError, match="2 numbers an item, but the columns x, x2, x3"):
        run.predict(Squares(), Named())


def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    trainer(tmp_path / "one", "squares.npy").predict(TwoShards())
    trainer(tmp_path / "two", "squares.npy", devices=2, strategy="ddp_fork").predict(
        TwoShards(), return_predictions=False
    )
    one, two = (np.load(tmp_path / name / "squares.predict.npy") for name in ("one", "two"))
    assert np.array_equal(one, two)
    assert one[:, 1].tolist() == [100.0 * i * i for i in range(SIZE)]


def test_batches_without_an_index_are_taken_as_they_come(tmp_path: Path) -> None:
    run = trainer(tmp_path, "squares.npy")
    run.predict(Squares(False), DataLoader([3.0, 1.0, 2.0], batch_size=2))  # type: ignore[arg-type]
    assert np.load(tmp_path / "squares.predict.npy").tolist() == [9, 1, 4]


class Fitted(Squares):
    def fitted_outputs(self) -> tuple[Tensor, Tensor]:
        return torch.tensor([0, 2]), torch.tensor([1, -1])


def test_what_a_fit_leaves(tmp_path: Path) -> None:
    run = trainer(tmp_path, "labels.csv")
    for callback in run.callbacks:  # type: ignore[attr-defined]
        callback.on_fit_end(run, Squares())
    assert not (tmp_path / "labels.csv").exists()
    for callback in run.callbacks:  # type: ignore[attr-defined]
        callback.on_fit_end(run, Fitted())
    assert (tmp_path / "labels.csv").read_text().split() == ["index,square", "0,1", "2,-1"]


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not to labels\.txt"):
        Predictions("labels.txt")
    with pytest.raises(ValueError, match="Squares gives none"):
        trainer(tmp_path, "a.npy").predict(Squares(outputs={"x": 1}), loader())
    with pytest.raises(ValueError, match="one loader"):
        trainer(tmp_path, "a.npy").predict(Squares(), [loader(), loader()])
    with pytest.raises(ValueError, match=r"1 outputs for the 2 items"):
        trainer(tmp_path, "a.npy").predict(Squares(outputs=torch.zeros(1)), loader())
    with pytest.raises(ValueError, match=r"a \.npy file"):
        trainer(tmp_path, "a.csv").predict(Squares(outputs=torch.ones(2, 2, 2)), loader(order=[0, 1]))
