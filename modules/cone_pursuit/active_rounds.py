"""The rounds of the active-set method, compiled: see active_set.py.

Letters: n atoms, d dimension, B right-hand sides, k active atoms.
"""

from typing import Any

import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from modules.components.kernels import kernel
from modules.cone_pursuit.active_factor import MATHS, add, correct, walk

TOGETHER, ALIKE = 8, 0.5
"""Atoms that may enter at once, if their cosine with the residual is at least this share of the largest."""
TOLERANCE, NOISE = 1e-11, 16 * float(np.finfo(np.float64).eps)
"""A cosine of residual and atom counts as 0 up to the first; the second, as a share of |y|, is the round-off of inner
products with unit vectors."""
ROUNDS, CORRECTIONS = 3, 3
"""Rounds for each atom of the dictionary after which the method stops; corrections of one set of active atoms."""
SAFE = (1e-200, 1e200)
"""Squared norms that need no scaling; nor do zeros."""


@kernel(fastmath=MATHS)
def _dot(first, i, second, j):
    """The inner product of two rows of two matrices: views of short rows would cost more than the product."""
    total = 0.0
    for m in range(first.shape[1]):
        total += first[i, m] * second[j, m]
    return total


@kernel(fastmath=MATHS)
def _norm(matrix, i):
    """The norm of a row; -1 where its square is not safe, or not a number."""
    square = _dot(matrix, i, matrix, i)
    if SAFE[0] < square < SAFE[1]:
        return np.sqrt(square)
    for j in range(matrix.shape[1]):
        if matrix[i, j] != 0.0:
            return -1.0
    return 0.0


@kernel(fastmath=MATHS)
def _descend_by_gram(gram, targets, b, atoms, values, size, descent):
    """descent = targets[b] - gram c, two rows of the Gram matrix at a time."""
    for j in range(len(descent)):
        descent[j] = targets[b, j]
    for i in range(0, size - 1, 2):
        first, second, u, v = atoms[i], atoms[i + 1], values[i], values[i + 1]
        for j in range(len(descent)):
            descent[j] -= u * gram[first, j] + v * gram[second, j]
    if size % 2:
        last, u = atoms[size - 1], values[size - 1]
        for j in range(len(descent)):
            descent[j] -= u * gram[last, j]


@kernel(fastmath=MATHS)
def _descend(columns, right, b, atoms, values, size, rest, descent):
    """rest = y - x, [1, d], and descent = columns rest. The norm of the rest."""
    for j in range(right.shape[1]):
        rest[0, j] = right[b, j]
    for i in range(size):
        atom, value = atoms[i], values[i]
        for j in range(right.shape[1]):
            rest[0, j] -= value * columns[atom, j]
    for i in range(len(columns)):
        descent[i] = _dot(columns, i, rest, 0)
    return np.sqrt(_dot(rest, 0, rest, 0))


@kernel(fastmath=MATHS)
def _is_flat(descent, lengths, slack, atoms, size):
    """Whether the values of the active atoms are at their minimum, up to the slack. With a NaN they are not."""
    for i in range(size):  # noqa: SIM110 (numba has no generators in all())
        if not abs(descent[atoms[i]]) <= slack * lengths[atoms[i]]:
            return False
    return True


@kernel(fastmath=MATHS)
def _is_optimal(descent, lengths, slack, atoms, size):
    """Whether this is so and no other atom descends."""
    for i in range(len(descent)):
        if not descent[i] <= slack * lengths[i]:
            return False
    return _is_flat(descent, lengths, slack, atoms, size)


@kernel(fastmath=MATHS)
def _steepest(descent, lengths, slack, atoms, size, is_shut, picks, cosines):
    """The atoms of the largest cosines above the slack, at most len(picks), and how many of them are about as large."""
    for i in range(len(descent)):
        cosines[i] = 0.0 if is_shut[i] or lengths[i] == 0 else descent[i] / lengths[i]
    for i in range(size):
        cosines[atoms[i]] = 0.0
    count = 0
    for j in range(len(cosines)):
        value = cosines[j]
        if value > slack and (count < len(picks) or value > cosines[picks[count - 1]]):
            i = count if count < len(picks) else count - 1
            while i > 0 and cosines[picks[i - 1]] < value:
                picks[i] = picks[i - 1]
                i -= 1
            picks[i] = j
            count = min(count + 1, len(picks))
    found = 0
    while found < count and cosines[picks[found]] >= ALIKE * cosines[picks[0]]:
        found += 1
    return found


@kernel(fastmath=MATHS)
def _enter(picks, columns, gram, targets, right, b, lengths, atoms, values, size, factor, half, is_shut, cross, goal):
    """Take the picked atoms with values 0; shut out those that the active ones span. The new size."""
    for atom in picks:
        if size == len(half):
            is_shut[atom] = True
            continue
        for i in range(size):
            cross[i] = gram[atom, atoms[i]] if len(gram) else _dot(columns, atom, columns, atoms[i])
        target = targets[b, atom] if len(gram) else _dot(columns, atom, right, b)
        if add(lengths[atom] ** 2, cross, target, size, factor, half, goal):
            atoms[size], values[size] = atom, 0.0
            size += 1
        else:
            is_shut[atom] = True
    return size


@kernel(fastmath=MATHS)
def solve_rows(columns, gram, targets, right, codes, gradient, is_missed):
    """Fill the last three, see ``active_set``, with gram = columns columns^T and targets = right columns^T or with
    both of length 0. The number of misses; -1, and they are of no use, if the square of a norm is not safe."""
    number, dim = columns.shape
    lengths, capacity = np.empty(number), min(number, dim)
    for i in range(number):
        lengths[i] = _norm(columns, i)
        if lengths[i] < 0:
            return -1
    factor, half, goal = np.empty((capacity, capacity)), np.empty(capacity), np.empty(capacity)
    cross, values, rest = np.empty(capacity), np.empty(capacity), np.empty((1, dim))
    atoms, descent, cosines = np.empty(capacity, np.int64), np.empty(number), np.empty(number)
    is_shut, picks = np.empty(number, np.bool_), np.empty(TOGETHER, np.int64)
    for b in range(len(right)):
        length, size, corrections = _norm(right, b), 0, 0
        if length < 0:
            return -1
        by_gram, distance, best, is_missed[b] = len(gram) > 0, np.inf, np.inf, True
        is_shut[:] = False
        for _ in range(ROUNDS * number + CORRECTIONS + 2):
            if by_gram:
                _descend_by_gram(gram, targets, b, atoms, values, size, descent)
                slack = TOLERANCE * length
            else:
                distance = _descend(columns, right, b, atoms, values, size, rest, descent)
                slack = NOISE * length + TOLERANCE * distance
            found = 0
            if by_gram or distance < best:  # otherwise what entered last was round-off
                found = _steepest(descent, lengths, slack, atoms, size, is_shut, picks, cosines)
            if found:
                before = size
                size = _enter(
                    picks[:found], columns, gram, targets, right, b, lengths,
                    atoms, values, size, factor, half, is_shut, cross, goal,
                )  # fmt: skip
                if size > before:
                    is_shut[:], best, corrections = False, distance, 0
                    size = walk(atoms, values, size, factor, half, goal)
            elif by_gram:
                by_gram = False
            else:
                is_met = _is_optimal(descent, lengths, slack, atoms, size)
                if is_met and (corrections or _is_flat(descent, lengths, NOISE * length, atoms, size)):
                    is_missed[b] = False
                if not is_missed[b] or corrections == CORRECTIONS:
                    break
                size = correct(descent, atoms, values, size, factor, half, goal)
                corrections += 1
        for i in range(number):
            codes[b, i], gradient[b, i] = 0.0, -descent[i]
        for i in range(size):
            codes[b, atoms[i]] = values[i]
    return np.sum(is_missed)


@kernel(fastmath=MATHS)
def solve_few(matrix, is_columns, right, codes, gradient, is_missed):
    """The same for the columns or their transpose, without a Gram matrix."""
    columns = matrix
    if not is_columns:
        columns = np.empty((matrix.shape[1], matrix.shape[0]))
        for i in range(matrix.shape[1]):
            for j in range(matrix.shape[0]):
                columns[i, j] = matrix[j, i]
    nothing = np.empty((0, 0))
    return solve_rows(columns, nothing, nothing, right, codes, gradient, is_missed)


@intrinsic
def _pointer(_: Any, address: Any) -> Any:
    """A whole number as the address of float64 numbers."""

    def convert(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.CPointer(types.float64)))

    return types.CPointer(types.float64)(address), convert


@kernel(fastmath=MATHS)
def solve_at(dictionary, right, dim, codes, gradient):
    """Fill [B, n] and [B, n] for the addresses of a dictionary [d, n] and right-hand sides [B, d]: ``Tensor.numpy``
    for both takes a fifth of the time of a small problem. Whether the numbers are safe and the conditions are met."""
    number, num_atoms = codes.shape
    matrix = carray(_pointer(dictionary), (dim, num_atoms))  # type: ignore[call-arg]
    rows = carray(_pointer(right), (number, dim))  # type: ignore[call-arg]
    return solve_few(matrix, False, rows, codes, gradient, np.empty(number, np.bool_)) == 0
