"""One output for every input, in the order of the set, alone and in two processes."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor
from torch.multiprocessing import ProcessExitedException
from torch.utils.data import DataLoader

from callbacks.predictions import Predictions, write_predictions
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


def test_two_processes_write_what_one_does(tmp_path: Path) -> None:
    trainer(tmp_path / "one", "squares.npy").predict(TwoShards())
    trainer(tmp_path / "two", "squares.npy", devices=2, strategy="ddp_fork").predict(
        TwoShards(), return_predictions=False
    )
    one, two = (np.load(tmp_path / name / "squares.predict.npy") for name in ("one", "two"))
    assert np.array_equal(one, two)
    assert one[:, 1].tolist() == [100.0 * i * i for i in range(SIZE)]


class Dies(TwoShards):
    """The second process is killed in the middle."""

    def predict_step(self, batch: Any, batch_index: int, dataloader_idx: int = 0) -> Any:
        if self.global_rank == 1 and batch_index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict_step(batch, batch_index, dataloader_idx)


def test_a_killed_process_leaves_the_file_of_before_and_the_next_run_is_whole(tmp_path: Path) -> None:
    two: dict[str, Any] = {"devices": 2, "strategy": "ddp_fork"}
    for there in ("", "of an earlier run"):
        if there:
            (tmp_path / "squares.predict.csv").write_text(there)
        with pytest.raises(ProcessExitedException, match="SIGKILL"):
            trainer(tmp_path, "squares.csv", **two).predict(Dies(), return_predictions=False)
        assert [path.read_text() for path in tmp_path.iterdir()] == [there] * bool(there)
    trainer(tmp_path, "squares.csv", **two).predict(TwoShards(), return_predictions=False)
    rows = [line.split(",")[0] for line in (tmp_path / "squares.predict.csv").read_text().splitlines()[1:]]
    assert rows == [str(i) for i in range(SIZE)] and len([*tmp_path.iterdir()]) == 1


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


def test_several_columns_and_words(tmp_path: Path) -> None:
    names = {"name": ["a", "b, c"], "p": torch.tensor([[0.25, 0.75], [1.0, 0.0]]), "label": torch.tensor([1, 0])}
    trainer(tmp_path, "out.csv").predict(Squares(outputs=names), loader(order=[1, 0]))
    lines = (tmp_path / "out.predict.csv").read_text().splitlines()
    assert lines == ["index,name,p_0,p_1,label", '0,"b, c",1.0,0.0,0', "1,a,0.25,0.75,1"]
    for wrong in (names | {"name": ["a"]}, {"name": [1, 2]}, {}):
        with pytest.raises(ValueError, match=r"1, 2, 2 outputs for the 2 items|Squares gives none"):
            trainer(tmp_path, "out.csv").predict(Squares(outputs=wrong), loader(order=[1, 0]))
    with pytest.raises(ValueError, match=r"name, p, label do not fit one array out\.predict\.npy: name a \.csv"):
        trainer(tmp_path, "out.npy").predict(Squares(outputs=names), loader(order=[1, 0]))


def test_a_trial_writes_nothing(tmp_path: Path) -> None:
    trainer(tmp_path, "squares.csv", fast_dev_run=True).predict(Squares(), loader())
    run = trainer(tmp_path, "labels.csv", fast_dev_run=True)
    for callback in run.callbacks:  # type: ignore[attr-defined]
        callback.on_fit_end(run, Fitted())
    assert not [*tmp_path.iterdir()]


def test_what_is_written_without_a_callback(tmp_path: Path) -> None:
    run = trainer(tmp_path, "squares.npy")
    write_predictions(run, Squares())
    assert [c.file for c in run.callbacks if isinstance(c, Predictions)] == ["squares.npy"]  # type: ignore[attr-defined]
    run.callbacks.clear()  # type: ignore[attr-defined]
    write_predictions(run, Squares())
    assert [c.file for c in run.callbacks] == ["outputs.csv"]  # type: ignore[attr-defined]
    module = LightningModule()
    with pytest.raises(ValueError, match="LightningModule has no predict_step: `fit` and `test` are"):
        write_predictions(run, module)
    module.instead_of_predict = "`python codec.py`"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"no predict_step: `python codec\.py`"):
        write_predictions(run, module)


def test_bfloat16_has_no_array_of_its_own(tmp_path: Path) -> None:
    rows = torch.tensor([0.5, 2.0], dtype=torch.bfloat16)
    trainer(tmp_path, "a.npy").predict(Squares(outputs=rows), loader(order=[0, 1]))
    assert np.load(tmp_path / "a.predict.npy").tolist() == [0.5, 2.0]


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
