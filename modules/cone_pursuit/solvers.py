"""NNMP, AMP, PWMP and FCMP: minimise f over the cone of a set of atoms, for many problems at once (section 3).

    gradient -> oracle -> towards atom z, away atom v -> direction -> step -> coefficients -> x

Letters as in state.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modules.cone_pursuit.corrective import corrective_step
from modules.cone_pursuit.oracles import NEW, norms_in_range
from modules.cone_pursuit.state import Objective, State, step_size

Oracle = Callable[[Tensor], tuple[Tensor, Tensor]]
Correction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ROUND_OFF = 32
"""Units of round-off below which no tolerance is met."""
ALGORITHMS = ("nnmp", "amp", "pwmp", "fcmp0", "fcmp1")


class Result(NamedTuple):
    x: Tensor  # [B, d]
    atoms: Tensor  # [B, K, d]
    keys: Tensor  # int64 [B, K], the oracle's names of the atoms; NEW where it gives none
    coefficients: Tensor  # [B, K], non-negative; 0 for dropped atoms
    values: Tensor  # [T + 1, B], f before the first and after each iteration
    descent: Tensor  # [B], -min_z <g, z> at the end: 0 at an optimum
    slope: Tensor  # [B], <g, x> at the end: 0 at an optimum, too
    drops: Tensor  # int64 [B], drop steps
    counts: Tensor  # int64 [T + 1, B], active atoms before the first and after each iteration


def _nnmp_step(state: State, gradient: Tensor, atom: Tensor, slot: Tensor, active: Tensor) -> None:
    """Towards z or back along -x, whichever descends more; at x = 0 only z. -x has the size of the largest atom."""
    norm = state.x.norm(dim=1)
    radius = state.atoms.norm(dim=2).amax(1)
    scale = torch.where(norm > 0, radius / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)
    toward, back = (gradient * atom).sum(1), -scale * (gradient * state.x).sum(1)
    is_back = back < toward
    direction = torch.where(is_back[:, None], -scale[:, None] * state.x, atom)
    limit = torch.where(is_back, 1 / scale.clamp_min(torch.finfo(norm.dtype).tiny), torch.inf)
    gamma = step_size(state, direction, active * -torch.minimum(toward, back), limit)
    state.coefficients *= (1 - is_back * gamma * scale).clamp_min(0)[:, None]
    state.coefficients.scatter_add_(1, slot[:, None], (~is_back * gamma)[:, None])
    state.x = state.x + gamma[:, None] * direction


def _away_step(state: State, gradient: Tensor, atom: Tensor, slot: Tensor, active: Tensor, pairwise: bool) -> None:
    """AMP: towards z or away from v. PWMP: both at once. A step as long as v's coefficient drops v."""
    away_slot, away_atom, away_score = state.away(gradient, atom if pairwise else torch.zeros_like(atom))
    toward = -(gradient * atom).sum(1)
    uses_away = away_atom.any(1) & (pairwise | (away_score > toward))
    uses_toward = (toward > 0) & (pairwise | ~uses_away)
    direction = uses_toward[:, None] * atom - uses_away[:, None] * away_atom
    gap = active * (uses_toward * toward + uses_away * away_score)
    held = state.coefficients.gather(1, away_slot[:, None]).squeeze(1)
    limit = torch.where(uses_away, held, torch.inf)
    gamma = step_size(state, direction, gap, limit)
    is_drop = active & uses_away & (gamma >= held)
    left = torch.where(is_drop, 0.0, held - gamma)
    rows = (active & uses_away).nonzero().squeeze(1)
    state.coefficients[rows, away_slot[rows]] = left[rows]
    state.coefficients.scatter_add_(1, slot[:, None], (uses_toward * gamma)[:, None])
    state.drops += is_drop
    state.x = state.x + gamma[:, None] * direction


def pursue(
    objective: Objective,
    oracle: Oracle,
    like: Tensor,
    algorithm: str = "fcmp1",
    max_iterations: int = 50,
    tolerance: float = 1e-12,
    max_atoms: int | None = None,
    correct: Correction | None = None,
    start: tuple[Tensor, Tensor] | None = None,
) -> Result:
    """Minimise ``objective`` over the cone of the oracle's atoms.

    Args:
        like: [B, d], gives the shape, the precision and the device of x.
        algorithm: nnmp, amp, pwmp, fcmp0 (projected gradient step) or fcmp1 (exact re-optimisation).
        max_iterations: oracle calls.
        tolerance: a problem stops when -<g, z> is at most this times |z| and the size of its gradients (see
            ``Objective``), and |<g, x>| at most this times |x| and that size. None of it depends on
            units; it is at least ROUND_OFF units of round-off.
        max_atoms: a problem stops as soon as it holds as many active atoms.
        correct: maps atoms [B, K, d] and coefficients [B, K] to better ones after every iteration (the optional
            non-convex correction of Alg. 4). Only for oracles without keys, since the atoms move.
        start: atoms [B, K, d] without keys and coefficients [B, K] to begin with; x = 0 if not given.

    Raises:
        ValueError: for an unknown algorithm, numbers out of range, shapes or precisions that do not fit, data with NaN
            or infinity or so large or small that squares leave the precision, and an objective without a minimum.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm}: choose one of {', '.join(ALGORITHMS)}")
    if max_iterations < 1 or not tolerance >= 0 or (max_atoms is not None and max_atoms < 1):
        raise ValueError(f"need max_iterations >= 1, tolerance >= 0, max_atoms >= 1, not {max_iterations, tolerance}")
    if like.ndim != 2 or not like.is_floating_point():
        raise ValueError(f"like must be real numbers [B, d] of float32 or float64, not {like.dtype} {[*like.shape]}")
    state = State(objective, like.shape[0], like.shape[1], like)
    if start is not None:
        state.atoms, state.coefficients = start[0].clone(), start[1].clone()
        state.keys = torch.full_like(start[1], NEW, dtype=torch.long)
        state.x = torch.einsum("bk,bkd->bd", state.coefficients, state.atoms)
    gradient = _first_gradient(state)
    values, counts = [objective.value(state.x)], [(state.coefficients > 0).sum(1)]
    active = gradient.any(1)
    for _ in range(max_iterations):
        atom, key = oracle(gradient)
        descent, slope = -(gradient * atom).sum(1), (gradient * state.x).sum(1).abs()
        least = max(tolerance, ROUND_OFF * torch.finfo(gradient.dtype).eps) * state.size
        active &= ~((descent <= least * atom.norm(dim=1)) & (slope <= least * state.x.norm(dim=1)))
        if max_atoms is not None:
            active &= (state.coefficients > 0).sum(1) < max_atoms
        if not bool(active.any()):
            break
        slot = state.slot_of(atom * active[:, None], key)
        if algorithm == "nnmp":
            _nnmp_step(state, gradient, atom, slot, active)
        elif algorithm in ("amp", "pwmp"):
            _away_step(state, gradient, atom, slot, active, pairwise=algorithm == "pwmp")
        else:
            corrective_step(state, gradient, active, exact=algorithm == "fcmp1")
        if correct is not None:
            state.replace(*correct(state.atoms, state.coefficients), active)
        gradient = objective.gradient(state.x)
        values.append(objective.value(state.x))
        counts.append((state.coefficients > 0).sum(1))
    atom, _ = oracle(gradient)
    descent, slope = -(gradient * atom).sum(1), (gradient * state.x).sum(1)
    found = state.x, state.atoms, state.keys, state.coefficients
    return Result(*found, torch.stack(values), descent, slope, state.drops, torch.stack(counts))


def _first_gradient(state: State) -> Tensor:
    """The gradient [B, d], and what follows from it for the sizes in ``state``."""
    x, objective = state.x, state.objective
    try:
        gradient = objective.gradient(x)
    except RuntimeError as error:
        raise ValueError(f"the objective does not fit x, {x.dtype} {[*x.shape]} as ``like``: {error}") from error
    if gradient.shape != x.shape or gradient.dtype != x.dtype:
        found = f"{gradient.dtype} {[*gradient.shape]}"
        raise ValueError(f"the gradient is {found} and x {x.dtype} {[*x.shape]} as ``like``: make them alike")
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError("the first gradient holds NaN or infinity: look at the data")
    if not norms_in_range(gradient):
        raise ValueError(f"the first gradient is too large or too small for {x.dtype}: scale the data to about 1")
    size, reach = gradient.norm(dim=1), x.norm(dim=1)
    state.size = getattr(objective, "steepness", size)
    curvature = size / torch.where(reach > 0, reach, 1.0)
    known = objective.smoothness
    state.curvature = torch.where(size > 0, curvature, 1.0) if known is None else torch.full_like(size, known)
    return gradient
