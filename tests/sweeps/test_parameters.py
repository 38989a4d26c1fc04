"""Every number that a sweep varies acts: another value changes a logged rate, a loss or another metric."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import savemat

import train
from callbacks.reports.codec_report import CodecReport
from callbacks.reports.rate_distortion import RateDistortion
from cli.sweeps.distributions import draw, flatten
from cli.sweeps.processes import command_of
from datamodules.cifar import CIFAR10_CLASSES
from modules.born_again.resnet import WideResNet
from tests.datamodules.test_cityscapes import write_scene
from tests.modules.ecg.wfdb_files import write_set

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("sweeps/*.yaml"))
QUICK = [
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1",
]


def photos(root: Path) -> list[str]:
    small = ["--data.init_args.crop_size=16", "--data.init_args.batch_size=2", "--data.init_args.crops_per_epoch=8"]
    return [*small, "--trainer.max_steps=4", "--trainer.limit_val_batches=1"]


def cifar(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in CIFAR10_CLASSES:
            folder = root / "cifar10_jpeg" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / "0000.jpg")
    return ["--data.init_args.batch_size=5"]


def ecg(root: Path) -> list[str]:
    write_set(root, 40)
    small = ["--data.init_args.splits=null", "--data.init_args.batch_size=8"]
    return [*small, "--model.init_args.network.init_args.width=4", "--trainer.max_steps=2"]


def coil(root: Path) -> list[str]:
    points = np.random.default_rng(0).integers(0, 256, (80, 30), dtype=np.uint8)
    savemat(root / "coil20.mat", {"X": points, "Y": np.repeat(np.arange(20), 4)})
    return []


def cones(root: Path) -> list[str]:
    return ["--data.init_args.repeats=1", "--model.init_args.max_iterations=5"]


def thumbnails(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        folder = root / "tiny_imagenet" / split / "n01"
        folder.mkdir(parents=True)
        for number in range(8):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.JPEG")
    narrow = ["--model.init_args.network.init_args.width=2", "--model.init_args.adversary.init_args.width=2"]
    data = ["--data.init_args.batch_size=4", "--data.init_args.classes=null"]
    return [*narrow, *data, "--trainer.max_epochs=2", "--trainer.check_val_every_n_epoch=1"]


def scenes(root: Path) -> list[str]:
    for split in ("train", "val"):
        for number in range(2):
            write_scene(root / "camvid_cityscapes_layout", f"ulm_{number:06d}_000019", split)
    narrow = ["--model.init_args.network.init_args.width=2", "--model.init_args.network.init_args.num_blocks=1"]
    critic = [f"--model.init_args.discriminator.init_args.{size}" for size in ("width=4", "num_scales=2")]
    once = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    return [*narrow, *critic, *once, "--data.init_args.size=[32,64]", "--data.init_args.crop=[32,32]"]


def born_again(root: Path) -> list[str]:
    teacher, file = WideResNet(depth=10, width=1, base_channels=2), root / "generation_0.ckpt"
    torch.save({"state_dict": {f"student.{name}": value for name, value in teacher.state_dict().items()}}, file)
    narrow = [f"--model.init_args.{network}.init_args.base_channels=2" for network in ("student", "teacher")]
    return [*narrow, f"--model.init_args.teacher_weights={file}", "--trainer.max_epochs=1"]


def crops(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        folder = root / "photos" / split
        folder.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (32, 40, 3), np.uint8)).save(folder / "0.png")
    sizes = ["--data.init_args.crop_size=24", "--data.init_args.val_crop_size=32", "--data.init_args.batch_size=2"]
    return [*sizes, "--trainer.max_steps=3", "--trainer.val_check_interval=3"]


def cpm(root: Path) -> list[str]:
    return [f"--model.init_args.network.init_args.{size}" for size in ("width=4", "groups=1", "units=1", "features=4")]


def strassen(root: Path) -> list[str]:
    return ["--trainer.limit_train_batches=1"]


def products(root: Path) -> list[str]:
    return ["--model.init_args.network.init_args.starts=2"]


def classes(root: Path) -> list[str]:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            folder = root / "tiny_imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
    narrow = [f"--model.init_args.network.init_args.{size}" for size in ("width=4", "channels=4", "units=1")]
    return [*narrow, "--data.init_args.batch_size=4", "--trainer.max_steps=4"]


TINY: dict[str, Callable[[Path], list[str]]] = {
    "datamodules.embedded_photos.EmbeddedPhotos": photos,
    "datamodules.open_images.OpenImages": crops,
    "datamodules.cifar.CIFAR10Folder": cifar,
    "datamodules.physionet2017.PhysioNet2017": ecg,
    "datamodules.labelled_images.LabelledImages": coil,
    "datamodules.cone_problems.ConeProblems": cones,
    "datamodules.imagenet.ImageNet": classes,
    "datamodules.matrix_products.MatrixProducts": products,
    "datamodules.thumbnails.ImageFolder": thumbnails,
    "datamodules.cityscapes.Cityscapes": scenes,
}
"""Writes a set of a few items in its layout below the root and gives the options that make the data small."""

SMALL_MODELS = {"born_again": born_again, "cpm": cpm, "strassen": strassen, "strassen_short": strassen}
"""The same for what else the experiment of a sweep needs."""


def is_number(value: Any) -> bool:
    """Numbers, and lists and dicts that hold some."""
    if isinstance(value, dict):
        return any(is_number(item) for item in value.values())
    if isinstance(value, list):
        return any(is_number(item) for item in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def two_values(spec: dict[str, Any]) -> list[Any]:
    """The first two different numbers of a parameter; none for a parameter of words."""
    rng = random.Random(0)
    values = spec["values"] if "values" in spec else [draw(spec, rng) for _ in range(9)]
    different = [value for k, value in enumerate(values) if is_number(value) and value not in values[:k]]
    return different[:2]


def cases() -> list[Any]:
    found = []
    for file in FILES:
        specs = flatten(yaml.safe_load(file.read_text())["parameters"])
        numbers = [name for name, spec in specs.items() if len(two_values(spec)) == 2]
        found += [pytest.param(file, name, id=f"{file.stem}-{name}") for name in numbers]
    return found


def product(file: Path, parameters: dict[str, Any], options: list[str], where: str) -> str:
    """Everything that the trial logged."""
    json_file = Path(f"{where}.json").resolve()
    json_file.write_text(json.dumps(parameters))
    words = command_of(yaml.safe_load(file.read_text()), parameters, json_file)[3:]
    words = [str(ROOT / word) if word.startswith("configs/") else word for word in words]
    small = [
        option for option in [*QUICK, *options] if not option.startswith(tuple(f"--{name}=" for name in parameters))
    ]
    train.main([*words, *small, f"--run.dir={where}"])
    return (Path(where) / "000" / "metrics.csv").read_text()


def data_of(file: Path, capsys: pytest.CaptureFixture) -> str:
    content = yaml.safe_load(file.read_text())
    words = [word for word in content["command"] if word.startswith("configs/")]
    options = [option for word in words for option in ("--config", str(ROOT / word))]
    with pytest.raises(SystemExit):
        train.main(["fit", *options, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)["data"]["class_path"]


@pytest.mark.parametrize(("file", "name"), cases())
def test_every_number_acts(
    file: Path, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PARSIMONY_DATA", str(tmp_path))
    for report in (CodecReport, RateDistortion):  # slow, and no part of what is logged
        monkeypatch.setattr(report, "on_fit_end", lambda *_: None)
    data = data_of(file, capsys)
    assert data in TINY, f"{file.name} trains on {data}: give TINY a few items of it"
    options = TINY[data](tmp_path) + SMALL_MODELS.get(file.stem, lambda _: [])(tmp_path)
    specs = flatten(yaml.safe_load(file.read_text())["parameters"])
    others = {other: draw(spec, random.Random(0)) for other, spec in specs.items() if other != name}
    one, two = (
        product(file, others | {name: value}, options, f"trial{number}")
        for number, value in enumerate(two_values(specs[name]))
    )
    assert one != two
