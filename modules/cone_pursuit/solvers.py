"""NNMP, AMP, PWMP and FCMP: minimise f over the cone of a set of atoms, for many problems at once (section 3).

    gradient -> oracle -> towards atom z, away atom v -> direction -> step -> coefficients -> x

Letters: B problems, d dimension, K slots for the atoms that a problem has met. ``coefficients`` [B, K] are never
negative and always reproduce x = sum_k coefficients_k atoms_k. Problems that have stopped keep still.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modules.cone_pursuit.oracles import NEW, norms_in_range, tie
from modules.cone_pursuit.small_cones import STEEP, minimise, project

Oracle = Callable[[Tensor], tuple[Tensor, Tensor]]
Correction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ALGORITHMS = ("nnmp", "amp", "pwmp", "fcmp0", "fcmp1")
ROUND_OFF = 32
"""Units of round-off below which no tolerance is met."""
NEWTON = 20
"""Steps of Newton's method in an iteration of FCMP's variant 1, at most."""
FACTOR, LARGEST = 4.0, 1e30
"""Line search: by which a step grows until the slope turns, or shrinks until it does not: at first, squared each time,
at most."""
EVALUATIONS, CLOSE = 100, 1.01
"""Line search: slopes at most; ratio of the steps between which the chord of the slope ends the search."""


class Objective(Protocol):
    """Convex, with ``smoothness`` L or None if it is not known.

    Optional: ``steepness`` [B], the size of gradients far from the optimum, to which the stopping test compares (the
    first gradient's norm if not given); ``refit``, which maps atoms [B, K, d] and coefficients [B, K] to the best ones.
    """

    smoothness: float | None

    def value(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor) -> Tensor: ...


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


class State:
    def __init__(self, objective: Objective, batch: int, dim: int, like: Tensor) -> None:
        self.objective = objective
        self.x = like.new_zeros(batch, dim)
        self.atoms = like.new_zeros(batch, 0, dim)
        self.keys = torch.zeros(batch, 0, dtype=torch.long, device=like.device)
        self.coefficients = like.new_zeros(batch, 0)
        self.drops = torch.zeros(batch, dtype=torch.long, device=like.device)
        self.size = like.new_ones(batch)  # of gradients far from the optimum
        self.curvature = like.new_ones(batch)  # L or, where it is not known, what it was along the last direction

    def slot_of(self, atom: Tensor, key: Tensor) -> Tensor:
        """The slot [B] of each problem's atom: where it lies already, a free one, or a new one."""
        square = atom.square().sum(1, keepdim=True)
        if self.atoms.shape[1]:
            is_close = (self.atoms - atom[:, None]).square().sum(2) <= 1e-24 * square
            same = (square > 0) & torch.where(key[:, None] != NEW, self.keys == key[:, None], is_close)
            same &= self.atoms.square().sum(2) > 0
            free = self.coefficients <= 0
            if bool((same.any(1) | free.any(1) | (square[:, 0] == 0)).all()):
                slot = torch.where(same.any(1), same.int().argmax(1), free.int().argmax(1))
                self._put(slot, atom, key, square[:, 0] > 0)
                return slot
        else:
            same = torch.zeros_like(self.keys, dtype=torch.bool)
        self.atoms = torch.cat((self.atoms, torch.zeros_like(atom)[:, None]), 1)
        self.keys = torch.cat((self.keys, torch.zeros_like(key)[:, None]), 1)
        self.coefficients = torch.cat((self.coefficients, torch.zeros_like(square)), 1)
        last = torch.full_like(key, self.atoms.shape[1] - 1)
        slot = torch.where(same.any(1), same.int().argmax(1), last) if same.shape[1] else last
        self._put(slot, atom, key, square[:, 0] > 0)
        return slot

    def _put(self, slot: Tensor, atom: Tensor, key: Tensor, is_real: Tensor) -> None:
        rows = is_real.nonzero().squeeze(1)
        is_held = self.coefficients[rows, slot[rows]] > 0  # the same atom, told by its key or by its entries
        rows = rows[~is_held]
        self.atoms[rows, slot[rows]], self.keys[rows, slot[rows]] = atom[rows], key[rows]

    def replace(self, atoms: Tensor, coefficients: Tensor, active: Tensor) -> None:
        """Other atoms and coefficients, and x made of them, for the active problems."""
        self.atoms = torch.where(active[:, None, None], atoms, self.atoms)
        self.coefficients = torch.where(active[:, None], coefficients, self.coefficients)
        self.x = torch.where(active[:, None], torch.einsum("bk,bkd->bd", coefficients, atoms), self.x)

    def away(self, gradient: Tensor, toward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(slot, atom, <g, atom>) of the active atom that points most along the gradient; the origin if none does.

        Of those that tie, the origin among them, it is the one nearest to ``toward``: the shorter the direction, the
        more an exact step descends.
        """
        if not self.atoms.shape[1]:
            return torch.zeros_like(self.drops), torch.zeros_like(gradient), gradient.new_zeros(len(gradient))
        inner = torch.einsum("bkd,bd->bk", self.atoms, gradient)
        scores = torch.where(self.coefficients > 0, inner, -torch.inf)
        margins = self.atoms.norm(dim=2) * tie(gradient)[:, None]
        best, slot = torch.where(scores > margins, scores, 0.0).max(1)
        widest = torch.maximum(margins, torch.where(best > 0, margins.gather(1, slot[:, None])[:, 0], 0.0)[:, None])
        distances = torch.where(
            scores >= best[:, None] - widest, (self.atoms - toward[:, None]).square().sum(2), torch.inf
        )
        nearest = distances.amin(1)
        is_nearest = distances <= (nearest * (1 + 1e-12))[:, None]  # equally near: the first one of the dictionary
        slot = torch.where(is_nearest, self.keys, torch.iinfo(torch.long).max).argmin(1)
        is_away = (best > 0) | (nearest < toward.square().sum(1) * (1 - 1e-12))
        atom = self.atoms[torch.arange(len(slot), device=slot.device), slot] * is_away[:, None]
        return slot, atom, torch.where(is_away, scores.gather(1, slot[:, None]).squeeze(1).clamp_min(0), 0.0)


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


# The corrective steps of FCMP (section 3.3): over the cone of all atoms that a problem has met.


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


# The length of a step.


def step_size(state: State, direction: Tensor, gap: Tensor, limit: Tensor) -> Tensor:
    """gamma [B] = gap / (L |direction|^2), or the best one where L is not known; at most ``limit``, 0 without a gap.

    Args:
        direction: [B, d].
        gap: [B], minus the derivative of f along it.
    """
    square = direction.square().sum(1).clamp_min(torch.finfo(gap.dtype).tiny)
    if state.objective.smoothness is not None:
        return torch.minimum(gap / (state.objective.smoothness * square), limit)
    gamma = search(state, direction, gap, limit, gap / (state.curvature * square))
    found = gap / (gamma * square)
    found = torch.where(gamma < limit, found, torch.minimum(found, state.curvature) / 2)  # cut: less curved than that
    state.curvature = torch.where((gamma > 0) & torch.isfinite(found) & (found > 0), found, state.curvature)
    return gamma


def search(state: State, direction: Tensor, gap: Tensor, limit: Tensor, guess: Tensor) -> Tensor:
    def slope(gamma: Tensor) -> Tensor:
        return (state.objective.gradient(state.x + gamma[:, None] * direction) * direction).sum(1)

    return exact_step(slope, gap, limit, guess)


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
    for _ in range(EVALUATIONS):
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
