"""Non-negative least squares by orthogonal factors, for right-hand sides that the Gram matrix serves badly.

Lawson and Hanson's method, one atom at a time. The active atoms carry an orthonormal basis, from Gram-Schmidt applied
twice: their condition enters once, not squared as in active_set.py, for O(d (n + k)) a step in place of O(n + k^2). An
inner product below its own round-off counts as zero, and an atom that did not bring x nearer to y is not tried again
before another did, so that neither noise nor equal atoms make it cycle.

Letters: n atoms, d dimension, B right-hand sides, k active atoms, S = min(d, n) of them at most.

The state of one right-hand side y: atoms and values [S], the active ones and their coefficients; basis [S, d], factor
[S, S] lower triangular and half [S]: active atom i is the sum of factor[i, j] basis[j], and half = basis y.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modules.components.kernels import kernel
from modules.cone_pursuit.active_set import MATHS, backward, dot

SPANNED = 1e-13
"""An atom whose distance from the span of the active ones is this share of its norm is not taken."""
NOISE = 16 * np.finfo(np.float64).eps
"""Round-off in the inner product of a unit vector and a difference of vectors whose norms add up to 1."""


@kernel(fastmath=MATHS)
def _enter(columns, y, atom, size, state):
    """Append an atom of value 0; False if the active ones span it."""
    atoms, values, basis, factor, half = state
    column, rest, row = columns[atom], basis[size], factor[size]
    rest[:] = column
    row[:] = 0.0
    for _ in range(2):
        for i in range(size):
            share = dot(basis[i], rest, len(rest))
            row[i] += share
            for j in range(len(rest)):
                rest[j] -= share * basis[i, j]
    length = np.sqrt(dot(rest, rest, len(rest)))
    if length <= SPANNED * np.sqrt(dot(column, column, len(column))):
        return False
    rest /= length
    row[size], half[size] = length, dot(rest, y, len(y))
    atoms[size], values[size] = atom, 0.0
    return True


@kernel(fastmath=MATHS)
def _turn(first, second, cosine, sine, size):
    for i in range(size):
        a, b = first[i], second[i]
        first[i], second[i] = cosine * a + sine * b, cosine * b - sine * a


@kernel(fastmath=MATHS)
def _leave(place, size, state):
    """Remove the atom at ``place``: the later ones move up, and rotations of two directions restore the triangle."""
    atoms, values, basis, factor, half = state
    for i in range(place, size - 1):
        atoms[i], values[i] = atoms[i + 1], values[i + 1]
        factor[i, : i + 2] = factor[i + 1, : i + 2]
    for i in range(place, size - 1):
        length = np.hypot(factor[i, i], factor[i, i + 1])
        cosine, sine = factor[i, i] / length, factor[i, i + 1] / length
        _turn(factor[i : size - 1, i], factor[i : size - 1, i + 1], cosine, sine, size - 1 - i)
        _turn(half[i : i + 1], half[i + 1 : i + 2], cosine, sine, 1)
        _turn(basis[i], basis[i + 1], cosine, sine, basis.shape[1])


@kernel(fastmath=MATHS)
def _walk(size, state, goal):
    """Go to least squares on the active atoms; what would become negative on the way leaves. The new size."""
    values, factor, half = state[1], state[3], state[4]
    while size > 0:
        backward(factor, half, size, goal)
        step, place = 1.0, -1
        for i in range(size):
            if goal[i] <= 0:
                ratio = values[i] / (values[i] - goal[i]) if values[i] > 0 else 0.0
                if place < 0 or ratio < step or (ratio == step and goal[i] < goal[place]):
                    step, place = ratio, i
        if place < 0:
            values[:size] = goal[:size]
            break
        for i in range(size):
            values[i] += step * (goal[i] - values[i])
        _leave(place, size, state)
        size -= 1
    return size


@kernel(fastmath=MATHS)
def _subtract(y, size, state, rest):
    """Fill rest = y - x [d], from the basis: the sum of the atoms would lose the digits that large values cancel."""
    basis, half = state[2], state[4]
    rest[:] = y
    for i in range(size):
        for j in range(len(rest)):
            rest[j] -= half[i] * basis[i, j]
    return np.sqrt(dot(rest, rest, len(rest)))


@kernel(fastmath=MATHS)
def _steepest(columns, norms, rest, floor, is_shut, state, size):
    """The open atom at the smallest angle to ``rest``; -1 if none has <rest, a> above floor |a|."""
    best, found = floor, -1
    for j in range(len(columns)):
        if not is_shut[j] and norms[j] > 0:
            slope = dot(columns[j], rest, len(rest)) / norms[j]
            if slope > best and not np.any(state[0][:size] == j):
                best, found = slope, j
    return found


@kernel(fastmath=MATHS)
def _descend(columns, norms, y, tolerance, most, size, state):
    """Let atoms enter, at most ``most`` times; the new size, and how many did or were refused."""
    rest, goal, is_shut = np.zeros(len(y)), np.zeros(len(state[0])), np.zeros(len(columns), np.bool_)
    length = np.sqrt(dot(y, y, len(y)))
    size = _walk(size, state, goal)
    distance = _subtract(y, size, state, rest)
    nearest, rounds = distance, 0
    while rounds < most and size < len(goal):
        atom = _steepest(columns, norms, rest, tolerance * distance + NOISE * length, is_shut, state, size)
        if atom < 0:
            break
        rounds += 1
        is_shut[atom] = True
        if _enter(columns, y, atom, size, state):
            size = _walk(size + 1, state, goal)
            distance = _subtract(y, size, state, rest)
            if distance < nearest:
                nearest = distance
                is_shut[:] = False
    return size, rounds


@kernel()
def _solve_row(columns, norms, y, tolerance, most, code):
    """Rewrite the code [n] of y, from the atoms where it is positive; the number of rounds.

    It starts at zero, not at the code's values, which may be off by any amount.
    """
    number, dim = columns.shape
    capacity, size = min(number, dim), 0
    state = (
        np.zeros(capacity, np.int64),
        np.zeros(capacity),
        np.zeros((capacity, dim)),
        np.zeros((capacity, capacity)),
        np.zeros(capacity),
    )
    for atom in range(number):
        if code[atom] > 0 and size < capacity and _enter(columns, y, atom, size, state):
            size += 1
    size, rounds = _descend(columns, norms, y, tolerance, most, size, state)
    code[:] = 0.0
    for i in range(size):
        code[state[0][i]] = state[1][i]
    return rounds


def certify(atoms: np.ndarray, right: np.ndarray, codes: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The gradient [B, n] of 0.5 |x - y|^2 in the codes [B, n], and which of them miss the optimality conditions, [B].

    These are <x - y, a> >= 0 for each atom of [d, n] and = 0 for the active ones, up to |a| (tolerance |x - y| + NOISE
    |y|). A NaN misses them.
    """
    difference = codes @ atoms.T - right
    gradient = difference @ atoms
    norms = np.linalg.norm(atoms, axis=0)
    slack = NOISE * np.linalg.norm(right, axis=1) + tolerance * np.linalg.norm(difference, axis=1)
    excess = np.where(codes > 0, np.abs(gradient), -gradient) - slack[:, None] * norms
    return gradient, ~(excess.max(1) <= 0)


def solve(
    atoms: np.ndarray, right: np.ndarray, codes: np.ndarray, most: np.ndarray, tolerance: float, threads: int
) -> np.ndarray:
    """Rewrite ``codes`` [B, n] of right-hand sides [B, d] over atoms [d, n], from the sets of the positive ones.

    Args:
        most: [B], rounds in which an atom may enter.
        tolerance: as in ``certify``.
        threads: solve one right-hand side each.

    Returns:
        the numbers of rounds, [B].
    """
    columns, right = np.ascontiguousarray(atoms.T), np.ascontiguousarray(right)
    norms = np.linalg.norm(columns, axis=1)
    with ThreadPoolExecutor(threads) as pool:
        rounds = pool.map(
            lambda b: _solve_row(columns, norms, right[b], tolerance, most[b], codes[b]), range(len(right))
        )
        return np.fromiter(rounds, np.int64, len(right))
