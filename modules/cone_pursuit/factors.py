"""Sums of non-negative rank-one matrices and tensors: factors, and their correction by block coordinate descent.

Letters: B problems, K rank-one terms, M modes of sizes n_1 .. n_M (M = 2: a matrix), d = n_1 * ... * n_M. Factors are a
list of M tensors [B, n_m, K]; term k is the outer product of the k-th columns.

For least squares there is HALS. For the generalised Kullback-Leibler divergence D(y, x) = sum (y log(y / x) - y + x)
there are multiplicative updates, and Newton's method on one variable at a time. There the problem is, for one mode at a
time, one row after the other: y [N, d] is the target with that mode first, w [N, K] its factor, and h [K, d] the
products of the others; the rows do not depend on each other.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from modules.components.kernels import kernel
from modules.cone_pursuit.active_factor import MATHS

MODES = "uvwxyz"
Update = Callable[[Tensor, list[Tensor], int], list[Tensor]]
"""Target, factors, sweeps: better factors."""
FLOOR = 1e-10
"""Sums of terms below it count as this much where the data, which should be far larger, are divided by them."""
LIFT = 1e-5
"""Of the mean of its column: the least that is made of a zero that D wants to grow."""
NEWTON, CLOSE = 100, 0.1
"""Steps for a variable at most; the step that changes it by at most this share is the last one."""


def compose(factors: list[Tensor]) -> Tensor:
    """The terms [B, K, n_1, ..., n_M]."""
    names = MODES[: len(factors)]
    return torch.einsum(",".join(f"b{m}k" for m in names) + f"->bk{names}", *factors)


def total(factors: list[Tensor]) -> Tensor:
    """The sum of the terms [B, n_1, ..., n_M], without forming them."""
    names = MODES[: len(factors)]
    return torch.einsum(",".join(f"b{m}k" for m in names) + f"->b{names}", *factors)


def decompose(atoms: Tensor, weights: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """Factors of non-negative rank-one ``atoms`` [B, K, d] with ``weights`` [B, K], shared evenly by the modes.

    The sums of a rank-one tensor over all modes but one are proportional to its factor of that mode.
    """
    whole = atoms.reshape(*atoms.shape[:2], *shape)
    share = (weights.clamp_min(0) * atoms.norm(dim=2)).pow(1 / len(shape))
    factors = []
    for mode in range(len(shape)):
        others = [2 + m for m in range(len(shape)) if m != mode]
        side = whole.sum(others)
        norm = side.norm(dim=2, keepdim=True)
        factors.append((side / torch.where(norm > 0, norm, 1.0) * share[:, :, None]).transpose(1, 2))
    return factors


def hals(target: Tensor, factors: list[Tensor], sweeps: int, floor: float = 0.0) -> list[Tensor]:
    """Hierarchical alternating least squares: each column in turn is set to its non-negative least-squares solution,
    so that 0.5 |target - sum of terms|^2 never grows (Cichocki and Phan 2009).

    Args:
        target: [B, n_1, ..., n_M].
        floor: smallest entry of a factor. With 0 a term that becomes zero stays so; a tiny one can grow again.
    """
    factors = [factor.clone() for factor in factors]
    for _ in range(sweeps):
        for mode, factor in enumerate(factors):
            right = against_others(target, factors, mode)
            gram = product(f.transpose(1, 2) @ f for m, f in enumerate(factors) if m != mode)
            for k in range(factor.shape[2]):
                own = gram[:, k, k, None]
                slope = right[:, :, k] - (factor @ gram[:, :, k, None]).squeeze(2)
                factor[:, :, k] = (factor[:, :, k] + slope / torch.where(own > 0, own, torch.inf)).clamp_min(floor)
        factors = balance(factors)
    return factors


def against_others(target: Tensor, factors: list[Tensor], mode: int) -> Tensor:
    """[B, n_m, K]: inner products of each slice of ``target`` in this mode with the k-th columns of all other modes."""
    names = MODES[: len(factors)]
    others = [m for m in range(len(factors)) if m != mode]
    rule = f"b{names}," + ",".join(f"b{names[m]}k" for m in others) + f"->b{names[mode]}k"
    return torch.einsum(rule, target, *(factors[m] for m in others))


def product(tensors: Iterable[Tensor]) -> Tensor:
    return reduce(torch.mul, tensors)


def balance(factors: list[Tensor]) -> list[Tensor]:
    """The same terms, each with columns of equal norms; a term with a zero column becomes zero."""
    norms = [factor.norm(dim=1, keepdim=True) for factor in factors]
    common = product(norms).pow(1 / len(factors))
    return [f * (common / torch.where(n > 0, n, 1.0)) for f, n in zip(factors, norms, strict=True)]


class FactorCorrection:
    """Sweeps over the factors of a pursuit's atoms; see ``pursue``.

    Args:
        target: [B, n_1, ..., n_M].
        update: hals, or another function of a target, its factors and the number of sweeps.
    """

    def __init__(self, update: Update, target: Tensor, sweeps: int) -> None:
        self.update, self.target, self.sweeps = update, target, sweeps

    def __call__(self, atoms: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        factors = self.update(self.target, decompose(atoms, coefficients, tuple(self.target.shape[1:])), self.sweeps)
        return unit_terms(factors)


def unit_terms(factors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Atoms [B, K, d] of unit or zero norm, and their coefficients [B, K]."""
    terms = compose(factors).flatten(2)
    norms = terms.norm(dim=2)
    return terms / torch.where(norms > 0, norms, 1.0)[:, :, None], norms


def multiplicative(target: Tensor, factors: list[Tensor], sweeps: int) -> list[Tensor]:
    """Multiplicative updates of one factor after the other: D never grows (Lee and Seung 2001).

    They keep zeros, of which a rank-one atom of an oracle is full. Where the derivative of D is negative, a zero is
    first lifted in proportion to it: so little that D falls by it. (The authors add 1e-5 to all factors, the data and
    the sums of the terms, each time.)

    Args:
        target: [B, n_1, ..., n_M], non-negative.
    """
    factors = [factor.clone() for factor in factors]
    for _ in range(sweeps):
        for mode, factor in enumerate(factors):
            ratio = total(factors).clamp_min_(FLOOR)
            torch.div(target, ratio, out=ratio)
            gain = against_others(ratio, factors, mode)
            weight = product(f.sum(1, keepdim=True) for m, f in enumerate(factors) if m != mode)
            gain /= torch.where(weight > 0, weight, 1.0)
            least = LIFT * factor.mean(1, keepdim=True) * (gain - 1).clamp(0, 1)
            factors[mode] = torch.maximum(factor, least) * gain
    return factors


def best_rank_one(target: Tensor) -> list[Tensor]:
    """Factors [B, n_m, 1] of the rank-one array next to ``target`` in D: the outer product of its sums over all modes
    but one, divided by the sum of everything to the power M - 1."""
    modes = range(1, target.ndim)
    sides = [target.sum([m for m in modes if m != mode])[:, :, None] for mode in modes]
    whole = sides[0].sum(1, keepdim=True)
    return [sides[0], *(side / torch.where(whole > 0, whole, 1.0) for side in sides[1:])]


@kernel(fastmath=MATHS)
def _newton(y, x, row, weight, value):
    """The new value of the variable that multiplies ``row`` in x, and x with it.

    The derivative of D in it grows and is concave: a step of Newton ends at or below the zero of the derivative, and
    all further ones come closer to it from there.
    """
    for _ in range(NEWTON):
        slope, curvature = weight, 0.0
        for j in range(len(y)):
            share = row[j] / max(x[j], FLOOR)
            slope -= y[j] * share
            curvature += y[j] * share * share
        new = max(value - slope / curvature, 0.0) if curvature > 0 else 0.0
        change = new - value
        for j in range(len(y)):
            x[j] += change * row[j]
        value = new
        if abs(change) <= CLOSE * new:
            break
    return value


@kernel(fastmath=MATHS)
def _violation(y, x, row, weight, value):
    """|derivative of D| of a positive variable, what is negative of it for a zero; as a share of the row's sum."""
    slope = weight
    for j in range(len(y)):
        slope -= y[j] * row[j] / max(x[j], FLOOR)
    return (abs(slope) if value > 0 else max(-slope, 0.0)) / weight


@kernel(fastmath=MATHS)
def _descend(y, w, h, sweeps, tolerance):
    """Change w [N, K] in place; a row is done when no variable violates optimality by more than ``tolerance``."""
    number, dim = h.shape
    x, weights = np.empty(dim), np.zeros(number)
    for k in range(number):
        for j in range(dim):
            weights[k] += h[k, j]
    for i in range(len(y)):
        for _ in range(sweeps):
            x[:] = 0.0
            for k in range(number):
                for j in range(dim):
                    x[j] += w[i, k] * h[k, j]
            worst = 0.0
            for k in range(number):
                if weights[k] > 0:
                    if tolerance > 0:
                        worst = max(worst, _violation(y[i], x, h[k], weights[k], w[i, k]))
                    w[i, k] = _newton(y[i], x, h[k], weights[k], w[i, k])
            if worst < tolerance:
                break


def ccd(target: Tensor, factors: list[Tensor], sweeps: int) -> list[Tensor]:
    """Cyclic coordinate descent: each entry of each factor in turn goes to its best non-negative value by Newton's
    method, so that D never grows (Hsieh and Dhillon 2011, section 3.2). float64 on the CPU; a thread for each problem.

    The authors take one or two steps of Newton; here they go on until a step changes the variable by at most 10 %.

    Args:
        target: [B, n_1, ..., n_M], non-negative.
    """
    y = target.double().cpu().numpy()
    starts = [factor.double().cpu().numpy() for factor in factors]

    def solve(b: int) -> list[np.ndarray]:
        found = [start[b].copy() for start in starts]
        unfolded = [np.ascontiguousarray(np.moveaxis(y[b], m, 0).reshape(len(f), -1)) for m, f in enumerate(found)]
        for _ in range(sweeps):
            for mode, own in enumerate(found):
                _descend(unfolded[mode], own, _products(found, mode), 1, 0.0)
        return found

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        results = list(pool.map(solve, range(len(y))))
    return [torch.from_numpy(np.stack([found[m] for found in results])).to(f) for m, f in enumerate(factors)]


def _products(factors: list[np.ndarray], mode: int) -> np.ndarray:
    """[K, d]: row k is the outer product of the k-th columns of all factors [n_m, K] but one."""
    h = np.ones((factors[0].shape[1], 1))
    for m, factor in enumerate(factors):
        if m != mode:
            h = (h[:, :, None] * factor.T[:, None]).reshape(len(h), -1)
    return h


def weigh(atoms: Tensor, points: Tensor, start: Tensor | None = None, sweeps: int = 1000) -> Tensor:
    """Non-negative weights [B, K] of ``atoms`` [K, d] whose sums are next to ``points`` [B, d] in D.

    Coordinate descent until no derivative violates optimality by more than 1e-9 of its atom's sum. Atoms of zeros keep
    their weights; entries of points that no atom reaches, where D is infinite whatever the weights, do not count.

    Args:
        start: weights [B, K]; equal ones if not given.
        sweeps: at most.
    """
    h = np.ascontiguousarray(atoms.double().cpu().numpy())
    y = np.ascontiguousarray(points.double().cpu().numpy())
    if start is None:
        whole = h.sum()
        w = np.repeat(y.sum(1, keepdims=True) / (whole if whole > 0 else 1.0), len(h), 1)
    else:
        w = start.double().cpu().numpy().copy()
    _descend(y, w, h, sweeps, 1e-9)
    return torch.from_numpy(w).to(points)
