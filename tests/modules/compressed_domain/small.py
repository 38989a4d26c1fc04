"""A set of a few images in each layout, and runs of the shipped configs made small."""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from modules.compressed_domain.nets import CompressionNet
from tests.datamodules.test_cityscapes import write_scene
from train import main

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "compressed_domain"
QUICK = (
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_model_summary=false",
)
CODEC = "--model.init_args.{}.init_args."


@functools.cache
def _settled(seed: int, sizes: tuple[int, ...]) -> CompressionNet:
    torch.manual_seed(seed)
    network = CompressionNet(*sizes)
    coarse = 255 * torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for _ in range(40):
            network(torch.nn.functional.interpolate(coarse, scale_factor=4, mode="bilinear"))
    return network.eval()


def settled(seed: int, channels: int, num_centers: int, width: int, units: int) -> CompressionNet:
    """A codec in eval mode, its norms measured on smooth images, so that codes have several symbols."""
    return copy.deepcopy(_settled(seed, (channels, num_centers, width, units)))


def write_classes(root: Path) -> None:
    """Two classes of eight smooth images in the layout of Tiny ImageNet."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("n01", "n02"):
            folder = root / "tiny_imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(8):
                coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.png")


def write_scenes(root: Path) -> None:
    for split in ("train", "val"):
        for number in range(4):
            write_scene(root / "camvid_cityscapes_layout", f"ulm_{number:06d}_000019", split)


def codec_options(name: str) -> list[str]:
    return [f"--model.init_args.{name}.init_args.{size}" for size in ("width=4", "channels=4", "units=1")]


def network_options(name: str, **sizes: Any) -> list[str]:
    return [f"--model.init_args.{name}.init_args.{size}={value}" for size, value in ({"width": 2} | sizes).items()]


def fit(config: str, *options: str, folder: str = "runs/x", steps: int = 2) -> Path:
    """One run of a shipped config; its folder."""
    batch = [] if "batch_size" in " ".join(options) else ["--data.init_args.batch_size=4"]
    words = [*QUICK, f"--run.dir={folder}", f"--trainer.max_steps={steps}", *batch, *options]
    main(["fit", "--config", str(CONFIGS / f"{config}.yaml"), *words])
    return sorted(path for path in Path(folder).iterdir() if path.name.isdigit())[-1]


def last(run: Path) -> str:
    return str((run / "checkpoints" / "last.ckpt").absolute())


def content(run: Path) -> dict[str, Any]:
    return torch.load(last(run), weights_only=True)
