"""Statistics of batch norms, measured anew so that a network may decode one image at a time."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")


def norms_of(network: nn.Module) -> list[_BatchNorm]:
    return [module for module in network.modules() if isinstance(module, _BatchNorm)]


def follow_batches(network: nn.Module, follows: bool) -> None:
    """Whether the batch norms of ``network`` take the statistics of the batch at hand or those that were measured."""
    for norm in norms_of(network):
        norm.train(follows)


@torch.no_grad()
def reestimate(network: nn.Module, forward: Callable[[T], object], inputs: Iterable[T]) -> None:
    """Set the running statistics of ``network`` to their plain mean over ``inputs``, and over all ranks.

    Training leaves a moving average of whatever passed through, which for a generator are images of several latent
    distributions. Modes and momenta are as before afterwards.

    Args:
        network: its batch norms are measured, nothing else changes.
        forward: passes one input through it.
        inputs: batches; every rank must have as many.
    """
    norms = norms_of(network)
    before = [(norm.training, norm.momentum) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
        norm.momentum = None  # a cumulative mean
    for one in inputs:
        forward(one)
    for norm, (training, momentum) in zip(norms, before, strict=True):
        norm.train(training)
        norm.momentum = momentum
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for statistic in (norm.running_mean, norm.running_var):
                assert statistic is not None
                torch.distributed.all_reduce(statistic)
                statistic /= torch.distributed.get_world_size()
