"""Networks that are made again and again, each taught by the one before: what callbacks.generations works on."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from modules.components.checkpoint_file import read_checkpoint
from modules.components.frozen import Frozen

Weights = dict[str, Tensor]


class BornAgain(Protocol):
    """What ``Generations`` needs of a LightningModule."""

    make_student: Callable[[], nn.Module]
    """A network with first weights of its own, drawn from torch's global random numbers."""
    student: nn.Module
    """Made by it; trained."""
    teacher: Frozen | None
    """Of the student. None learns from labels."""


def born_again(module: nn.Module) -> BornAgain:
    missing = [name for name in BornAgain.__annotations__ if not hasattr(module, name)]
    if missing:
        raise ValueError(f"Generations cannot train a {type(module).__name__}: it has no {', '.join(missing)}")
    return cast(BornAgain, module)


def start_anew(chain: BornAgain, seed: int) -> None:
    """Put the weights of a new student into the parameters that are there, which optimizers and DDP know.

    They are drawn on the CPU, so a seed gives the same ones on every device and rank.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        fresh = chain.make_student()
    chain.student.load_state_dict(fresh.state_dict())


def on_cpu(network: nn.Module) -> Weights:
    """A copy that training does not change."""
    return {name: value.detach().to("cpu", copy=True) for name, value in network.state_dict().items()}


def load_student(network: Frozen, checkpoint: Path | str) -> Frozen:
    """Put the ``student`` of a checkpoint into ``network``.

    Raises:
        ValueError: if it has none, or another network.
        FileNotFoundError, CheckpointError: as ``read_checkpoint``.
    """
    state = read_checkpoint(checkpoint).get("state_dict", {})
    weights = {name.removeprefix("student."): v for name, v in state.items() if name.startswith("student.")}
    try:
        network.network.load_state_dict(weights)
    except RuntimeError as error:
        kind = type(network.network).__name__
        raise ValueError(f"{checkpoint} holds no student that is this {kind}: {error}") from error
    return network
