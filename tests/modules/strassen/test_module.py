"""The classifier: loss, distillation, errors, phases that resume, two processes, the table of costs."""

import csv
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.nn.functional import cross_entropy

from datamodules.cifar import CIFAR10_CLASSES
from modules.components.frozen import Frozen
from modules.strassen.losses import distillation
from modules.strassen.module import StrassenClassifier, missed
from modules.strassen.nets import ResNet20, SPNResNet18, SPNResNet20
from train import main

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "strassen"


def test_distillation_by_hand() -> None:
    s, t, label = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 0.0]]), torch.tensor([1])
    log_s = np.log(np.exp([0.5, -0.5]) / np.exp([0.5, -0.5]).sum())
    p = np.exp([0.25, 0.0]) / np.exp([0.25, 0.0]).sum()
    hard = -np.log(np.exp(-1) / (np.exp(1) + np.exp(-1)))
    expected = 0.75 * hard + 0.25 * 4 * -(p * log_s).sum()
    assert float(distillation(s, t, label, 0.25, 2.0)) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(distillation(s, t, label, 0.0, 3.0), cross_entropy(s, label))


def test_missed_labels() -> None:
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.3, 0.2, 0.1]])
    assert missed(logits, torch.tensor([2, 0])).tolist() == [100, 0]
    assert missed(logits, torch.tensor([2, 2]), 2).tolist() == [0, 100]
    assert missed(logits, torch.tensor([0, 2]), 5).tolist() == [0, 0]


def quiet(**options: Any) -> StrassenClassifier:
    torch.manual_seed(0)
    module = StrassenClassifier(SPNResNet20(width=4, blocks=1), **options).eval()
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    return module


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return {"image": image, "label": torch.randint(10, (8,), generator=generator)}


def test_other_classes_are_told() -> None:
    wrong = batch() | {"label": torch.full((8,), 10)}
    module = quiet()
    for step in (module.training_step, module.validation_step):
        with pytest.raises(ValueError, match="the data have a class 10, the network has 10 classes"):
            step(wrong, 0)
    module.teacher = Frozen(ResNet20(num_classes=7, width=4, blocks=1))
    with pytest.raises(ValueError, match="the teacher has 7 classes, the network 10"):
        module.training_step(batch(), 0)


def test_labels_alone_and_with_a_teacher() -> None:
    module, data = quiet(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0)), batch()
    x = module.normalized(data["image"])
    torch.testing.assert_close(x[:, 1], data["image"][:, 1] / 255 - 0.25)
    logits = module(data["image"])
    torch.testing.assert_close(module.training_step(data, 0), cross_entropy(logits, data["label"]))
    teacher = ResNet20(width=4, blocks=1).eval()
    module.teacher, module.lmbda, module.temperature = Frozen(teacher), 0.3, 2.0
    expected = distillation(logits, teacher(x), data["label"], 0.3, 2.0)
    torch.testing.assert_close(module.training_step(data, 0), expected)
    torch.testing.assert_close(module.predict_step(data, 0).sum(1), torch.ones(8))


def test_mistakes_with_a_teacher_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs both"):
        quiet(teacher=ResNet20())
    path = str(tmp_path / "t.ckpt")
    for options in ({"lmbda": 1.5}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="lmbda must be in"):
            quiet(teacher=ResNet20(), teacher_weights=path, **options)
    for options in ({"lmbda": 0.3}, {"temperature": 2.0}):
        with pytest.raises(ValueError, match="act with a teacher only"):
            quiet(**options)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        quiet(teacher=ResNet20(), teacher_weights=path).setup("fit")
    weights = {f"network.{name}": value for name, value in ResNet20(width=4).state_dict().items()}
    torch.save({"state_dict": weights}, path)
    with pytest.raises(ValueError, match="holds no network that is this ResNet20"):
        quiet(teacher=ResNet20(), teacher_weights=path).setup("fit")
    module = quiet(teacher=ResNet20(width=4), teacher_weights=path)
    module.setup("fit")
    assert torch.equal(module.teacher.network.stem.weight, weights["network.stem.weight"])  # type: ignore[union-attr]


def test_a_training_step_of_resnet18_on_images_of_64_pixels() -> None:
    torch.manual_seed(0)
    module = StrassenClassifier(SPNResNet18(200, ratio=2.0), optimizer=partial(torch.optim.SGD, lr=0.05))
    module.log = lambda *args, **kwargs: None  # type: ignore[method-assign,assignment]
    data = {"image": torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8), "label": torch.tensor([0, 199])}
    optimizer = module.configure_optimizers()
    for stage in ("full", "quantized", "frozen"):
        module.network.stage = stage
        loss = module.training_step(data, 0)
        optimizer.zero_grad()
        loss.backward()
        before = {name: value.detach().clone() for name, value in module.network.named_parameters()}
        optimizer.step()
        changed = {name for name, value in module.network.named_parameters() if not torch.equal(value, before[name])}
        assert "network.network.fc.weight" in changed and "network.network.layer1.0.conv1.inner.scale" in changed
        assert ("network.network.layer4.1.conv2.first" in changed) == (stage != "frozen")
        assert loss.isfinite()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Re-compressed CIFAR-10 with four images a class."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CIFAR10_CLASSES:
            folder = tmp_path / "data" / "cifar10_jpeg" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{i}.png")
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path / "data"))
    return tmp_path


SMALL = (
    "--model.init_args.network.init_args.width=4",
    "--model.init_args.network.init_args.blocks=1",
    "--data.init_args.batch_size=8",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
)


def fit(config: str, *options: str) -> Path:
    main(["fit", "--config", str(CONFIGS / config), "--run.dir", "runs/x", *SMALL, *options])
    return sorted(Path("runs/x").iterdir())[-1]


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_three_phases_end_with_a_ternary_network_and_resume_in_each(data: Path) -> None:
    whole = fit("cifar10_spn.yaml")
    stopped: tuple[str, ...] = ()
    for epochs in (1, 2, 3, 4):  # within a phase and between two
        part = fit("cifar10_spn.yaml", f"--trainer.max_epochs={epochs}", *stopped)
        stopped = ("--ckpt_path", str(part / "checkpoints" / "last.ckpt"))
    expected = last(whole)["state_dict"]
    resumed = last(part)["state_dict"]
    for name, value in expected.items():
        assert torch.equal(value, resumed[name]), name
    final = torch.load(whole / "checkpoints" / "phase2.ckpt", weights_only=True)["state_dict"]
    assert int(final["network._extra_state"]) == 2
    ternary = [value for name, value in final.items() if name.endswith((".first", ".second"))]
    assert len(ternary) == 18 and all(len(value.unique()) <= 3 for value in ternary)
    rows = list(csv.DictReader((whole / "costs.csv").open()))
    assert rows[-1]["layer"] == "total" and float(rows[-1]["multiplications"]) > 0
    assert "val/error" in json.loads((whole / "result.json").read_text())["fit"]["metrics"]


def test_a_teacher_of_an_earlier_run(data: Path) -> None:
    teacher = fit("cifar10_full.yaml", "--trainer.max_epochs=1")
    options = [f"--model.init_args.teacher.init_args.{name}" for name in ("width=4", "blocks=1")]
    options.append(f"--model.init_args.teacher_weights={teacher / 'checkpoints' / 'best.ckpt'}")
    overlay = ("--config", str(CONFIGS / "overlays" / "cifar10_teacher.yaml"))
    run = fit("cifar10_spn.yaml", *overlay, *options, "--trainer.limit_train_batches=1")
    assert (run / "result.json").is_file()


def test_two_processes(data: Path) -> None:
    """Through all three stages; frozen matrices take no gradients."""
    command = [sys.executable, str(ROOT / "train.py"), "fit", "--config", str(CONFIGS / "cifar10_spn.yaml"), *SMALL]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp_find_unused_parameters_true", "--run.dir=runs/ddp"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    final = torch.load("runs/ddp/000/checkpoints/phase2.ckpt", weights_only=True)["state_dict"]
    assert int(final["network._extra_state"]) == 2
    assert yaml.safe_load(Path("runs/ddp/000/result.json").read_text())["fit"]["steps"] == 4 * 2


@pytest.mark.parametrize(
    "config",
    ["imagenet_resnet18", "tiny_imagenet_resnet18", "tiny_imagenet_small", "cifar10_vgg7", "cifar10_resnet20"],
)
def test_configs_of_full_size_are_read(config: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), "--print_config"])
    assert not stop.value.code
    found = yaml.safe_load(capsys.readouterr().out)
    [phases] = [c for c in found["trainer"]["callbacks"] if c["class_path"].endswith("TrainingPhases")]
    assert sum(phase["epochs"] for phase in phases["init_args"]["phases"]) == found["trainer"]["max_epochs"]
