"""Scalar quantisers with a gradient."""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Quantized(NamedTuple):
    values: Tensor
    """Level of the nearest centre; the gradient is that of the soft assignment."""
    symbols: Tensor
    """Index of that centre, int64, same shape as ``values``."""


class SoftHardQuantizer(nn.Module):
    """Nearest of fixed, evenly spaced levels forward, softmax-weighted levels backward (L3C eq. 4, 5).

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
        if num_levels < 2:
            raise ValueError(f"a quantiser needs at least 2 levels, not {num_levels}")
        self.sigma = sigma
        levels = torch.linspace(low, high, num_levels, dtype=torch.float64).float()
        self.register_buffer("levels", levels, persistent=False)

    def symbols(self, x: Tensor) -> Tensor:
        """Index of the nearest level; a tie goes to the lower one."""
        upper_edges = (self.levels[1:] + self.levels[:-1]) / 2
        return torch.bucketize(x.contiguous(), upper_edges)

    def forward(self, x: Tensor) -> Quantized:
        symbols = self.symbols(x.detach())
        hard = self.levels[symbols]
        if not (torch.is_grad_enabled() and x.requires_grad):
            return Quantized(hard, symbols)
        distance = (x.unsqueeze(-1) - self.levels).square()
        soft = torch.softmax(-self.sigma * distance, dim=-1) @ self.levels
        return Quantized(soft + (hard - soft).detach(), symbols)
