"""NNMP, AMP, PWMP and FCMP: minimise f over the cone of a set of atoms, for many problems at once (section 3).

    gradient -> oracle -> towards atom z, away atom v -> direction -> step -> coefficients -> x

Letters: B problems, d dimension, K slots for the atoms that a problem has met. ``coefficients`` [B, K] are never
negative and always reproduce x = sum_k coefficients_k atoms_k. Problems that have stopped keep still.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from modules.cone_pursuit.oracles import NEW, tie

Oracle = Callable[[Tensor], tuple[Tensor, Tensor]]
Correction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
ALGORITHMS = ("nnmp", "amp", "pwmp", "fcmp0", "fcmp1")


class Objective(Protocol):
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


class _State:
    def __init__(self, objective: Objective, batch: int, dim: int, like: Tensor) -> None:
        self.objective = objective
        self.x = like.new_zeros(batch, dim)
        self.atoms = like.new_zeros(batch, 0, dim)
        self.keys = torch.zeros(batch, 0, dtype=torch.long, device=like.device)
        self.coefficients = like.new_zeros(batch, 0)
        self.drops = torch.zeros(batch, dtype=torch.long, device=like.device)

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
        margin = self.atoms.norm(dim=2).amax(1) * tie(gradient)
        best = scores.amax(1).clamp_min(0)
        is_tied = scores >= (best - margin)[:, None]
        distances = torch.where(is_tied, (self.atoms - toward[:, None]).square().sum(2), torch.inf)
        nearest = distances.amin(1)
        is_nearest = distances <= (nearest * (1 + 1e-12))[:, None]  # equally near: the first one of the dictionary
        slot = torch.where(is_nearest, self.keys, torch.iinfo(torch.long).max).argmin(1)
        is_away = (best > margin) | (nearest < toward.square().sum(1) * (1 - 1e-12))
        atom = self.atoms[torch.arange(len(slot), device=slot.device), slot] * is_away[:, None]
        return slot, atom, torch.where(is_away, scores.gather(1, slot[:, None]).squeeze(1).clamp_min(0), 0.0)


def step_size(objective: Objective, x: Tensor, direction: Tensor, gap: Tensor, limit: Tensor) -> Tensor:
    """gamma [B] = gap / (L |direction|^2), or by halving and doubling where L is not known; at most ``limit``."""
    square = direction.square().sum(1).clamp_min(torch.finfo(x.dtype).tiny)
    if objective.smoothness is not None:
        return torch.minimum(gap / (objective.smoothness * square), limit)
    start = objective.value(x)
    gamma = torch.minimum(gap / square, limit)
    for _ in range(60):  # sufficient descent, as a step 1 / L would give: f falls by half of gamma * gap
        too_long = ~(objective.value(x + gamma[:, None] * direction) <= start - 0.5 * gamma * gap)
        if not bool(too_long.any()):
            break
        gamma = torch.where(too_long, 0.5 * gamma, gamma)
    return torch.where(too_long, 0.0, gamma)


def _nnmp_step(state: _State, gradient: Tensor, atom: Tensor, slot: Tensor, active: Tensor) -> None:
    """Towards z or back along -x, whichever descends more; at x = 0 only z. -x has the size of the largest atom."""
    norm = state.x.norm(dim=1)
    radius = state.atoms.norm(dim=2).amax(1)
    scale = torch.where(norm > 0, radius / norm.clamp_min(torch.finfo(norm.dtype).tiny), 0.0)
    toward, back = (gradient * atom).sum(1), -scale * (gradient * state.x).sum(1)
    is_back = back < toward
    direction = torch.where(is_back[:, None], -scale[:, None] * state.x, atom)
    limit = torch.where(is_back, 1 / scale.clamp_min(torch.finfo(norm.dtype).tiny), torch.inf)
    gamma = active * step_size(state.objective, state.x, direction, -torch.minimum(toward, back), limit)
    state.coefficients *= (1 - is_back * gamma * scale).clamp_min(0)[:, None]
    state.coefficients.scatter_add_(1, slot[:, None], (~is_back * gamma)[:, None])
    state.x = state.x + gamma[:, None] * direction


def _away_step(state: _State, gradient: Tensor, atom: Tensor, slot: Tensor, active: Tensor, pairwise: bool) -> None:
    """AMP: towards z or away from v. PWMP: both at once. A step as long as v's coefficient drops v."""
    away_slot, away_atom, away_score = state.away(gradient, atom if pairwise else torch.zeros_like(atom))
    toward = -(gradient * atom).sum(1)
    uses_away = away_atom.any(1) & (pairwise | (away_score > toward))
    uses_toward = (toward > 0) & (pairwise | ~uses_away)
    direction = uses_toward[:, None] * atom - uses_away[:, None] * away_atom
    gap = uses_toward * toward + uses_away * away_score
    held = state.coefficients.gather(1, away_slot[:, None]).squeeze(1)
    limit = torch.where(uses_away, held, torch.inf)
    gamma = active * step_size(state.objective, state.x, direction, gap, limit)
    is_drop = active & uses_away & (gamma >= held)
    left = torch.where(is_drop, 0.0, held - gamma)
    rows = (active & uses_away).nonzero().squeeze(1)
    state.coefficients[rows, away_slot[rows]] = left[rows]
    state.coefficients.scatter_add_(1, slot[:, None], (uses_toward * gamma)[:, None])
    state.drops += is_drop
    state.x = state.x + gamma[:, None] * direction


def _corrective_step(state: _State, gradient: Tensor, active: Tensor, exact: bool) -> None:
    """Variant 0: project x - g / L onto the cone of the atoms met. Variant 1: minimise f on it."""
    refit = getattr(state.objective, "refit", None)
    if exact and refit is not None:
        _set_coefficients(state, refit(state.atoms, state.coefficients), active)
        return
    smoothness = state.objective.smoothness or 1.0
    target = state.x - gradient / smoothness
    rounds = 1 if not exact or _is_least_squares(state.objective) else 200
    for _ in range(rounds):
        _set_coefficients(state, project(state.atoms, target), active)
        if rounds > 1:
            before, target = target, state.x - state.objective.gradient(state.x) / smoothness
            if float((target - before).abs().max()) < 1e-12:
                break


def _set_coefficients(state: _State, new: Tensor, active: Tensor) -> None:
    state.drops += active & ((state.coefficients > 0) & (new <= 0)).any(1)
    state.coefficients = torch.where(active[:, None], new, state.coefficients)
    state.x = torch.einsum("bk,bkd->bd", state.coefficients, state.atoms)


def _is_least_squares(objective: Objective) -> bool:
    return hasattr(objective, "y") and objective.smoothness == 1.0


def project(atoms: Tensor, target: Tensor) -> Tensor:
    """Coefficients [B, K] >= 0 of the point of each cone of ``atoms`` [B, K, d] nearest to ``target`` [B, d].

    Lawson and Hanson's active sets, all problems in step, each solving its own K x K system.
    """
    gram = torch.einsum("bkd,bld->bkl", atoms, atoms)
    right = torch.einsum("bkd,bd->bk", atoms, target)
    diagonal = gram.diagonal(dim1=1, dim2=2)
    floor = 1e-13 * diagonal.sqrt() * target.norm(dim=1, keepdim=True) + torch.finfo(target.dtype).tiny
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
    """Walk to least squares on the active sets; what becomes negative on the way leaves its set."""
    for _ in range(right.shape[1] + 1):
        both = is_active[:, :, None] & is_active[:, None]
        system = torch.where(both, gram, 0.0) + torch.diag_embed((~is_active).to(gram))
        system = system + torch.diag_embed(1e-15 * is_active * gram.diagonal(dim1=1, dim2=2))
        goal = torch.linalg.solve(system, torch.where(is_active, right, 0.0))
        blocked = is_active & (goal <= 0) & rows[:, None]
        ratio = torch.where(blocked, values / (values - goal).clamp_min(1e-300), torch.inf)
        step = ratio.amin(1).clamp(0, 1)[:, None]
        values = torch.where(rows[:, None] & is_active, values + step * (goal - values), values)
        leaving = blocked & (ratio <= step)
        if not bool(leaving.any()):
            break
        is_active &= ~leaving
        values = torch.where(is_active, values, 0.0)
    return values.clamp_min(0)


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
        tolerance: a problem stops when both certificates, -min_z <g, z> and |<g, x>|, are at most this times the
            norm of its first gradient (the latter also times |x|).
        max_atoms: a problem stops before it would hold more active atoms.
        correct: maps atoms [B, K, d] and coefficients [B, K] to better ones after every iteration (the optional
            non-convex correction of Alg. 4). Only for oracles without keys, since the atoms move.
        start: atoms [B, K, d] without keys and coefficients [B, K] to begin with; x = 0 if not given.

    Raises:
        ValueError: for an unknown algorithm, numbers out of range, or data with NaN or infinity.
    """
    if algorithm not in ALGORITHMS:
        raise ValueError(f"unknown algorithm {algorithm}: choose one of {', '.join(ALGORITHMS)}")
    if max_iterations < 1 or tolerance < 0 or (max_atoms is not None and max_atoms < 1):
        raise ValueError(f"need max_iterations >= 1, tolerance >= 0, max_atoms >= 1, not {max_iterations, tolerance}")
    state = _State(objective, like.shape[0], like.shape[1], like)
    if start is not None:
        state.atoms, state.coefficients = start[0].clone(), start[1].clone()
        state.keys = torch.full_like(start[1], NEW, dtype=torch.long)
        state.x = torch.einsum("bk,bkd->bd", state.coefficients, state.atoms)
    gradient = objective.gradient(state.x)
    if not bool(torch.isfinite(gradient).all()):
        raise ValueError("the first gradient holds NaN or infinity: look at the data")
    size, values = gradient.norm(dim=1), [objective.value(state.x)]
    counts = [(state.coefficients > 0).sum(1)]
    active = size > 0
    for _ in range(max_iterations):
        atom, key = oracle(gradient)
        descent, slope = -(gradient * atom).sum(1), (gradient * state.x).sum(1).abs()
        active &= ~((descent <= tolerance * size) & (slope <= tolerance * size * (1 + state.x.norm(dim=1))))
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
            _corrective_step(state, gradient, active, exact=algorithm == "fcmp1")
        if correct is not None:
            state.replace(*correct(state.atoms, state.coefficients), active)
        gradient = objective.gradient(state.x)
        values.append(objective.value(state.x))
        counts.append((state.coefficients > 0).sum(1))
    atom, _ = oracle(gradient)
    descent, slope = -(gradient * atom).sum(1), (gradient * state.x).sum(1)
    found = state.x, state.atoms, state.keys, state.coefficients
    return Result(*found, torch.stack(values), descent, slope, state.drops, torch.stack(counts))
