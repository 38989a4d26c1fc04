"""What the first steps of every method lose: a change of these numbers needs a reason, and its commit says which.

Tiny networks of shipped configs, batches and first weights under seed 0, three steps, in float32 on the CPU; the two
methods that solve without gradients are asked for what they measure. No data is needed. The tolerance is wider than
what kernels and their order of summation change, and narrower than what a schedule, a weight or a sign does.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from tests.shipped_models import Experiment, all_experiments, batch, build
from train import main

CONFIGS = Path(__file__).parents[1] / "configs"
EXPERIMENTS = {one.name: one for one in all_experiments()}
GOLDEN: dict[str, dict[str, list[float]]] = {
    "l3c/quickstart": {"bpsp": [11.61256, 11.60135, 11.5889]},
    "pixel_mlp/quickstart": {"bpsp": [7.49471, 7.50162, 7.49105]},
    "cpm/photos_low": {"loss": [5063.8457, 5048.15771, 5046.29443]},
    "extreme_gan/camvid_gc": {"loss": [21.32895, 20.74064, 20.50359], "discriminator": [1.02337, 0.95454, 0.88901]},
    "dplc/tiny_wasserstein": {"wasserstein": [0.05809, 0.65205, 1.40147], "rmse": [0.58461, 0.58327, 0.58155]},
    "dplc/tiny_code": {"rmse": [0.58365, 0.58202, 0.58068], "mmd": [-1.26757, -1.10786, -0.62094]},
    "compressed_domain/tiny_codec": {"loss": [6049.43262, 6047.67822, 6046.0791]},
    "born_again/cifar10_small": {"loss": [2.27529, 2.2742, 2.27327]},
    "born_again/ptb_small": {"loss": [18.41298, 17.29339, 15.87623]},
    "ecg/narrow_cnn": {"loss": [1.63953, 1.61339, 1.64544]},
    "ecg/narrow_crnn lstm True": {"loss": [1.87667, 1.82146, 1.81535]},
    "strassen/cifar10_spn full": {"loss": [2.40654, 2.28581, 2.10949]},
    "strassen/cifar10_spn quantized": {"loss": [2.39603, 2.30118, 2.16523]},
    "strassen/matmul_2x2": {"loss": [0.45813, 0.12623, 0.06004]},
}
SOLVED: dict[str, dict[str, float]] = {
    "subspace/union": {"fde": 0.02246849, "neighbors": 9.891666, "error": 0.0},
    "cone_pursuit/synthetic": {"suboptimality_nnmp": 987.36493, "suboptimality_amp": 399.34744},
}
SMALL = ["--data.init_args.repeats=1", "--model.init_args.max_iterations=10"]


class Diary(Callback):
    """The metrics of every training step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        self.steps.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def first_steps(one: Experiment) -> list[dict[str, float]]:
    torch.manual_seed(0)
    module, diary = build(one), Diary()
    torch.manual_seed(0)
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    short = {"max_epochs": 3, "limit_train_batches": 1, "limit_val_batches": 0}
    trainer = Trainer(accelerator="cpu", callbacks=[diary], **quiet, **short)  # type: ignore[arg-type]
    trainer.fit(module, DataLoader([batch(one)], batch_size=None))  # type: ignore[arg-type]
    return diary.steps


@pytest.mark.parametrize("name", GOLDEN)
def test_first_losses(name: str) -> None:
    steps = first_steps(EXPERIMENTS[name])
    found = {metric: [step[f"train/{metric}"] for step in steps] for metric in GOLDEN[name]}
    assert found == {metric: pytest.approx(values, rel=2e-3, abs=2e-4) for metric, values in GOLDEN[name].items()}


@pytest.mark.parametrize("name", SOLVED)
def test_what_solvers_measure(name: str) -> None:
    main(["fit", "--config", str(CONFIGS / f"{name}.yaml"), "--run.dir=run", *(SMALL if "cone" in name else [])])
    metrics = json.loads(Path("run/000/result.json").read_text())["fit"]["metrics"]
    assert {key: metrics[f"train/{key}"] for key in SOLVED[name]} == pytest.approx(SOLVED[name], rel=2e-3, abs=1e-6)


def test_every_method_has_one() -> None:
    methods = {path.parent.name for path in CONFIGS.glob("*/*.yaml")} - {"data"}
    assert {name.split("/")[0] for name in [*GOLDEN, *SOLVED]} == methods
    assert all(GOLDEN.values()) and all(SOLVED.values())
