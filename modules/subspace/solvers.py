"""Sparse self-expression by six methods: every point as a combination of few others (section 3 of the sheet).

    points [N, D] --blocks of rows--> private step --> coefficients, scipy CSR [B, N]

Rows are points; row j of the result represents point j (the paper writes it as column j), and its entry j is zero.
The device is that of the points, the result is on the CPU. Everything is computed in the precision of ``points``:
float64 unless you give float32. Points of any magnitude may be given: where squares would leave the range of their
precision, all are multiplied by a power of two, which changes no coefficient. Arguments that all solvers share:

    points      torch [N, D], used as they are: normalise them first if the experiment does
    queries     points [B, D] to code instead
    rows        indices of the points (or queries) to code, all if not given: how several processes share the work
    memory_gib  bound on memory beyond the points and the result: a block of rows (at least one) is worked on at a
                time, and the N x N Gram matrix is made only where it fits in and saves time

All raise ValueError for values outside of their range, for rows that are no indices of points, and for points that are
no matrix of finite numbers or so different in size that the smallest ones' squares are lost.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from modules.subspace import elastic_net, lasso, neighbors, pursuits
from modules.subspace.blocks import (
    CACHE_BYTES,
    Work,
    check_counts,
    check_positive,
    check_tolerance,
    from_dense,
    from_lists,
    given,
    is_real,
)
from modules.subspace.pursuits import Pursuit, Stop

MP_STEPS = 10
"""Of matching pursuit where nothing bounds it; the number of the paper's phase diagrams (Fig. 2)."""
MP_STEP_NUMBERS = 12
"""What a step of matching pursuit may take in memory: its tables, their growth, and their way into a sparse matrix."""


def omp_path(
    points: Tensor,
    max_atoms: int | None = None,
    tolerance: float = 0.0,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> Iterator[Pursuit]:
    """The steps of SSC-OMP, block by block; see ``ssc_omp``. A looser bound stops at a prefix of the same steps."""
    check_counts(**given(max_atoms=max_atoms))
    check_tolerance(tolerance)
    work = Work(points, queries, rows, memory_gib)
    number, dim = work.points.shape
    most = min(dim, number - 1 if work.is_self else number)
    if max_atoms is not None and max_atoms > most:
        raise ValueError(f"max_atoms is {max_atoms}; {number} points of dimension {dim} allow at most {most}")
    steps = max_atoms or most
    dim = work.shorten()
    numbers = 3 * number + steps * (dim + steps)
    atoms = work.atoms(dim >= 8 * steps, numbers)
    for block, own in work.blocks(numbers):
        yield in_unit(pursuits.omp_block(atoms, block, own, Stop(steps, steps, tolerance * work.scale)), work.scale)


def in_unit(path: Pursuit, scale: float) -> Pursuit:
    """``path`` of points that were multiplied by ``scale``, its residuals in the unit of the points as they were."""
    return path._replace(residuals=path.residuals.div_(scale))


def mp_path(
    points: Tensor,
    max_steps: int | None = None,
    max_atoms: int | None = None,
    tolerance: float = 0.0,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> Iterator[Pursuit]:
    """The steps of SSC-MP, block by block; see ``ssc_mp``."""
    check_counts(**given(max_steps=max_steps, max_atoms=max_atoms))
    check_tolerance(tolerance)
    work = Work(points, queries, rows, memory_gib)
    number, dim = len(work.points), work.shorten()
    distinct = min(max_atoms or number, number)
    steps = max_steps or (100 * min(distinct, dim) if max_atoms or tolerance else MP_STEPS)
    numbers = 4 * number + dim + MP_STEP_NUMBERS * steps
    atoms = work.atoms(max(dim, steps) > 64, numbers)
    for block, own in work.blocks(numbers):
        path = pursuits.mp_block(atoms, block, own, Stop(steps, distinct, tolerance * work.scale))
        yield in_unit(path, work.scale)


def ssc_omp(
    points: Tensor,
    max_atoms: int | None = None,
    tolerance: float = 0.0,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """Orthogonal matching pursuit of every point over the others (section 3.1).

    Args:
        max_atoms: s_max; min(D, N - 1), the most that the points allow, if not given.
        tolerance: tau, a residual norm (not squared, not relative); 0 for data-independent stopping. A point also
            stops when its residual or the next atom's new direction is round-off.
    """
    number = len(points)
    paths = omp_path(points, max_atoms, tolerance, queries, rows, memory_gib)
    return vstack([from_lists(path.picks, path.values, number) for path in paths], format="csr")


def ssc_mp(
    points: Tensor,
    max_steps: int | None = None,
    max_atoms: int | None = None,
    tolerance: float = 0.0,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """Matching pursuit of every point over the others (section 3.2).

    Args:
        max_steps: s_max; without it 100 steps for each of ``max_atoms`` (or N), at most D, atoms, since matching
            pursuit returns to old ones and may take forever to find new ones; MP_STEPS = 10 without any bound.
        max_atoms: p_max, distinct atoms; N if not given.
        tolerance: tau, a residual norm, tested before each step; 0 for data-independent stopping.
    """
    number = len(points)
    paths = mp_path(points, max_steps, max_atoms, tolerance, queries, rows, memory_gib)
    return vstack([from_lists(path.picks, path.values, number) for path in paths], format="csr")


def tsc(
    points: Tensor,
    num_neighbors: int = 3,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """Thresholding-based clustering: weights of the ``num_neighbors`` (q) most parallel points (section 3.3).

    A row has q non-zeros, orthogonal points among them if no others are left; only zero points have and are none.
    """
    check_counts(num_neighbors=num_neighbors)
    work = Work(points, queries, rows, memory_gib)
    number, units = len(points), neighbors.unit_rows(work.points)
    if num_neighbors > number - 1:
        raise ValueError(f"num_neighbors is {num_neighbors}; {number} points have at most {number - 1}")
    lists = [
        neighbors.tsc_block(units, neighbors.unit_rows(block), own, num_neighbors)
        for block, own in work.blocks(3 * number)
    ]
    return vstack([from_lists(columns, values, number) for columns, values in lists], format="csr")


def nsn(
    points: Tensor,
    num_neighbors: int = 20,
    max_dimension: int = 20,
    slack: float = 1e-4,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """Nearest subspace neighbours: 1 for each of K = ``num_neighbors`` greedy neighbours (section 3.4).

    Args:
        max_dimension: k_max, points after which a subspace grows no more. Where the points themselves span no more
            than that, all become neighbours of each other: N * N non-zeros.
        slack: eps in [0, 1); points whose projection has norm at least 1 - eps are neighbours too.

    Raises:
        ValueError: also where the subspaces would grow to the whole space, K >= D and k_max >= D.
    """
    check_counts(num_neighbors=num_neighbors, max_dimension=max_dimension)
    if not (is_real(slack) and 0 <= slack < 1):
        raise ValueError(f"slack must be in [0, 1), not {slack!r}")
    work = Work(points, queries, rows, memory_gib)
    (number, dim), units = work.points.shape, neighbors.unit_rows(work.points)
    if num_neighbors > number - 1:
        raise ValueError(f"num_neighbors is {num_neighbors}; {number} points have at most {number - 1}")
    size = min(max_dimension, num_neighbors)
    if size >= dim:
        raise ValueError(f"max_dimension is {max_dimension}; it must be less than the {dim} of the space")
    blocks = [
        from_dense(neighbors.nsn_block(units, neighbors.unit_rows(block), own, num_neighbors, size, slack).double())
        for block, own in work.blocks(4 * number + size * dim)
    ]
    return vstack(blocks, format="csr")


def ssc_lasso(
    points: Tensor,
    alpha: float = 20.0,
    outliers: bool = False,
    penalty: float | None = None,
    max_iterations: int = 200,
    tolerance: float = 2e-4,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """SSC: an l1-regularised fit of every point by the others (section 3.5), solved by ADMM.

    Args:
        alpha: weight of the fit, relative to the smallest weight at which some coefficient is not zero.
        outliers: False for noise (squared error), True for sparse outlying entries (absolute error).
        penalty: rho of ADMM; ``alpha`` if not given, as in the authors' code. It changes the speed only.
        max_iterations, tolerance: end; the tolerance bounds every entry of the primal and dual residuals.

    A few square matrices of size min(N, D) are made whatever ``memory_gib`` says. Points that are orthogonal to all
    others up to round-off have no coefficients, and do not count for the smallest weight.

    Raises:
        ValueError: also where all points are orthogonal to each other (nothing can be expressed), or some point
            correlates so little with the others that the linear system is singular.
    """
    check_positive(alpha=alpha, **given(penalty=penalty))
    check_counts(max_iterations=max_iterations)
    check_tolerance(tolerance)
    work = Work(points, queries, rows, memory_gib)
    (number, dim), points = work.points.shape, work.points
    least = lasso.smallest_largest_correlation(points, max(1, min(4096, CACHE_BYTES // number)))
    if least == 0:
        raise ValueError("no two points are correlated: none can be expressed by the others")
    outlier_weight = alpha / lasso.second_largest_l1(points) if outliers else None
    weights = lasso.Weights(alpha / least, outlier_weight, penalty or alpha, work.scale)
    solve = lasso.factorize(points, weights)
    codes = [
        from_dense(lasso.admm_block(points, block, own, weights, solve, max_iterations, tolerance))
        for block, own in work.blocks(8 * number + 6 * dim)
    ]
    return vstack(codes, format="csr")


def ssc_elastic_net(
    points: Tensor,
    alpha: float = 50.0,
    mixing: float = 0.9,
    max_rounds: int = 100,
    tolerance: float = 1e-3,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """EnSC: l1 and squared l2 norm together keep the neighbours of a point connected (You et al., CVPR 2016).

    Args:
        alpha: weight of the fit, relative for each point to the smallest weight at which it has a neighbour; above 1.
        mixing: lambda of the paper in (0, 1], the share of the l1 norm; 1 is the lasso, each point with a weight of its
            own.
        max_rounds, tolerance: end; the tolerance is what the optimality condition of a point may be missed by, as a
            share.

    Solved on the CPU, wherever the points are. A point that is orthogonal to all others up to round-off has no
    coefficients.

    Raises:
        ValueError: for values outside of their range.
    """
    check_positive(alpha=alpha, mixing=mixing, tolerance=tolerance)
    check_counts(max_rounds=max_rounds)
    if mixing > 1 or alpha <= 1:
        raise ValueError(f"need mixing of at most 1 and alpha above 1, got {mixing} and {alpha}")
    work = Work(points.cpu(), queries if queries is None else queries.cpu(), rows, memory_gib)
    points, largest = work.points, float(work.points.norm(dim=1).max())
    codes = []
    for block, own in work.blocks(3 * len(points) + 2 * points.shape[1]):
        peaks = elastic_net.largest_correlations(points, block, own)
        thresholds = torch.where(peaks > pursuits.round_off(block) * largest, peaks / alpha, 0.0)
        ridges = thresholds * ((1 - mixing) / mixing)
        found = elastic_net.elastic_net_block(points, block, own, thresholds, ridges, max_rounds, tolerance)
        codes.append(from_dense(found))
    return vstack(codes, format="csr")


SOLVERS: dict[str, Callable[..., csr_array]] = {
    "omp": ssc_omp,
    "mp": ssc_mp,
    "tsc": tsc,
    "nsn": nsn,
    "lasso": ssc_lasso,
    "elastic_net": ssc_elastic_net,
}


def solver(algorithm: str, options: dict[str, Any]) -> Callable[..., csr_array]:
    """The solver of that name with ``options`` bound.

    Raises:
        ValueError: for an unknown algorithm or option, naming the known ones.
    """
    if algorithm not in SOLVERS:
        raise ValueError(f"unknown algorithm {algorithm}: choose one of {', '.join(SOLVERS)}")
    function = SOLVERS[algorithm]
    known = [name for name in function.__annotations__ if name not in ("points", "queries", "rows", "return")]
    if unknown := [name for name in options if name not in known]:
        raise ValueError(f"{algorithm} has no option {unknown[0]}: choose from {', '.join(known)}")

    def bound(points: Tensor, **others: Any) -> csr_array:
        return function(points, **options, **others)

    return bound


def shard(number: int, rank: int, world_size: int) -> Tensor:
    """Rows that one of several processes codes: every ``world_size``-th, so that clusters spread evenly."""
    return torch.arange(rank, number, world_size)


def merge_shards(shards: list[csr_array]) -> csr_array:
    """The whole matrix from what ``shard`` 0, 1, ... gave, in the order of the points."""
    number = sum(part.shape[0] for part in shards)
    origin = np.concatenate([shard(number, rank, len(shards)).numpy() for rank in range(len(shards))])
    return csr_array(vstack(shards, format="csr")[np.argsort(origin)])
