"""Checkpoints from anywhere: read without pickle, or refused in one line."""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch

VERSION, TRAINING_STATE = "pytorch-lightning_version", ("optimizer_states", "lr_schedulers")

SHARDED = (".metadata", "meta.pt", "latest", "checkpoint")
"""One of these is in the folder that Lightning's FSDP or DeepSpeed makes of a checkpoint."""


class CheckpointError(ValueError):
    """A file that is no checkpoint of this project, or not the one that is needed."""


def read_checkpoint(path: Path | str, device: torch.device | str = "cpu", mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint or weights file; with ``mmap`` its tensors stay on disk until they are used.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, would run code, or holds no dictionary.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint {path}")
    try:
        can_map = mmap and zipfile.is_zipfile(path)  # not what torch wrote before 1.6
        content = torch.load(path, map_location=device, weights_only=True, mmap=can_map)
    except Exception as error:  # torch.load raises whatever the damage provokes
        reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
        raise CheckpointError(f"{path} is damaged or no checkpoint that can be read safely: {reason}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(content).__name__}")
    return content


def entry(checkpoint: dict[str, Any], name: str, owner: object) -> Any:
    """What ``owner`` put into a checkpoint under ``name``.

    Raises:
        CheckpointError: if it is another module's checkpoint.
    """
    if name not in checkpoint:
        kind = type(owner).__name__
        raise CheckpointError(f"the checkpoint is not one of {kind}, it has no {name}: give its own config")
    return checkpoint[name]


def require(path: Path | str, training: bool) -> dict[str, Any]:
    """The content, after seeing, before a network is built, that a run can load it, and with ``training`` that fit can
    go on from it.

    Raises:
        FileNotFoundError, CheckpointError: as ``read_checkpoint``; the latter also for a file that is not Lightning's,
            or that holds nothing but weights where a training is to go on.
    """
    content = read_checkpoint(path, mmap=True)
    loops = content.get("loops")
    if VERSION not in content or not isinstance(content.get("state_dict"), dict):
        raise CheckpointError(f"{path} is no checkpoint of a run: give one that train.py wrote")
    if training and not (isinstance(loops, dict) and "fit_loop" in loops and all(k in content for k in TRAINING_STATE)):
        raise CheckpointError(f"{path} holds weights only: test and predict take it, but fit goes on from a last.ckpt")
    return content


def require_sharded(folder: Path) -> None:
    """Raise a CheckpointError for a folder that is no checkpoint."""
    if not any((folder / name).exists() for name in SHARDED):
        raise CheckpointError(f"{folder} is a folder and no sharded checkpoint: name the file in it")
