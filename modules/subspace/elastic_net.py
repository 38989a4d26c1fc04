"""Elastic-net self-expression by an active set, after You, Li, Robinson and Vidal (CVPR 2016; ORGEN).

Letters: N points, B of them coded at once, D dimension. With c_j = 0 for a point of the set itself, each point solves

    min  l |c|_1 + m/2 |c|^2 + 1/2 |x - X^T c|^2

which is their  lambda |c|_1 + (1 - lambda)/2 |c|^2 + gamma/2 |x - X^T c|^2  divided by gamma. A round correlates all
residuals with all points at once; in it every row takes the points that miss the optimality condition |<x_i, r>| <= l
most, and goes to the optimum over the points that it has by coordinate descent. It ends when none misses.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from modules.components.kernels import kernel

ENTERING = 24
"""Points that a row takes in a round: few enough that most of them stay."""
SWEEPS = 2000
"""Of coordinate descent in a round; what it has not reached then, the next round goes on with."""


@kernel(fastmath={"reassoc", "contract"})
def _dot(first, second):
    total = first[0] - first[0]
    for i in range(len(first)):
        total += first[i] * second[i]
    return total


@kernel()
def _entering(correlation, values, own, limit, picks):
    """Fill ``picks`` with the points outside the support that miss the condition most; how many they are."""
    count = 0
    for i in range(len(values)):
        size = abs(correlation[i])
        if size > limit and values[i] == 0 and i != own:
            if count == len(picks) and size <= abs(correlation[picks[count - 1]]):
                continue
            place = min(count, len(picks) - 1)
            while place > 0 and abs(correlation[picks[place - 1]]) < size:
                picks[place] = picks[place - 1]
                place -= 1
            picks[place] = i
            count = min(count + 1, len(picks))
    return count


@kernel()
def _descend(points, squares, active, values, residual, threshold, ridge, tolerance):
    """Cyclic coordinate descent over ``active``; ``values`` [N] and ``residual`` [D] are worked on in place."""
    for _ in range(SWEEPS):
        largest = 0.0
        for i in active:
            before = values[i]
            slope = before * squares[i] + _dot(points[i], residual)
            shrunk = np.sign(slope) * max(abs(slope) - threshold, 0)
            values[i] = shrunk / (squares[i] + ridge)
            moved = before - values[i]
            if moved != 0:
                for d in range(len(residual)):
                    residual[d] += moved * points[i, d]
                largest = max(largest, abs(moved) * squares[i])
        if largest <= tolerance * threshold:
            break


@kernel()
def _round(points, squares, correlation, own, thresholds, ridges, tolerance, values, residual, is_open):
    """One round of the rows that are open; a row that no point may enter is closed."""
    picks = np.zeros(ENTERING, np.int64)
    for j in range(len(values)):
        if not is_open[j]:
            continue
        found = _entering(correlation[j], values[j], own[j], thresholds[j] * (1 + tolerance), picks)
        if found == 0:
            is_open[j] = False
            continue
        active = np.concatenate((np.flatnonzero(values[j]), picks[:found]))
        _descend(points, squares, active, values[j], residual[j], thresholds[j], ridges[j], tolerance)


def largest_correlations(points: Tensor, queries: Tensor, own: Tensor) -> Tensor:
    """max_i |<x_i, x_j>| over the other points, [B]."""
    magnitude = (queries @ points.T).abs_()
    return magnitude.scatter_(1, own, 0.0).amax(1)


def elastic_net_block(
    points: Tensor,
    queries: Tensor,
    own: Tensor,
    thresholds: Tensor,
    ridges: Tensor,
    max_rounds: int,
    tolerance: float,
) -> Tensor:
    """Coefficients [B, N] of ``queries`` [B, D] over ``points`` [N, D], on the CPU.

    Args:
        own: int64 [B, 1], each query's place among the points; [B, 0] if they are not among them.
        thresholds, ridges: l and m of each row, [B]; a row whose l is 0 stays empty.
        max_rounds: after which a row is left as it is.
        tolerance: by which a point may miss its condition, relative to l.
    """
    atoms, residual = points.numpy(), queries.numpy().copy()
    squares = np.square(atoms).sum(1)
    values = np.zeros((len(residual), len(atoms)), atoms.dtype)
    places = own[:, 0].numpy() if own.shape[1] else np.full(len(residual), -1)
    limits, weights = thresholds.numpy(), ridges.numpy()
    is_open = limits > 0
    threads = max(1, min(torch.get_num_threads(), len(residual)))
    bounds = np.linspace(0, len(residual), threads + 1).astype(int)

    def part(rows: slice) -> None:
        state = values[rows], residual[rows], is_open[rows]
        _round(atoms, squares, correlation[rows], places[rows], limits[rows], weights[rows], tolerance, *state)

    with ThreadPoolExecutor(threads) as pool:
        for _ in range(max_rounds):
            if not is_open.any():
                break
            correlation = residual @ atoms.T
            list(pool.map(part, map(slice, bounds[:-1], bounds[1:])))
    return torch.from_numpy(values)
