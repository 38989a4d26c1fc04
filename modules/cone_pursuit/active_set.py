"""The active-set method of Lawson and Hanson for one right-hand side or many of one dictionary, compiled.

A round finds the descent along all atoms by the residual in the space of the data, in O(d n); several atoms enter at
once, and the walk to least squares ends lower than it began, so that no set returns. The last round gives the gradient
and shows whether the optimality conditions are met. Many right-hand sides share the Gram matrix of all atoms: their
rounds take O(k n) until it shows no descent, and only then go on in the space of the data, which gives back the digits
that the Gram matrix loses.

Letters: n atoms, d dimension, B right-hand sides, k active atoms.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from modules.cone_pursuit.active_rounds import solve_few, solve_rows

FEW, SHARED = 3, 20
"""Right-hand sides that are too few for a Gram matrix; of more, each pays for that of so many atoms."""
THREADED = 300_000
"""Threads are worth their start from so many numbers of the dictionary times right-hand sides on."""
NOTHING = np.empty((0, 0))


def active_set(atoms: np.ndarray, right: np.ndarray, threads: int) -> tuple[np.ndarray, np.ndarray, list[int]] | None:
    """Coefficients [B, n], the gradient [B, n] of 0.5 |x - y|^2 and which right-hand sides miss the conditions.

    These, of optimality, are with x = ``atoms`` c: <x - y, a> >= 0 for each atom and = 0 for the active ones, up to |a|
    (TOLERANCE |x - y| + NOISE |y|). They are missed where an atom is needed that is too close to the span of others,
    and where round-off in badly conditioned sets is larger. None where a squared norm is not safe or a number not
    finite.

    Args:
        atoms: float64 [d, n].
        right: float64 [B, d].
        threads: each takes a share of many right-hand sides.
    """
    right, shape = _in_c_order(right), (len(right), atoms.shape[1])
    codes, gradient, is_missed = np.empty(shape), np.empty(shape), np.empty(len(right), np.bool_)
    if len(right) <= FEW:
        is_columns = atoms.T.flags.carray
        matrix = atoms.T if is_columns else _in_c_order(atoms)
        misses = solve_few(matrix, is_columns, right, codes, gradient, is_missed)
    else:
        misses = _solve_many(_in_c_order(atoms.T), right, codes, gradient, is_missed, threads)
    return None if misses < 0 else (codes, gradient, np.flatnonzero(is_missed).tolist() if misses else [])


def _solve_many(
    columns: np.ndarray, right: np.ndarray, codes: np.ndarray, gradient: np.ndarray, is_missed: np.ndarray, threads: int
) -> int:
    """``solve_rows``, where it is worth it with the Gram matrix and in threads."""
    gram, targets = NOTHING, NOTHING
    if SHARED * len(right) >= len(columns):
        with np.errstate(over="ignore", invalid="ignore"):  # of numbers that are not safe
            gram, targets = columns @ columns.T, right @ columns.T
    if threads == 1 or columns.size * len(right) < THREADED:
        return int(solve_rows(columns, gram, targets, right, codes, gradient, is_missed))
    return _in_threads(threads, columns, gram, targets, right, codes, gradient, is_missed)


def _in_c_order(array: np.ndarray) -> np.ndarray:
    """Itself or a copy in C order, aligned and writeable: others would be other types to compile for."""
    return array if array.flags.carray else np.array(array, order="C")


def _in_threads(threads: int, columns: np.ndarray, gram: np.ndarray, *rows: np.ndarray) -> int:
    """``solve_rows`` with a share of the rows for each thread."""
    bounds = np.linspace(0, len(rows[-1]), threads + 1).astype(int)
    shares = [slice(*pair) for pair in itertools.pairwise(bounds) if pair[0] < pair[1]]
    with ThreadPoolExecutor(threads) as pool:
        misses = list(pool.map(lambda share: solve_rows(columns, gram, *(each[share] for each in rows)), shares))
    return -1 if -1 in misses else sum(misses)
