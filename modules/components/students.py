"""Networks that are made again and again, each taught by the one before: what callbacks.generations works on."""

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

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
