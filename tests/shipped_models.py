"""The model of every shipped config, made tiny, and a batch with every key that a method may ask for.

Found from configs/ by itself: a new method is covered as soon as it has a config. A network that is not in ``TINY`` is
built as the config has it.
"""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor

from modules.components.frozen import Frozen

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
TINY: dict[str, dict[str, Any]] = {
    "modules.l3c.nets.L3CNet": {"channels": 4, "num_blocks": 1},
    "modules.l3c.nets.RGBNet": {"channels": 4, "num_blocks": 1},
    "modules.l3c.nets.RGBSharedNet": {"channels": 4, "num_blocks": 1},
    "modules.strassen.nets.ResNet20": {"width": 4, "blocks": 1},
    "modules.strassen.nets.SPNResNet20": {"width": 4, "blocks": 1},
    "modules.strassen.nets.SPNVGG7": {"width": 4},
    "modules.strassen.nets.SPNResNet18": {"ratio": 0.05},  # it has no width
    "modules.strassen.starts.BilinearStarts": {"starts": 2, "n": 2, "m": 2, "p": 2},
    "modules.pixel_mlp.nets.PixelMLP": {"hidden": 4},
    "modules.cpm.nets.CPMNet": {"channels": 4, "width": 4, "groups": 1, "units": 1, "features": 4},
    "modules.extreme_gan.nets.GCNet": {"width": 2, "num_blocks": 1},
    "modules.extreme_gan.nets.SCNet": {"width": 2, "num_blocks": 1},
    "modules.extreme_gan.nets.MultiscaleDiscriminator": {"width": 4, "num_scales": 2},
    "modules.dplc.nets.GenerativeNet": {"width": 4, "latent": 16},
    "modules.dplc.nets.CompressionNet": {"width": 4, "latent": 16},
    "modules.compressed_domain.nets.CompressionNet": {"width": 4, "units": 1},
    "modules.compressed_domain.nets.CodeResNet": {"width": 2, "depth": 39},
    "modules.compressed_domain.nets.CodeResNetD": {"width": 2, "depth": 39},
    "modules.compressed_domain.nets.RGBResNet": {"width": 2},
    "modules.compressed_domain.nets.RGBResNetD": {"width": 2},
    "modules.ecg.nets.CNN": {"width": 2, "layers_per_block": 1},
    "modules.ecg.nets.CRNN": {"width": 2, "layers_per_block": 1, "units": 3, "lstm_layers": 2},
    "modules.born_again.resnet.WideResNet": {"depth": 10, "width": 1},
    "modules.born_again.resnet.ResNetStudent": {"units": 1, "ratio": 0.02, "stem_channels": 4},
    "modules.born_again.densenet.DenseNet": {"units": 1, "growth": 4},
    "modules.components.language.LSTMLanguageModel": {"units": 4},
    "modules.components.language.CNNLSTMLanguageModel": {"units": 4, "filters": [2, 2]},
}
ON_THE_CPU = {
    "modules.subspace": "gathers in its steps, then float64 pursuits and scipy's eigensolver",
    "modules.cone_pursuit": "gathers in its steps, then float64 solvers with certificates, some of them scipy's",
}
"""Methods that solve on the host by design, with the reason; their configs say ``accelerator: cpu``."""
WITHOUT_EFFECT = ("optimizer", "lr_scheduler")
"""On what a step computes; arguments of these names do not make another model."""
IMAGE_SIZES = {"cifar": 32}
"""By what a datamodule's name contains."""


class Experiment(NamedTuple):
    name: str
    """Such as ``ecg/narrow_cnn``, with an overlay ``born_again/cifar10_small+dkpp``."""
    model: dict[str, Any]
    """``class_path`` and ``init_args``."""
    data: str
    """The datamodule's path."""
    accelerator: str
    phase: dict[str, Any]
    """What a phase of training sets on the network, see callbacks/training_phases.py."""

    @property
    def method(self) -> str:
        """Such as ``modules.ecg``."""
        return ".".join(self.model["class_path"].split(".")[:2])


def changes_model(overlay: Path) -> bool:
    return re.search(r"^model:", overlay.read_text(), re.MULTILINE) is not None


def bases_of(overlay: Path) -> list[Path]:
    """The configs that an overlay goes with, by the command in its comment."""
    name = re.escape(overlay.relative_to(ROOT).as_posix())
    commands = re.sub(r"\s*\\\n#\s*", " ", overlay.read_text())  # a long one goes on in the next line
    found = re.search(rf"((?:--config \S+ )+)--config {name}", commands)
    assert found, f"{overlay} does not say in a comment which --config it goes with"
    return [ROOT / path for path in found[1].replace("--config", "").split()]


def merged(files: list[Path]) -> DictConfig:
    """The files over the defaults, as the command line puts them together; ``data`` as far as its class."""
    whole = OmegaConf.load(CONFIGS / "trainer.yaml")
    for file in files:
        part = OmegaConf.load(file)
        data = part.get("data")
        if isinstance(data, str):
            part.data = {"class_path": OmegaConf.load(file.parent / data).class_path}
        whole = OmegaConf.merge(whole, part)
    return whole  # type: ignore[return-value]


def tiny(value: Any) -> Any:
    """The same with the networks of ``TINY`` at their smallest."""
    if isinstance(value, list):
        return [tiny(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    value = {key: tiny(entry) for key, entry in value.items()}
    if (small := TINY.get(value.get("class_path", ""))) is not None:
        value["init_args"] = {**value.get("init_args", {}), **small}
    return value


def phases_of(whole: DictConfig) -> list[dict[str, Any]]:
    """What each phase of training sets on the network; of one phase that sets nothing where there are none."""
    callbacks = whole.trainer.get("callbacks+", [])
    phases = next((c.init_args.phases for c in callbacks if "phases" in c.get("init_args", {})), [{}])
    return [{key: phase[key] for key in ("head", "train_features", "stage") if key in phase} for phase in phases]


def experiments(files: list[Path]) -> list[Experiment]:
    """One for each phase of training."""
    whole = merged(files)
    model = tiny(OmegaConf.to_container(whole.model, resolve=True))
    if "teacher" in model.get("init_args", {}):
        model["init_args"].setdefault("teacher_weights", "is read at the start of a fit")
    name = "+".join([files[0].relative_to(CONFIGS).with_suffix("").as_posix(), *(file.stem for file in files[1:])])
    accelerator = whole.trainer.get("accelerator", "auto")
    return [
        Experiment(" ".join([name, *map(str, phase.values())]), model, whole.data.class_path, accelerator, phase)
        for phase in phases_of(whole)
    ]


def all_experiments() -> list[Experiment]:
    """One for every shipped config that has a model, and for every overlay that changes one."""
    files = sorted(path for path in CONFIGS.glob("*/*.yaml") if path.parent.name != "data")
    overlays = sorted(CONFIGS.glob("*/overlays/*.yaml"))
    wanted = [[path] for path in files] + [[*bases_of(path), path] for path in overlays if changes_model(path)]
    return [one for paths in wanted for one in experiments(paths)]


def different(every: list[Experiment]) -> list[Experiment]:
    """Without those that, made tiny, compute the same steps as one before."""
    seen: dict[str, Experiment] = {}
    for one in every:
        options = {k: v for k, v in one.model.get("init_args", {}).items() if not k.endswith(WITHOUT_EFFECT)}
        seen.setdefault(json.dumps([one.model["class_path"], options, one.phase], sort_keys=True), one)
    return list(seen.values())


def build(one: Experiment) -> LightningModule:
    """The module on the CPU; where there can be a teacher, with one, as in a later generation."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    module = parser.instantiate_classes(parser.parse_object({"model": one.model})).model
    learner = trained_network(one)
    if getattr(module, "teacher", module) is None:
        module.teacher = Frozen(getattr(module, learner))
    if hasattr(module, "teacher_weights"):
        module.teacher_weights = None  # random ones will do
    if isinstance(getattr(module, "start", None), str):
        module.start = None
    for name, value in one.phase.items():
        setattr(getattr(module, learner), name, value)
    return module


def trained_network(one: Experiment) -> str:
    """The attribute of the module that holds the network in training."""
    return next((name for name in ("student", "network") if name in one.model["init_args"]), "network")


def batch(one: Experiment) -> dict[str, Any]:
    """Two items with the keys of DESIGN.md, on the CPU; values that any vocabulary and number of classes has."""
    size = next((pixels for name, pixels in IMAGE_SIZES.items() if name in one.data.lower()), 64)
    draws = torch.Generator().manual_seed(0)

    def integers(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=draws)

    length = torch.tensor([3000, 2500])
    signal = 100 * torch.randn(2, 3000, generator=draws)
    return {
        "image": integers(256, 2, 3, size, size).to(torch.uint8),
        "label": integers(2, 2),
        "mask": integers(2, 2, size, size),
        "instance": integers(2, 2, size, size),
        "signal": signal.masked_fill(torch.arange(3000) >= length.unsqueeze(1), 0.0),
        "length": length,
        "tokens": integers(10, 7, 2),
        "targets": integers(10, 7, 2),
        "chars": integers(10, 7, 2, 9),
        "reset": True,
        "points": torch.randn(2, 8, generator=draws),
        "left": torch.rand(4, 2, 2, generator=draws, dtype=torch.float64),
        "right": torch.rand(4, 2, 2, generator=draws, dtype=torch.float64),
        "index": torch.arange(2),
        "name": ["a", "b"],
    }


def on_a_gpu() -> list[Experiment]:
    return [one for one in different(all_experiments()) if one.method not in ON_THE_CPU]
