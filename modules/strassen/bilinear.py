"""Algorithms for the product of an n x m and an m x p matrix with r multiplications, as three integer matrices.

Letters: r products; a (of A, n m of them), b (of B, m p) and o (of A B, n p) entries of the three matrices, counted
column by column: entry (i, j) of a matrix of n rows is number j n + i.

An algorithm computes vec(A B) = W_c ((W_a vec A) * (W_b vec B)). It is exact if and only if Brent's equations hold:
sum_q W_c[o, q] W_a[q, a] W_b[q, b] = T[o, a, b] for all o, a, b, in integers, without a tolerance and without samples.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MAX_SIDE, MAX_RANK, MAX_ENTRY = 16, 4096, 1000
"""What an algorithm from a file may have at most."""


class Algorithm(NamedTuple):
    """Of integers, int64."""

    shape: tuple[int, int, int]
    """n, m, p."""
    first: np.ndarray
    """W_a, [r, n m]."""
    second: np.ndarray
    """W_b, [r, m p]."""
    third: np.ndarray
    """W_c, [n p, r]."""

    @property
    def rank(self) -> int:
        return len(self.first)


def product_tensor(n: int, m: int, p: int) -> np.ndarray:
    """T [n p, n m, m p], int64: 1 where entry o of the product has the term a * b, n m p times."""
    tensor = np.zeros((n * p, n * m, m * p), np.int64)
    for i in range(n):
        for j in range(m):
            for k in range(p):
                tensor[k * n + i, j * n + i, k * m + j] = 1
    return tensor


def sides(sizes: tuple[int, int, int]) -> tuple[int, int, int]:
    """n, m, p from the entries n m, m p, n p of the three matrices.

    Raises:
        ValueError: if there are none.
    """
    first, second, third = sizes
    n = round((first * third / second) ** 0.5)
    if n < 1 or first % n or third % n or first // n * (third // n) != second:
        raise ValueError(f"no n, m, p have n m, m p, n p = {first}, {second}, {third}")
    return n, first // n, third // n


def is_exact(algorithm: Algorithm) -> bool:
    """Brent's equations, exactly.

    They are computed entry of A by entry of A in double precision, which matrix products are fast in. Every number on
    the way is an integer of at most 1000^3 4096 < 2^53, so none is rounded.

    Raises:
        ValueError: for more products or larger entries.
    """
    parts = (algorithm.first, algorithm.second, algorithm.third)
    if any(part.size and int(np.abs(part).max()) > MAX_ENTRY for part in parts) or algorithm.rank > MAX_RANK:
        raise ValueError(f"an algorithm may have {MAX_RANK} products and entries up to {MAX_ENTRY}")
    first, second, third = (part.astype(np.float64) for part in parts)
    target = product_tensor(*algorithm.shape)
    return all(
        bool((third @ (first[:, a, None] * second) == target[:, a]).all()) for a in range(algorithm.first.shape[1])
    )


def multiply(algorithm: Algorithm, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The product of block matrices left [n, m, k, k] and right [m, p, k, k] by the algorithm: [n, p, k, k].

    Blocks do not commute, so an algorithm that only works for numbers fails. With dtype object the integers are
    Python's and cannot overflow.
    """
    n, m, p = algorithm.shape
    size = left.shape[-1]
    a = left.transpose(1, 0, 2, 3).reshape(n * m, size, size)
    b = right.transpose(1, 0, 2, 3).reshape(m * p, size, size)
    x, y = (np.tensordot(w, v, 1) for w, v in ((algorithm.first, a), (algorithm.second, b)))
    products = np.stack([x[q] @ y[q] for q in range(algorithm.rank)])
    return np.tensordot(algorithm.third, products, 1).reshape(p, n, size, size).transpose(1, 0, 2, 3)


def multiplies_blocks(algorithm: Algorithm, seed: int = 0, size: int = 2) -> bool:
    """Whether random integer block matrices come out right: a second test, independent of Brent's equations."""
    random = np.random.default_rng(seed)
    n, m, p = algorithm.shape
    left = random.integers(-99, 100, (n, m, size, size)).astype(object)
    right = random.integers(-99, 100, (m, p, size, size)).astype(object)
    expected = np.stack([[sum(left[i, j] @ right[j, k] for j in range(m)) for k in range(p)] for i in range(n)])
    wide = Algorithm(algorithm.shape, *(part.astype(object) for part in algorithm[1:]))
    return bool((multiply(wide, left, right) == expected).all())


def rounded(weight: Tensor) -> Tensor:
    """-1, 0 or 1 for each real weight, with the threshold 0.5."""
    return weight.sign() * (weight.abs() > 0.5)


def defects(first: Tensor, second: Tensor, third: Tensor, target: Tensor) -> Tensor:
    """sum_q W_c W_a W_b - T of many starts at once.

    Args:
        first, second, third: [S, r, a], [S, r, b], [S, r, o] (W_c transposed).
        target: T, [o, a, b].

    Returns:
        [S, o, a, b]
    """
    pairs = (first.unsqueeze(3) * second.unsqueeze(2)).flatten(2)
    return (third.mT @ pairs).view(len(first), *target.shape) - target


def exact_starts(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """Which starts, bool [S], are exact once rounded; sums of products of -1, 0, 1 are exact in floating point."""
    target = torch.from_numpy(product_tensor(*sides((first.shape[2], second.shape[2], third.shape[2]))))
    errors = defects(rounded(first), rounded(second), rounded(third), target.to(first))
    return (errors == 0).flatten(1).all(1)
