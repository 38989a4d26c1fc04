"""The Cholesky factor of the active atoms' Gram matrix, compiled: atoms enter and leave, values walk to least squares.

Of a right-hand side, five arrays hold what is active, each of the first ``size`` entries or rows: ``atoms`` (indices),
their ``values``, the lower triangle ``factor``, the forward solution ``half`` (factor half = inner products with y) and
room for a ``goal`` of the values. An atom that enters extends the triangle by a row, one that leaves rotates the rows
below it back into a triangle, in O(size^2).
"""

import numpy as np

from modules.components.kernels import kernel

DEPENDENT = 1e-11
"""An atom whose squared distance from the span of the active ones is this share of its own is not taken."""
TINY = 1e-300
MATHS = {"reassoc", "contract", "nsz"}


@kernel(fastmath=MATHS)
def _forward(factor, right, size, out):
    """factor out = right."""
    for i in range(size):
        value = right[i]
        for j in range(i):
            value -= factor[i, j] * out[j]
        out[i] = value / factor[i, i]


@kernel(fastmath=MATHS)
def _backward(factor, right, size, out):
    """factor^T out = right, which may be ``out``."""
    for i in range(size):
        out[i] = right[i]
    for i in range(size - 1, -1, -1):
        value = out[i] / factor[i, i]
        out[i] = value
        for j in range(i):
            out[j] -= value * factor[i, j]


@kernel(fastmath=MATHS)
def add(square, cross, target, size, factor, half, goal):
    """Extend the triangle by an atom of these inner products with itself, the active ones and y; False if they span
    it."""
    _forward(factor, cross, size, goal)
    rest = square
    for i in range(size):
        factor[size, i] = goal[i]
        rest -= goal[i] * goal[i]
        target -= goal[i] * half[i]
    if rest <= DEPENDENT * square:
        return False
    factor[size, size] = np.sqrt(rest)
    half[size] = target / factor[size, size]
    return True


@kernel(fastmath=MATHS)
def _drop(atoms, values, size, factor, half, place):
    """Remove the atom at ``place``: the rows below move up, and rotations of two columns make them triangular."""
    for i in range(place, size - 1):
        atoms[i] = atoms[i + 1]
        values[i] = values[i + 1]
        for j in range(i + 2):
            factor[i, j] = factor[i + 1, j]
    for i in range(place, size - 1):
        length = np.sqrt(factor[i, i] ** 2 + factor[i, i + 1] ** 2)
        cosine, sine = factor[i, i] / length, factor[i, i + 1] / length
        for j in range(i, size - 1):
            a, b = factor[j, i], factor[j, i + 1]
            factor[j, i], factor[j, i + 1] = cosine * a + sine * b, cosine * b - sine * a
        a, b = half[i], half[i + 1]
        half[i], half[i + 1] = cosine * a + sine * b, cosine * b - sine * a


@kernel(fastmath=MATHS)
def _step(atoms, values, size, factor, half, goal):
    """Go to the goal, or until the first value would become negative, whose atom leaves. The new size."""
    step, place = 1.0, -1
    for i in range(size):
        if goal[i] <= 0:
            ratio = values[i] / max(values[i] - goal[i], TINY)
            if place < 0 or ratio < step:
                step, place = ratio, i
    for i in range(size):
        values[i] = max(values[i] + step * (goal[i] - values[i]), 0.0)
    if place < 0:
        return size
    _drop(atoms, values, size, factor, half, place)
    return size - 1


@kernel(fastmath=MATHS)
def walk(atoms, values, size, factor, half, goal):
    """Go to least squares on the active atoms; what would become negative on the way leaves. The new size."""
    before = size + 1
    while 0 < size < before:
        before = size
        _backward(factor, half, size, goal)
        size = _step(atoms, values, size, factor, half, goal)
    return size


@kernel(fastmath=MATHS)
def correct(descent, atoms, values, size, factor, half, goal):
    """A step of iterative refinement, by the descent [n] that is left along the active atoms. The new size."""
    for i in range(size):
        goal[i] = descent[atoms[i]]
    _forward(factor, goal, size, goal)
    _backward(factor, goal, size, goal)
    for i in range(size):
        goal[i] += values[i]
    return _step(atoms, values, size, factor, half, goal)
