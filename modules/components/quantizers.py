"""Scalar quantisers with a gradient."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.components.options import above, at_least


class Quantized(NamedTuple):
    values: Tensor
    """Level of the nearest centre; the gradient is that of the soft assignment."""
    symbols: Tensor
    """Index of that centre, int64, same shape as ``values``."""


class SoftHardQuantizer(nn.Module):
    """Nearest level forward, softmax-weighted levels backward (L3C eq. 4, 5), with fixed, evenly spaced levels.

    The levels are a buffer that is not saved: they follow from the constructor's arguments, and encoder and
    decoder must index this one table (``levels[symbols]``) rather than compute levels anew.

    Args:
        num_levels: number of levels, at least 2.
        low, high: first and last level.
        sigma: inverse temperature of the soft assignment, softmax(-sigma * distance^2).
    """

    levels: Tensor

    def __init__(self, num_levels: int, low: float = -1.0, high: float = 1.0, sigma: float = 2.0) -> None:
        super().__init__()
        at_least(2, num_levels=num_levels)
        above(0, sigma=sigma)
        self.sigma = sigma
        self._set_levels(torch.linspace(low, high, num_levels, dtype=torch.float64).float())

    def _set_levels(self, levels: Tensor) -> None:
        self.register_buffer("levels", levels, persistent=False)

    def symbols(self, x: Tensor) -> Tensor:
        """Index of the nearest level; a tie goes to the lower one."""
        upper_edges = (self.levels[1:] + self.levels[:-1]) / 2
        return torch.bucketize(x.contiguous(), upper_edges)

    def assignments(self, x: Tensor) -> Tensor:
        """Soft assignment to each level, [..., num_levels], summing to 1."""
        return torch.softmax(-self.sigma * (x.unsqueeze(-1) - self.levels).square(), dim=-1)

    def forward(self, x: Tensor) -> Quantized:
        symbols = self.symbols(x.detach())
        hard = self.levels[symbols]
        if not (torch.is_grad_enabled() and x.requires_grad):
            return Quantized(hard, symbols)
        soft = self.assignments(x) @ self.levels
        return Quantized(soft + (hard - soft).detach(), symbols)


class LearnedQuantizer(SoftHardQuantizer):
    """The same with levels that are learned with the network, through the soft branch alone (CPM sec. 3.1).

    Args:
        num_levels: number of levels, at least 2; they start uniformly at random between ``low`` and ``high``, in no
            order, and need not stay apart.
        low, high, sigma: as above; CPM has -2, 2 and 1.
    """

    def __init__(self, num_levels: int, low: float = -2.0, high: float = 2.0, sigma: float = 1.0) -> None:
        super().__init__(num_levels, low, high, sigma)

    def _set_levels(self, levels: Tensor) -> None:
        self.levels = nn.Parameter(levels[0] + (levels[-1] - levels[0]) * torch.rand_like(levels))

    def symbols(self, x: Tensor) -> Tensor:
        """Index of the nearest level; a tie goes to the lower level, whatever their order."""
        ascending, order = self.levels.detach().sort()
        upper_edges = (ascending[1:] + ascending[:-1]) / 2
        return order[torch.bucketize(x.contiguous(), upper_edges)]
