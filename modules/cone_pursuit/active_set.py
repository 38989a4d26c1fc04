"""The active-set method of Lawson and Hanson for many right-hand sides of one dictionary, compiled.

All share one Gram matrix; each carries the Cholesky factor of its active atoms' part of it and the forward solution,
which an atom that enters extends by a row and one that leaves rotates back into a triangle, in O(k^2). Several atoms
enter at once; each walk to least squares ends lower than it began, so no set returns. At the end the residual in the
space of the data gives back the digits that the Gram matrix loses, where its condition allows.

Letters: n atoms, d dimension, B right-hand sides, k active atoms, S = min(d, n) of them at most.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modules.components.kernels import kernel

TOGETHER, ALIKE = 8, 0.5
"""Atoms that may enter at once, if their descent is at least this share of the steepest one's."""
DEPENDENT = 1e-11
"""An atom whose squared distance from the span of the active ones is this share of its own is not taken."""
TOLERANCE = 1e-11
"""The cosine of residual and atom counts as 0 up to this, and up to round-off."""
ROUNDS = 3
"""Rounds for each atom of the dictionary after which the method stops."""
MATHS = {"reassoc", "contract", "nsz"}


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
