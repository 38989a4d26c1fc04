"""Exact line search for convex functions of which nothing is known but the slope; B problems at once."""

from collections.abc import Callable

import torch
from torch import Tensor

FACTOR, LARGEST = 4.0, 1e30
"""By which a step grows until the slope turns, or shrinks until it does not: at first, squared each time, at most."""
ROUNDS, CLOSE = 100, 1.01
"""Evaluations at most; ratio of the steps between which the chord of the slope ends the search."""


def exact_step(slope: Callable[[Tensor], Tensor], gap: Tensor, limit: Tensor, guess: Tensor) -> Tensor:
    """gamma [B] in [0, limit] where the slope of a convex function vanishes, or ``limit`` if it is negative there.

    Bisection on a logarithmic scale, so that a guess that is off by many orders of magnitude costs a few evaluations.

    Args:
        slope: maps gamma [B] to the derivatives [B]; they grow with gamma.
        gap: [B], minus the derivative at 0; where it is not positive the step is 0.
        limit: [B], positive, perhaps infinite.
        guess: [B], positive.

    Raises:
        ValueError: for a function that falls without bound.
    """
    low, high = torch.zeros_like(gap), torch.full_like(gap, torch.inf)
    below, above = -gap, torch.ones_like(gap)  # slopes at both
    limits = torch.finfo(gap.dtype)
    gamma, is_done = torch.minimum(guess.clamp(limits.tiny, limits.max), limit), ~(gap > 0)
    factor = FACTOR
    for _ in range(ROUNDS):
        now = slope(gamma)
        is_short = now < 0  # NaN: beyond what the function can take
        low, below = torch.where(is_short, gamma, low), torch.where(is_short, now, below)
        high, above = torch.where(is_short, high, gamma), torch.where(is_short, above, now)
        is_done |= (low >= limit) | (high <= CLOSE * low)
        if bool(is_done.all()):
            break
        inner = torch.where(low > 0, low.sqrt() * high.sqrt(), high / factor)
        outer = torch.minimum((factor * low).clamp_max(limits.max**0.5), limit)  # beyond, squares overflow
        gamma = torch.where(is_done, gamma, torch.where(high < torch.inf, inner, outer))
        factor = min(factor**2, LARGEST if gap.dtype == torch.float64 else LARGEST**0.25)
    if bool((~is_done & (high == torch.inf) & (gap > 0)).any()):
        raise ValueError("the objective falls without bound along a direction: a pursuit needs a minimum")
    chord = low + (high - low) * (below / (below - above))
    is_inside = (high < torch.inf) & torch.isfinite(chord)
    return torch.where(gap > 0, torch.where(is_inside & (low > 0), chord, low), 0.0)
