"""A network that is asked and never trained."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Frozen:
    """A copy of a network in evaluation mode that computes no gradients.

    It is no ``nn.Module``: as an attribute of a LightningModule it is in neither ``parameters()`` nor ``state_dict()``
    and ``train()`` does not reach it, so DistributedDataParallel, optimizers and checkpoints know nothing of it.
    Neither does ``to()``; a network is moved with ``Frozen.to``.

    Args:
        network: copied with its weights, device and memory format.
        weights: put into the copy in place of the network's own.
    """

    def __init__(self, network: nn.Module, weights: dict[str, Tensor] | None = None) -> None:
        self.network = copy.deepcopy(network)
        if weights is not None:
            self.network.load_state_dict(weights)
        self.network.eval().requires_grad_(False)

    def __call__(self, *args: Any) -> Any:
        with torch.no_grad():  # not inference mode: a loss with gradients takes the result
            return self.network(*args)

    def to(self, device: torch.device) -> "Frozen":
        self.network.to(device)
        return self
