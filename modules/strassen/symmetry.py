"""When two algorithms are the same: products in another order, with other signs, or in another basis."""

from itertools import pairwise, permutations, product

import numpy as np

from modules.strassen.bilinear import Algorithm


def canonical(algorithm: Algorithm) -> bytes:
    """Equal for algorithms that differ in the order of their products and in the signs within them, and for no others.

    The first non-zero entry of every row of W_a and W_b is made positive, W_c takes the signs, and the products are
    sorted.
    """
    rows = np.concatenate([algorithm.first, algorithm.second, algorithm.third.T], axis=1)
    edges = (0, algorithm.first.shape[1], algorithm.first.shape[1] + algorithm.second.shape[1])
    signs = np.ones(len(rows), np.int64)
    for low, high in pairwise(edges):
        part = rows[:, low:high]
        leading = part[np.arange(len(part)), (part != 0).argmax(1)]
        sign = np.where(leading < 0, -1, 1)
        part *= sign[:, None]
        signs *= sign
    rows[:, edges[2] :] *= signs[:, None]
    return rows[np.lexsort(rows.T[::-1])].astype(np.int8).tobytes()


def signed_permutations(size: int) -> list[np.ndarray]:
    """All matrices with one 1 or -1 in each row and column: size! 2^size."""
    found = []
    for order in permutations(range(size)):
        for signs in product((1, -1), repeat=size):
            matrix = np.zeros((size, size), np.int64)
            matrix[np.arange(size), order] = signs
            found.append(matrix)
    return found


def change_basis(algorithm: Algorithm, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Algorithm:
    """The algorithm of A B = x^T (x A y^T)(y B z^T) z for orthogonal x, y, z; exact if the given one is."""
    n, m, p = algorithm.shape
    first = np.einsum("qji,ik,jl->qlk", algorithm.first.reshape(-1, m, n), x, y).reshape(-1, n * m)
    second = np.einsum("qji,ik,jl->qlk", algorithm.second.reshape(-1, p, m), y, z).reshape(-1, m * p)
    third = np.einsum("jiq,ik,jl->lkq", algorithm.third.reshape(p, n, -1), x, z).reshape(n * p, -1)
    return Algorithm(algorithm.shape, first, second, third)


def signed_canonical(algorithm: Algorithm) -> bytes:
    """As ``canonical``, and equal for signed permutations of rows and columns of A, B and A B, too."""
    n, m, p = algorithm.shape
    bases = [signed_permutations(size) for size in (n, m, p)]
    # -x and x differ by signs within products, so half of the first ones are enough.
    halves = [x for x in bases[0] if x[0].sum() > 0]
    return min(canonical(change_basis(algorithm, x, y, z)) for x in halves for y in bases[1] for z in bases[2])


def rank_pattern(algorithm: Algorithm) -> tuple[tuple[int, int, int], ...]:
    """Ranks of the three matrices of each product, sorted: the same in every basis."""
    n, m, p = algorithm.shape
    parts = ((algorithm.first, m, n), (algorithm.second, p, m), (algorithm.third.T, p, n))
    ranks = [[int(np.linalg.matrix_rank(row.reshape(i, j))) for row in part] for part, i, j in parts]
    return tuple(sorted(zip(*ranks, strict=True)))


def count_different(algorithms: list[Algorithm]) -> dict[str, int]:
    """How many differ up to order and signs, up to signed permutations of the bases as well, and by ranks.

    Bases are tried where all three sides are at most 2: 256 changes there, against 55,296 for 3x3. Different ranks mean
    that no change of basis leads from one to the other, so that count is a lower bound.
    """
    unique = list({canonical(algorithm): algorithm for algorithm in algorithms}.values())
    found = {"order_and_signs": len(unique), "ranks": len({rank_pattern(algorithm) for algorithm in unique})}
    if unique and max(unique[0].shape) <= 2:
        found["signed_permutations"] = len({signed_canonical(algorithm) for algorithm in unique})
    return found
