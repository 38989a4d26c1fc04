"""What is left of a chain: a checkpoint of every generation."""

from pathlib import Path
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning import LightningModule
from torch import Tensor


def is_plain(value: Any) -> bool:
    """Whether a file with it can be read by ``weights_only``: values, tensors, and lists and dicts of these."""
    if type(value) in (list, tuple):
        return all(is_plain(item) for item in value)
    if type(value) is dict:
        return all(is_plain(item) for pair in value.items() for item in pair)
    return value is None or type(value) in (bool, int, float, str, Tensor)


class GenerationFiles:
    """``generation_<g>.ckpt`` in ``folder``, for test, predict, ``load_from_checkpoint`` and as ``teacher_weights``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, generation: int) -> Path:
        return self.folder / f"generation_{generation}.ckpt"

    def found(self) -> list[int]:
        """Generations that have one."""
        numbers = (path.stem.removeprefix("generation_") for path in self.folder.glob("generation_*.ckpt"))
        return sorted(int(number) for number in numbers if number.isdigit())

    def write(self, pl_module: LightningModule, generation: int, epoch: int, student: dict[str, Tensor]) -> None:
        """The module with these weights of its student, in place of an older file at once."""
        content: dict[str, Any] = {
            "state_dict": pl_module.state_dict() | {f"student.{name}": value for name, value in student.items()},
            "epoch": epoch,
            "global_step": pl_module.global_step,
            "pytorch-lightning_version": pytorch_lightning.__version__,
            # What python code gave may be no plain value; it is to be given again to load_from_checkpoint.
            pl_module.CHECKPOINT_HYPER_PARAMS_KEY: {k: v for k, v in pl_module.hparams.items() if is_plain(v)},
        }
        if hasattr(pl_module, "_hparams_name"):
            content[pl_module.CHECKPOINT_HYPER_PARAMS_NAME] = pl_module._hparams_name
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self.path(generation).with_suffix(".tmp")
        torch.save(content, unfinished)
        unfinished.replace(self.path(generation))
