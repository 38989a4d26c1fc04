"""Chains through the command line on tiny data: one epoch a generation, test, and one batch of every config."""

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from callbacks.generations import Generations
from datamodules.cifar import CIFAR10_CLASSES
from modules.born_again.densenet import DenseNet
from modules.born_again.losses import dkpp
from modules.born_again.module import BornAgainClassifier
from modules.born_again.resnet import WideResNet
from train import main

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "born_again"
SMALL_WRN = ["--model.init_args.student.init_args.depth=10", "--model.init_args.student.init_args.base_channels=2"]
SMALL_DENSENET = ["--model.init_args.student.init_args.units=1", "--model.init_args.student.init_args.growth=2"]
PLAIN = ["--trainer.accelerator=cpu", "--trainer.enable_model_summary=false", "--trainer.precision=32-true"]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two training and one test image of each class, in the folder's layout."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        for name in CIFAR10_CLASSES:
            folder = tmp_path / "cifar10_jpeg" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number:04d}.jpg")
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "ptb").mkdir()
    for name, lines in (("train", 40), ("valid", 10), ("test", 9)):
        (tmp_path / "ptb" / f"ptb.{name}.txt").write_text("one two three\ntwo <unk> three four one\n" * lines)
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    return tmp_path


def results(folder: Path) -> dict:
    return json.loads((folder / "000" / "result.json").read_text())


def test_the_small_experiment(images: Path, tmp_path: Path) -> None:
    where = ["--run.dir", str(tmp_path / "runs"), "--config", str(CONFIGS / "cifar10_small.yaml"), *SMALL_WRN, *PLAIN]
    more = ["--trainer.max_epochs=1", "--data.init_args.batch_size=10"]
    main(["fit", *where, *more])
    metrics = results(tmp_path / "runs")["fit"]["metrics"]
    assert {"gen0/val/error", "gen3/val/error", "ens2/val/error", "ens3/val/error"} <= metrics.keys()
    assert results(tmp_path / "runs")["fit"]["epochs"] == 4
    main(["test", *where, "--ckpt_path", "last"])
    tested = results(tmp_path / "runs")["test"]["metrics"]
    assert tested["gen3/test/error"] == tested["test/error"] == metrics["gen3/val/error"]
    assert tested["ens3/test/error"] == metrics["ens3/val/error"]
    checkpoints = tmp_path / "runs" / "000" / "checkpoints"
    main(["predict", *where, "--ckpt_path", str(checkpoints / "generation_1.ckpt")])
    with (tmp_path / "runs" / "000" / "probabilities.predict.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["index", *(f"probability_{k}" for k in range(10))] and len(rows) == 1 + 10
    assert sum(map(float, rows[1][1:])) == pytest.approx(1, rel=1e-6)
    teacher = checkpoints / "generation_0.ckpt"
    given = "--model.init_args.teacher"
    options = ["--config", str(CONFIGS / "overlays" / "given_teacher.yaml"), f"{given}_weights", str(teacher)]
    options += [
        f"{given}.init_args.base_channels=2",
        "--run.dir",
        str(tmp_path / "given"),
        "--trainer.callbacks.init_args.generations=1",
    ]
    main(["fit", *where, *more, "--config", str(CONFIGS / "overlays" / "cwtm.yaml"), *options])
    fit = results(tmp_path / "given")["fit"]
    assert fit["epochs"] == 1
    swept = yaml.safe_load((ROOT / "sweeps" / "born_again.yaml").read_text())
    assert fit["metrics"][swept["metric"]["name"]] == fit["best_score"]  # the student's, not its teacher's
    assert "gen0/val/error" not in fit["metrics"]
    assert (tmp_path / "given" / "000" / "checkpoints" / "generation_1.ckpt").is_file()


def test_the_small_language_model(text: Path, tmp_path: Path) -> None:
    where = ["--run.dir", str(tmp_path / "runs"), "--config", str(CONFIGS / "ptb_small.yaml"), *PLAIN]
    where += ["--model.init_args.student.init_args.vocabulary=6", "--model.init_args.student.init_args.units=4"]
    where += ["--data.init_args.batch_size=4", "--data.init_args.window=9"]
    main(["fit", *where, "--trainer.max_epochs=6"])
    metrics = results(tmp_path / "runs")["fit"]["metrics"]
    assert metrics["gen1/val/perplexity"] < 6  # better than equal chances
    main(["test", *where, "--ckpt_path", "last"])
    assert results(tmp_path / "runs")["test"]["metrics"]["gen0/test/perplexity"] < 6


def saved(path: Path, student: torch.nn.Module) -> str:
    torch.save({"state_dict": {f"student.{name}": value for name, value in student.state_dict().items()}}, path)
    return str(path)


def dev_run(name: str, *options: str) -> None:
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), "--trainer.fast_dev_run=1", *PLAIN, *options])


FOLDER = ["--data=datamodules.cifar.CIFAR10Folder", "--data.init_args.batch_size=4"]


def test_one_batch_of_the_papers_image_experiments(images: Path, tmp_path: Path) -> None:
    dev_run("cifar10_wrn28_10", *FOLDER, *SMALL_WRN, "--model.init_args.student.init_args.width=1")
    dev_run("cifar100_densenet", *FOLDER, *SMALL_DENSENET)
    wide = saved(tmp_path / "wide.ckpt", WideResNet(100, depth=10, width=1, base_channels=2, dropout=0.3))
    teacher = "--model.init_args.teacher.init_args"
    small = [f"{teacher}.depth=10", f"{teacher}.width=1", f"{teacher}.base_channels=2"]
    given = ["--model.init_args.teacher_weights", wide]
    dev_run("cifar100_wrn_to_densenet", *FOLDER, *SMALL_DENSENET, *small, *given)
    dense = saved(tmp_path / "dense.ckpt", DenseNet(100, units=1, growth=2))
    student = "--model.init_args.student.init_args"
    small = [f"{teacher}.units=1", f"{teacher}.growth=2", f"{student}.stem_channels=4", f"{student}.widths=[3,2,2]"]
    dev_run("cifar100_resnet_student", *FOLDER, *small, "--model.init_args.teacher_weights", dense)


@pytest.mark.parametrize("name", ["ptb_lstm", "ptb_cnn_lstm"])
def test_one_batch_of_the_papers_language_models(text: Path, name: str) -> None:
    small = ["--model.init_args.student.init_args.vocabulary=6", "--model.init_args.student.init_args.units=4"]
    dev_run(name, *small, "--data.init_args.batch_size=4")


class Diary(BornAgainClassifier):
    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_index)
        self.losses.append(float(loss.detach()))
        return loss


def test_golden_losses(tmp_path: Path) -> None:
    """A seeded chain with DKPP, two steps a generation; a change of these numbers needs a reason."""
    generator = torch.Generator().manual_seed(0)
    batches = [
        {
            "image": torch.randint(256, (8, 3, 32, 32), generator=generator, dtype=torch.uint8),
            "label": torch.randint(10, (8,), generator=generator),
        }
        for _ in range(2)
    ]
    torch.manual_seed(0)
    module = Diary(
        partial(WideResNet, depth=10, width=1, base_channels=4),
        loss=dkpp,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
    )
    module.losses = []
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[Generations(2, str(tmp_path), seed=5)],
        default_root_dir=tmp_path,
    )
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, loader)
    assert module.losses == pytest.approx(GOLDEN, rel=1e-3)


GOLDEN = [2.38555, 2.33087, 2.31375, 2.31272, 2.31695, 2.33230]
