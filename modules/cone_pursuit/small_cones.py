"""Non-negative least squares in small cones: many problems in step, each with atoms and a K x K system of its own.

On any device, in the precision of the input. Letters: B problems, K atoms of a problem, d dimension.
"""

import torch
from torch import Tensor

STEEP, RIDGE = 450, 4.5
"""Units of round-off. Slopes of at most the first are none; the second, as a share, is added to the diagonal."""


def project(atoms: Tensor, target: Tensor) -> Tensor:
    """Coefficients [B, K] >= 0 of the point of each cone of ``atoms`` [B, K, d] nearest to ``target`` [B, d]."""
    gram = torch.einsum("bkd,bld->bkl", atoms, atoms)
    limits, sizes = torch.finfo(gram.dtype), gram.diagonal(dim1=1, dim2=2).sqrt()
    floor = STEEP * limits.eps * sizes * target.norm(dim=1, keepdim=True) + limits.tiny
    return minimise(gram, torch.einsum("bkd,bd->bk", atoms, target), floor)


def minimise(gram: Tensor, right: Tensor, floor: Tensor) -> Tensor:
    """argmin [B, K] over c >= 0 of 0.5 c^T ``gram`` c - c^T ``right``, for positive semidefinite [B, K, K] and [B, K].

    Args:
        floor: [B, K], positive; a slope of at most so much is round-off.
    """
    diagonal = gram.diagonal(dim1=1, dim2=2)
    values, is_active = torch.zeros_like(right), torch.zeros_like(right, dtype=torch.bool)
    for _ in range(3 * right.shape[1] + 1):
        descent = right - torch.einsum("bkl,bl->bk", gram, values)
        eligible = torch.where(~is_active & (diagonal > 0) & (descent > floor), descent, -torch.inf)
        best, pick = eligible.max(1)
        opened = best > 0
        if not bool(opened.any()):
            break
        is_active[opened, pick[opened]] = True
        values = _inner_loop(gram, right, values, is_active, opened)
    return values


def _inner_loop(gram: Tensor, right: Tensor, values: Tensor, is_active: Tensor, rows: Tensor) -> Tensor:
    """Walk to the minimum on the active sets; what becomes negative on the way leaves its set."""
    limits = torch.finfo(gram.dtype)
    for _ in range(right.shape[1] + 1):
        both = is_active[:, :, None] & is_active[:, None]
        system = torch.where(both, gram, 0.0) + torch.diag_embed((~is_active).to(gram))
        system = system + torch.diag_embed(RIDGE * limits.eps * is_active * gram.diagonal(dim1=1, dim2=2))
        goal = torch.linalg.solve(system, torch.where(is_active, right, 0.0))
        blocked = is_active & (goal <= 0) & rows[:, None]
        ratio = torch.where(blocked, values / (values - goal).clamp_min(limits.tiny), torch.inf)
        step = ratio.amin(1).clamp(0, 1)[:, None]
        values = torch.where(rows[:, None] & is_active, values + step * (goal - values), values)
        leaving = blocked & (ratio <= step)
        if not bool(leaving.any()):
            break
        is_active &= ~leaving
        values = torch.where(is_active, values, 0.0)
    return values.clamp_min(0)
