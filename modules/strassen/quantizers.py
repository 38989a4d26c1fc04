"""Ternary quantisers with straight-through gradients (section 3.1 of the paper; both are in the authors' code).

A quantiser maps real shadow weights to ``scale * ternary``; its gradient is the identity.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Quantizer = Literal["rescaled", "fixed"]
QUANTIZERS: tuple[str, ...] = ("rescaled", "fixed")
RELATIVE_THRESHOLD = 0.7
"""Of TWN: times the mean magnitude of the tensor."""
FIXED_THRESHOLD = 0.5


class Ternary(NamedTuple):
    """``scale * pattern``."""

    pattern: Tensor
    """-1, 0 or 1, in the weights' type and shape."""
    scale: Tensor
    """Of the whole tensor, no dimensions, at least 0."""


def check_quantizer(name: str) -> None:
    """Raise a ValueError for an unknown quantiser."""
    if name not in QUANTIZERS:
        raise ValueError(f"quantizer must be {' or '.join(QUANTIZERS)}, got {name!r}")


def ternarize(weight: Tensor, quantizer: str) -> Ternary:
    """The pattern and scale of real weights.

    ``rescaled`` is TWN's (Li, Liu 2016): threshold 0.7 mean |w|, scale = mean |w| of the weights above it, which is the
    least squares one. ``fixed`` has the threshold 0.5 and the scale 1. A tensor with no weight above its threshold gets
    the scale 0 or 1 and a pattern of zeros.
    """
    check_quantizer(quantizer)
    magnitude = weight.detach().abs()
    threshold = RELATIVE_THRESHOLD * magnitude.mean() if quantizer == "rescaled" else FIXED_THRESHOLD
    pattern = weight.detach().sign() * (magnitude > threshold)
    if quantizer == "fixed":
        return Ternary(pattern, torch.ones((), dtype=weight.dtype, device=weight.device))
    chosen = pattern.abs()
    return Ternary(pattern, (magnitude * chosen).sum() / chosen.sum().clamp(min=1.0))


def straight_through(weight: Tensor, quantizer: str) -> Tensor:
    """``scale * pattern`` forward, the identity backward."""
    pattern, scale = ternarize(weight, quantizer)
    return weight + (scale * pattern - weight).detach()
