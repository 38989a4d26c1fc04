"""The corrective steps of FCMP (section 3.3): over the cone of all atoms that a problem has met.

Letters as in state.py.
"""

import torch
from torch import Tensor

from modules.cone_pursuit.projection import STEEP, minimise, project
from modules.cone_pursuit.state import State, search, step_size

NEWTON = 20
"""Steps of Newton's method in an iteration of variant 1, at most."""


def corrective_step(state: State, gradient: Tensor, active: Tensor, exact: bool) -> None:
    """Variant 0: project x - g / L onto the cone of the atoms met. Variant 1: minimise f on it."""
    held, refit = state.coefficients, getattr(state.objective, "refit", None)
    if exact and refit is not None:
        _set_coefficients(state, refit(state.atoms, held), active)
    else:
        _projected_step(state, gradient, active)
        if exact:
            _newton(state, active)
    state.drops += active & ((held > 0) & (state.coefficients <= 0)).any(1)


def _projected_step(state: State, gradient: Tensor, active: Tensor) -> None:
    """To the projection of x - g / L; where L is not known, as far as f falls on the way to a projection and beyond."""
    smoothness = state.objective.smoothness
    if smoothness is not None:
        _set_coefficients(state, project(state.atoms, state.x - gradient / smoothness), active)
        return
    change = project(state.atoms, state.x - gradient / state.curvature[:, None]) - state.coefficients
    direction, gap, limit = _way(state, gradient, change, active)
    walk(state, change, step_size(state, direction, gap, limit), active)


def _newton(state: State, active: Tensor) -> None:
    """Minimise f on the cone of the atoms met: go to the minimum of a parabola and as far as f falls, until no
    coefficient can change f by more than round-off."""
    unit = torch.finfo(state.x.dtype).eps
    for _ in range(NEWTON):
        gradient = state.objective.gradient(state.x)
        slopes = torch.einsum("bkd,bd->bk", state.atoms, gradient)
        floor = STEEP * unit * state.size[:, None] * state.atoms.norm(dim=2)
        active = active & (torch.where(state.coefficients > 0, slopes.abs(), -slopes) > floor).any(1)
        if not bool(active.any()):
            break
        curvature = _curvature(state, gradient)
        right = torch.einsum("bkl,bl->bk", curvature, state.coefficients) - slopes
        change = minimise(curvature, right, floor + torch.finfo(floor.dtype).tiny) - state.coefficients
        direction, gap, limit = _way(state, gradient, change, active)
        walk(state, change, search(state, direction, gap, limit, torch.ones_like(gap)), active)


def _curvature(state: State, gradient: Tensor) -> Tensor:
    """Second derivatives [B, K, K] of f in the coefficients, by differences of gradients, plus sqrt(eps) L |x|^2: they
    stay positive where f is flat."""
    share = torch.finfo(gradient.dtype).eps ** 0.5
    gram = torch.einsum("bkd,bld->bkl", state.atoms, state.atoms)
    sizes = gram.diagonal(dim1=1, dim2=2).sqrt()
    steps = share * state.x.norm(dim=1, keepdim=True) / torch.where(sizes > 0, sizes, torch.inf)
    columns = []
    for k in range(sizes.shape[1]):
        moved = state.objective.gradient(state.x + steps[:, k, None] * state.atoms[:, k]) - gradient
        columns.append(torch.einsum("bkd,bd->bk", state.atoms, moved) / torch.where(steps > 0, steps, 1.0)[:, k, None])
    differences = torch.stack(columns, 2)
    return 0.5 * (differences + differences.transpose(1, 2)) + share * state.curvature[:, None, None] * gram


def _way(state: State, gradient: Tensor, change: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The direction [B, d] of a ``change`` [B, K] of the coefficients, its gap [B], and how far they stay positive."""
    direction = torch.einsum("bk,bkd->bd", change, state.atoms)
    limit = torch.where(change < 0, state.coefficients / -change, torch.inf).amin(1)
    return direction, active * -(gradient * direction).sum(1), limit


def walk(state: State, change: Tensor, gamma: Tensor, active: Tensor) -> None:
    """Add gamma [B] times ``change``; a coefficient that the step takes to 0 becomes exactly that."""
    moved = gamma[:, None] * change
    is_out = (change < 0) & (state.coefficients <= -moved)
    _set_coefficients(state, torch.where(is_out, 0.0, state.coefficients + moved).clamp_min(0), active)


def _set_coefficients(state: State, new: Tensor, active: Tensor) -> None:
    state.coefficients = torch.where(active[:, None], new, state.coefficients)
    state.x = torch.einsum("bk,bkd->bd", state.coefficients, state.atoms)
