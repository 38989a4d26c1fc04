"""Non-negative least squares: many right-hand sides that share one dictionary, and cones of few atoms for each problem.

``nnls`` works in float64 on the CPU, whatever the device and the precision of its input. A compiled active-set method
(Lawson and Hanson) solves one right-hand side after the other with one Gram matrix: each carries the Cholesky factor of
its active atoms' part of it and the forward solution, which an atom that enters extends by a row and one that leaves
rotates back into a triangle, in O(k^2). Several atoms enter at once; each walk to least squares ends lower than it
began, so no set returns. At the end the residual in the space of the data gives back the digits that the Gram matrix
loses, where its condition allows. Then the optimality conditions are checked in the space of the data, and scipy, whose
method squares no condition, solves what misses them. A single right-hand side is scipy's at once. Atoms and right-hand
sides are first scaled by powers of two to norms about 1, so that no square leaves the range of float64.

``project`` takes all problems in step, each with atoms and a K x K system of its own, on any device.

Letters: n atoms, d dimension, B right-hand sides, k active atoms, S = min(d, n) of them at most; K atoms of a problem.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls
from torch import Tensor

from modules.components.kernels import kernel

TOGETHER, ALIKE = 8, 0.5
"""Atoms that may enter at once, if their descent is at least this share of the steepest one's."""
DEPENDENT = 1e-11
"""An atom whose squared distance from the span of the active ones is this share of its own is not taken."""
TOLERANCE = 1e-11
"""The cosine of residual and atom counts as 0 up to this, and up to round-off."""
NOISE = 16 * np.finfo(np.float64).eps
"""Round-off in the inner product of a unit vector and a difference of vectors whose norms add up to 1."""
ROUNDS = 3
"""Rounds for each atom of the dictionary after which the active-set method stops; scipy is given ten times as many."""
STEEP, RIDGE = 450, 4.5
"""``project``: units of round-off. Slopes of at most the first are none; the second, as a share, is added to the
diagonal."""
MATHS = {"reassoc", "contract", "nsz"}


SAFE_SQUARES = (1e-200, 1e200)
"""Squared norms that need no scaling."""


class Solution(NamedTuple):
    """Both as the right-hand sides: tensors or arrays, [B, n], or [n] for one right-hand side [d]."""

    coefficients: Any
    """Non-negative."""
    gradient: Any
    """Of 0.5 |x - y|^2 in the coefficients: >= 0, and 0 where a coefficient is positive."""


def nnls(dictionary: Any, right: Any) -> Solution:
    """argmin over c >= 0 of |dictionary c - y|, for every row y of ``right``; not differentiable.

    Where atoms are so close that float64 does not determine c, x = dictionary c still meets the optimality conditions,
    up to the round-off of y and of the terms of x; then x may be off by 1e-7 |y|. With two right-hand sides or more
    this is checked, and scipy solves again what misses it; what scipy finds, and it alone solves a single right-hand
    side, is not. There, over atoms near a subspace of several dimensions less, x may be off by more: see ``misses``.
    Results are of the kind, precision and device of the input, integers give float64; a gradient beyond the range of
    its precision is infinite or 0.

    Args:
        dictionary: [d, n], a torch tensor or NumPy array.
        right: of the same kind, [B, d] or one right-hand side [d]; B may be 0.

    Raises:
        ValueError: for kinds, shapes, types and devices that do not fit, NaN or infinity, and coefficients that the
            precision cannot hold.
    """
    _check(dictionary, right)
    atoms, targets = _to_numpy(dictionary), np.atleast_2d(_to_numpy(right))
    codes, gradient = _solve_one(atoms, targets) or _solve_scaled(atoms, targets)
    if right.ndim == 1:
        codes, gradient = codes[0], gradient[0]
    coefficients = _like(codes, right)
    if not np.isfinite(_to_numpy(coefficients)).all():
        raise ValueError(f"coefficients exceed the range of {coefficients.dtype}: scale the dictionary up")
    return Solution(coefficients, _like(gradient, right))


def _solve_one(atoms: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients and gradient of a single right-hand side as it is; None for several, or where squares leave the
    range, where a number is not finite, or where scipy does not end."""
    if len(targets) != 1:
        return None
    y = targets[0]
    if not (_squares_are_safe(atoms) and _squares_are_safe(targets.T)):
        return None
    code = _by_scipy(atoms, y)
    return None if code is None else (code[None], ((atoms @ code - y) @ atoms)[None])


def _squares_are_safe(columns: np.ndarray) -> bool:
    """Whether the squared norm of each column is well within range; zeros are."""
    squares, (low, high) = np.einsum("ij,ij->j", columns, columns), SAFE_SQUARES
    if squares.min() > low:
        return bool(squares.max() < high)
    small = ~(squares > low)
    return bool(squares[~small].max(initial=0.0) < high) and not columns[:, small].any()


def _solve_scaled(atoms: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and gradient, [B, n], by way of atoms and right-hand sides of norms about 1.

    Raises:
        ValueError: for NaN or infinity.
    """
    if not (np.isfinite(atoms).all() and np.isfinite(targets).all()):
        raise ValueError("dictionary or right-hand sides hold NaN or infinity")
    sizes, lengths = _exponents(atoms.T), _exponents(targets)
    atoms, targets = np.ldexp(atoms, -sizes), np.ldexp(targets, -lengths[:, None])
    codes = _solve(atoms, targets)
    gradient = (codes @ atoms.T - targets) @ atoms
    return np.ldexp(codes, lengths[:, None] - sizes), np.ldexp(gradient, lengths[:, None] + sizes)


def _solve(atoms: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Coefficients [B, n] for data of norms about 1."""
    if len(right) == 1 and (code := _by_scipy(atoms, right[0])) is not None:
        return code[None]
    codes = active_set(atoms, right, torch.get_num_threads())
    for b in np.flatnonzero(misses(atoms, right, codes)):
        if (code := _by_scipy(atoms, right[b])) is not None:
            codes[b] = code
    return codes


def _by_scipy(atoms: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """[n], or None if round-off keeps scipy from an end."""
    try:
        return scipy_nnls(atoms, y, maxiter=10 * ROUNDS * atoms.shape[1])[0]
    except RuntimeError:
        return None


def misses(atoms: np.ndarray, right: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """bool [B]: which codes [B, n] miss the optimality conditions.

    These are <x - y, a> >= 0 for each atom of [d, n] and = 0 for the active ones, up to |a| (TOLERANCE |x - y| + NOISE
    |y|). A NaN misses them.
    """
    difference = codes @ atoms.T - right
    gradient = difference @ atoms
    slack = NOISE * np.linalg.norm(right, axis=1) + TOLERANCE * np.linalg.norm(difference, axis=1)
    excess = np.where(codes > 0, np.abs(gradient), -gradient) - slack[:, None] * np.linalg.norm(atoms, axis=0)
    return ~(excess.max(1) <= 0)


def _check(dictionary: Any, right: Any) -> None:
    kinds = {type(each) if isinstance(each, Tensor | np.ndarray) else None for each in (dictionary, right)}
    if len(kinds) > 1 or None in kinds:
        names = f"{type(dictionary).__name__} and {type(right).__name__}"
        raise ValueError(f"dictionary and right-hand sides must be tensors or arrays, both of one kind, not {names}")
    shapes = f"{[*dictionary.shape]}, {[*right.shape]}"
    if (
        dictionary.ndim != 2
        or right.ndim not in (1, 2)
        or dictionary.shape[0] != right.shape[-1]
        or 0 in dictionary.shape
    ):
        raise ValueError(f"dictionary [d, n] and right-hand sides [B, d] or [d] do not fit: {shapes}")
    types = [
        f"{each.dtype} on {each.device}" if isinstance(each, Tensor) else each.dtype for each in (dictionary, right)
    ]
    if types[0] != types[1]:
        raise ValueError(f"dictionary and right-hand sides must have one type and one device: {types[0]}, {types[1]}")
    is_complex = dictionary.is_complex() if isinstance(dictionary, Tensor) else dictionary.dtype.kind not in "fiub"
    if is_complex:
        raise ValueError(f"dictionary and right-hand sides must be real, not {dictionary.dtype}")


def _to_numpy(values: Any) -> np.ndarray:
    """As float64, converted on the CPU, since not every device has it."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)


def _like(values: np.ndarray, like: Any) -> Any:
    """Of the kind and precision (float64 for integers) and on the device of ``like``."""
    if isinstance(like, Tensor):
        dtype = like.dtype if like.is_floating_point() else torch.float64
        return torch.from_numpy(values).to(dtype).to(like.device)
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(like.dtype if like.dtype.kind == "f" else np.float64, copy=False)


def _exponents(rows: np.ndarray) -> np.ndarray:
    """Integers e for which the rows times 2^-e have norms in [0.7, 1.5]; 0 for rows of zeros."""
    largest = np.frexp(np.abs(rows).max(1))[1]  # first, since squares may leave the range
    norms = np.linalg.norm(np.ldexp(rows, -largest[:, None]), axis=1)
    return largest + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(largest.dtype)


def active_set(atoms: np.ndarray, right: np.ndarray, threads: int) -> np.ndarray:
    """Coefficients [B, n] of right-hand sides [B, d] over atoms [d, n].

    Atoms whose squared distance from the span of others is below DEPENDENT of their own may be missing, and badly
    conditioned sets may leave any error: check with ``misses``. The squares of norms must be within range.

    Args:
        threads: each takes a share of the right-hand sides.
    """
    columns = np.ascontiguousarray(atoms.T)
    right = np.ascontiguousarray(right)  # the kernel is compiled for one layout
    gram, targets = columns @ atoms, right @ atoms
    floors = TOLERANCE * np.sqrt(gram.diagonal()) * np.linalg.norm(right, axis=1)[:, None]
    out, most = np.zeros_like(targets), ROUNDS * len(columns)
    bounds = np.linspace(0, len(right), min(threads, max(1, len(right))) + 1).astype(int)

    def part(i: int) -> None:
        share = slice(bounds[i], bounds[i + 1])
        _solve_rows(columns, gram, right[share], targets[share], floors[share], TOGETHER, most, out[share])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, range(len(bounds) - 1)))
    return out


@kernel(fastmath=MATHS)
def dot(a, b, size):
    total = 0.0
    for i in range(size):
        total += a[i] * b[i]
    return total


@kernel(fastmath=MATHS)
def _forward(factor, right, size, out):
    """factor out = right."""
    for i in range(size):
        out[i] = (right[i] - dot(factor[i], out, i)) / factor[i, i]


@kernel(fastmath=MATHS)
def backward(factor, right, size, out):
    """factor^T out = right."""
    out[:size] = right[:size]
    for i in range(size - 1, -1, -1):
        value = out[i] / factor[i, i]
        out[i] = value
        for j in range(i):
            out[j] -= value * factor[i, j]


@kernel(fastmath=MATHS)
def _add(gram, target, atoms, size, factor, half, cross, atom):
    """Extend the factor and the forward solution ``half`` by one atom; False if the active ones span it."""
    for i in range(size):
        cross[i] = gram[atom, atoms[i]]
    row = factor[size]
    _forward(factor, cross, size, row)
    rest = gram[atom, atom] - dot(row, row, size)
    if rest <= DEPENDENT * gram[atom, atom]:
        return False
    row[size] = np.sqrt(rest)
    half[size] = (target[atom] - dot(row, half, size)) / row[size]
    atoms[size] = atom
    return True


@kernel(fastmath=MATHS)
def _drop(atoms, values, size, factor, half, place):
    """Remove the atom at ``place``: the rows below move up, and rotations of two columns make them triangular."""
    for i in range(place, size - 1):
        atoms[i] = atoms[i + 1]
        values[i] = values[i + 1]
        factor[i, : i + 2] = factor[i + 1, : i + 2]
    for i in range(place, size - 1):
        length = np.hypot(factor[i, i], factor[i, i + 1])
        cosine, sine = factor[i, i] / length, factor[i, i + 1] / length
        for j in range(i, size - 1):
            a, b = factor[j, i], factor[j, i + 1]
            factor[j, i], factor[j, i + 1] = cosine * a + sine * b, cosine * b - sine * a
        a, b = half[i], half[i + 1]
        half[i], half[i + 1] = cosine * a + sine * b, cosine * b - sine * a


@kernel(fastmath=MATHS)
def _walk(atoms, values, size, factor, half, goal):
    """Go to least squares on the active atoms; what would become negative on the way leaves. The new size."""
    while size > 0:
        backward(factor, half, size, goal)
        step, place = 1.0, -1
        for i in range(size):
            if goal[i] <= 0:
                ratio = values[i] / max(values[i] - goal[i], 1e-300)
                if place < 0 or ratio < step:
                    step, place = ratio, i
        for i in range(size):
            values[i] += step * (goal[i] - values[i])
        if place < 0:
            break
        _drop(atoms, values, size, factor, half, place)
        size -= 1
    return size


@kernel(fastmath=MATHS)
def _descend(gram, target, atoms, values, size, descent):
    """descent = target - gram c, two rows of the Gram matrix at a time."""
    descent[:] = target
    for i in range(0, size - 1, 2):
        first, second, a, b = gram[atoms[i]], gram[atoms[i + 1]], values[i], values[i + 1]
        for j in range(len(descent)):
            descent[j] -= a * first[j] + b * second[j]
    if size % 2:
        last, a = gram[atoms[size - 1]], values[size - 1]
        for j in range(len(descent)):
            descent[j] -= a * last[j]


@kernel(fastmath=MATHS)
def _refine(columns, y, atoms, values, size, factor, rest, cross, goal):
    """Two corrections of the values by the residual y - A c; columns [n, d] are the atoms."""
    for _ in range(2):
        rest[:] = y
        for i in range(size):
            column, value = columns[atoms[i]], values[i]
            for j in range(len(rest)):
                rest[j] -= value * column[j]
        for i in range(size):
            cross[i] = dot(columns[atoms[i]], rest, len(rest))
        _forward(factor, cross, size, goal)
        cross[:size] = goal[:size]
        backward(factor, cross, size, goal)
        for i in range(size):
            values[i] += goal[i]


@kernel(fastmath=MATHS)
def _solve_rows(columns, gram, right, targets, floors, together, most, out):
    """Fill out [B, n] in at most so many rounds."""
    number, dim = columns.shape
    capacity = min(number, dim)
    factor, half, goal = np.zeros((capacity, capacity)), np.zeros(capacity), np.zeros(capacity)
    cross, values, rest = np.zeros(capacity), np.zeros(capacity), np.zeros(dim)
    atoms, descent = np.zeros(capacity, np.int64), np.zeros(number)
    is_shut, picks = np.zeros(number, np.bool_), np.zeros(together, np.int64)
    for b in range(len(right)):
        target, floor, size = targets[b], floors[b], 0
        is_shut[:] = False  # spanned by the active atoms as they are
        for _ in range(most):
            _descend(gram, target, atoms, values, size, descent)
            for i in range(size):
                descent[atoms[i]] = 0.0
            found = _steepest(descent, floor, is_shut, picks)
            if found == 0:
                break
            before = size
            for i in range(found):
                if size < capacity and _add(gram, target, atoms, size, factor, half, cross, picks[i]):
                    values[size] = 0.0
                    size += 1
                else:
                    is_shut[picks[i]] = True
            if size > before:
                is_shut[:] = False
                size = _walk(atoms, values, size, factor, half, goal)
        _refine(columns, right[b], atoms, values, size, factor, rest, cross, goal)
        for i in range(size):
            out[b, atoms[i]] = max(values[i], 0.0)


@kernel(fastmath=MATHS)
def _steepest(descent, floor, is_shut, picks):
    """The steepest atoms above the floor, at most len(picks), and how many of them are about as steep as the first."""
    count = 0
    for j in range(len(descent)):
        value = descent[j]
        if value > floor[j] and not is_shut[j] and (count < len(picks) or value > descent[picks[count - 1]]):
            i = count if count < len(picks) else count - 1
            while i > 0 and descent[picks[i - 1]] < value:
                picks[i] = picks[i - 1]
                i -= 1
            picks[i] = j
            count = min(count + 1, len(picks))
    found = 0
    while found < count and descent[picks[found]] >= ALIKE * descent[picks[0]]:
        found += 1
    return found


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
