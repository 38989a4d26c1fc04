"""Code length of pixels under a mixture of discretised logistics."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from modules.pixel_mlp.context import Context
from modules.pixel_mlp.nets import Mixture, PixelMLP

TOTAL, NUM_SYMBOLS = 65536, 256
"""The entropy coder gives each of 256 grey levels one part in 65536, and shares out the rest by the mixture."""


def mixture_bits(mixture: Mixture, target: Tensor) -> Tensor:
    """Bits [M] of grey levels ``target`` [M]; 0 and 255 own the tails. In float32.

    A bin's mass S(u) - S(l) is computed on the side of the logistic function where it does not cancel.
    """
    inverse = torch.exp(-mixture.log_scales.float())
    upper = torch.where(target > 254.5, math.inf, (target + 0.5 - mixture.means) * inverse)
    lower = torch.where(target < 0.5, -math.inf, (target - 0.5 - mixture.means) * inverse)
    side = torch.where(target > mixture.means, -1.0, 1.0)
    mass = (torch.sigmoid(side * upper) - torch.sigmoid(side * lower)).abs()
    weights = functional.softmax(mixture.logits.float(), dim=0)
    return -torch.log2((weights * mass).sum(0) * (1 - NUM_SYMBOLS / TOTAL) + 1 / TOTAL)


def mixtures_bits(network: PixelMLP, known: list[Context], exact: bool) -> Tensor:
    """Bits [3, M] of green, red and blue of the pixels of ``known``."""
    return torch.stack([mixture_bits(m, c.target) for m, c in zip(network(known, exact), known, strict=True)])
