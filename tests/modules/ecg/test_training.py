"""Training on a small set of files: it learns, two processes score as one, and one batch of every config runs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer, seed_everything

from callbacks.reports.classification_report import ClassificationReport
from datamodules.physionet2017 import PhysioNet2017
from modules.ecg.augmentation import Augmentation
from modules.ecg.module import ECG
from modules.ecg.nets import CNN
from tests.modules.ecg.wfdb_files import write_set
from train import main

ROOT = Path(__file__).parents[3]
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def tiny_module(**options: object) -> ECG:
    torch.manual_seed(1)
    return ECG(CNN(num_blocks=3, layers_per_block=1, width=4), **options)  # type: ignore[arg-type]


def tiny_data(root: Path, **options: object) -> PhysioNet2017:
    return PhysioNet2017(root=str(root), num_folds=2, batch_size=4, val_batch_size=3, **options)  # type: ignore[arg-type]


def test_it_learns_regular_from_noise(tmp_path: Path) -> None:
    write_set(tmp_path)
    seed_everything(0, verbose=False)
    module = tiny_module(augmentation=Augmentation(), optimizer=lambda p: torch.optim.Adam(p, lr=0.01))
    losses: list[float] = []
    module.log = lambda name, value, **_: losses.append(float(value)) if name == "train/loss" else None  # type: ignore
    Trainer(max_epochs=12, limit_val_batches=0, **QUIET).fit(module, tiny_data(tmp_path))  # type: ignore[arg-type]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


def test_augmentation_follows_epoch_and_batch() -> None:
    module = tiny_module()
    draws = [float(torch.rand((), generator=module.batch_generator(index))) for index in (0, 1, 0)]
    assert draws[0] == draws[2] != draws[1]
    other = tiny_module(augmentation_seed=1)
    assert float(torch.rand((), generator=other.batch_generator(0))) != draws[0]


def score(root: Path, devices: int) -> float:
    """``test/f1`` of an untrained network on the second half of the set; its report is in ``root/<devices>``."""
    torch.set_num_threads(1)
    strategy = "ddp_fork" if devices > 1 else "auto"
    options = {"callbacks": ClassificationReport(), "default_root_dir": root / str(devices), **QUIET}
    trainer = Trainer(devices=devices, strategy=strategy, **options)  # type: ignore[arg-type]
    [metrics] = trainer.test(tiny_module(), tiny_data(root, fold=1), verbose=False)
    return metrics["test/f1"]


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    write_set(tmp_path, 50)  # 25 test records: the ranks have 13 and 12
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, check=True, timeout=280, capture_output=True, text=True)
    assert float(done.stdout.split()[-1]) == score(tmp_path, 1)
    alone, together = (json.loads((tmp_path / name / "report.test.json").read_text()) for name in "12")
    assert alone == together and sum(map(sum, alone["confusion"])) == 25


CONFIGS = sorted((ROOT / "configs" / "ecg").glob("*.yaml"))
TINY = ["--model.init_args.network.init_args.width=2", "--model.init_args.network.init_args.layers_per_block=1"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_one_batch_of_every_config(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_set(tmp_path, 50)
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    overlay = str(ROOT / "configs" / "ecg" / "overlays" / "no_augmentation.yaml")
    small = ["--data.init_args.splits=null", "--data.init_args.num_folds=2", "--data.init_args.batch_size=2"]
    once = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.enable_model_summary=false"]
    more = ["--config", overlay] if path.stem == "narrow_cnn" else []
    main(["fit", "--config", str(path), *more, *TINY, *small, *once])


if __name__ == "__main__":
    print(score(Path(sys.argv[1]), 2))
