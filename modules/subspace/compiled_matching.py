"""Matching pursuit with the Gram matrix, compiled for the CPU: one point after the other, all its steps at once.

Letters: N atoms, B points that are coded, D their dimension, S steps.

A step takes amount * G[pick] from the point's correlations and looks for their largest magnitude in the same pass,
CHUNK of them at a time, so that correlations are read from the cache and nothing of size [B, N] is stored in between.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from modules.components.kernels import kernel
from modules.subspace.row_peaks import CHUNK, as_integers, sign_free_mask

REFRESH = 100
"""Steps after which correlations are computed anew, since updates add up round-off."""
_ANY_ORDER = {"contract", "reassoc", "nnan", "nsz"}  # sums may use vector registers


@kernel(fastmath=_ANY_ORDER)
def _dot(first, second):
    total = first[0] * second[0]
    for d in range(1, len(first)):
        total += first[d] * second[d]
    return total


@kernel(fastmath={"contract"})
def _update_and_search(correlation, bits, mask, amount, change, own):
    """correlation -= amount * change, the entry ``own`` (-1: none) hidden: the first of the largest, -1 if all are 0.

    ``bits`` are the same numbers as integers, see row_peaks.py. A search of ``where`` starts in the right chunk.
    """
    number, top, where = len(correlation), mask - mask, -1
    for start in range(0, number, CHUNK):
        values, part = correlation[start : start + CHUNK], change[start : start + CHUNK]
        for i in range(len(values)):
            values[i] -= amount * part[i]
        if start <= own < start + len(values):
            values[own - start] = 0.0
        peak, integers = mask - mask, bits[start : start + CHUNK]
        for i in range(len(integers)):
            peak = max(peak, integers[i] & mask)
        if peak > top:
            top, where = peak, start
    while where >= 0 and bits[where] & mask != top:
        where += 1
    return where


@kernel()
def _wider(table, empty):
    result = np.full((table.shape[0], 2 * table.shape[1]), empty, table.dtype)
    result[:, : table.shape[1]] = table
    return result


@kernel()
def _pursue(points, gram, correlation, bits, mask, residual, own, max_steps, max_atoms, tolerance, floor):
    """All steps of the points ``residual`` [B, D]; it and ``correlation`` [B, N] are worked on in place.

    Returns picks, values, norms [B, more than S], unused places being -1, 0 and the last norm, and S of each point.
    """
    (size, dim), number = residual.shape, len(points)
    picks = np.full((size, min(max_steps, 16) + 1), -1)
    values, norms = np.zeros(picks.shape, residual.dtype), np.zeros(picks.shape, residual.dtype)
    counts, last = np.zeros(size, np.int64), np.zeros(size, residual.dtype)
    for j in range(size):
        rest, taken, distinct = residual[j], np.zeros(number, np.bool_), 0
        norm = np.sqrt(_dot(rest, rest))
        pick, amount, step = 0, norm - norm, 0
        while step < max_steps and distinct < max_atoms and norm > tolerance and norm > floor[j]:
            if step and step % REFRESH == 0:
                for i in range(number):
                    correlation[j, i] = _dot(points[i], rest)
                amount = norm - norm
            pick = _update_and_search(correlation[j], bits[j], mask, amount, gram[pick], own[j])
            if pick < 0:
                break
            amount = _dot(points[pick], rest) / gram[pick, pick]
            for d in range(dim):
                rest[d] -= amount * points[pick, d]
            norm = np.sqrt(_dot(rest, rest))
            if step + 1 == picks.shape[1]:
                picks, values, norms = _wider(picks, -1), _wider(values, 0), _wider(norms, 0)
            picks[j, step], values[j, step], norms[j, step] = pick, amount, norm
            distinct += not taken[pick]
            taken[pick] = True
            step += 1
        counts[j], last[j] = step, norm
    for j in range(size):
        norms[j, counts[j] :] = last[j]
    return picks, values, norms, counts


def matching_steps(
    points: np.ndarray,
    gram: np.ndarray,
    correlation: np.ndarray,
    queries: np.ndarray,
    own: np.ndarray,
    max_steps: int,
    max_atoms: int,
    tolerance: float,
    floor: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picks int64 (-1: stopped), values and residual norms [B, S] of ``queries`` [B, D].

    Args:
        points, gram: atoms [N, D] and their inner products [N, N], float32 or float64.
        correlation: [B, N] of the queries with the atoms; overwritten.
        own: int64 [B], each query's place among the atoms, -1 for none.
        max_steps, max_atoms, tolerance: as in ``pursuits.Stop``.
        floor: [B], norms of residuals that are round-off.
    """
    bits, mask = as_integers(correlation), sign_free_mask(correlation.dtype)
    residual = queries.copy()

    def part(rows: slice) -> tuple[np.ndarray, ...]:
        arrays = correlation[rows], bits[rows], mask, residual[rows], own[rows]
        return _pursue(points, gram, *arrays, max_steps, max_atoms, tolerance, floor[rows])

    threads = max(1, min(torch.get_num_threads(), len(queries)))
    bounds = np.linspace(0, len(queries), threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(part, map(slice, bounds[:-1], bounds[1:])))
    steps = max(int(counts.max(initial=0)) for *_, counts in parts)
    picks, values, norms = zip(*(tables[:3] for tables in parts), strict=True)
    return _stack(picks, steps), _stack(values, steps), _stack(norms, steps)


def _stack(tables: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Rows of all tables, cut to ``width`` or widened to it by what stands in their last, unused column."""
    missing = [max(0, width - table.shape[1]) for table in tables]
    padded = [np.pad(table, ((0, 0), (0, more)), "edge") for table, more in zip(tables, missing, strict=True)]
    return np.concatenate([table[:, :width] for table in padded])
