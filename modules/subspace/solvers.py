"""Sparse self-expression by five methods: every point as a combination of few others (section 3 of the sheet).

    points [N, D] --blocks of rows--> private step --> coefficients, scipy CSR [B, N]

Rows are points; row j of the result represents point j (the paper writes it as column j), and its entry j is zero.
``queries`` [B, D] are coded instead of the points where given, ``rows`` restricts the work to some points, which is
how several processes share it. Memory beyond the points is bounded by ``memory_gib``: a block of rows is worked on at
a time, and the N x N Gram matrix is made only where it fits in and saves time. The device is that of the points, the
result is on the CPU. Everything is computed in the precision of ``points``: float64 unless you give float32.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from modules.subspace import lasso, neighbors, pursuits
from modules.subspace.pursuits import Atoms, Pursuit, Stop

CACHE_BYTES = 2**23
"""Correlations of one block on a CPU: they are read several times and should stay in its cache."""


def check_points(points: Tensor, name: str = "points", least: int = 2) -> Tensor:
    """``points`` as a floating-point matrix.

    Raises:
        ValueError: if it is not a matrix of at least ``least`` rows, is empty, or holds NaN or infinity.
    """
    if points.ndim != 2 or points.shape[1] < 1:
        raise ValueError(f"{name} must be a matrix [N, D], not of shape {tuple(points.shape)}")
    if len(points) < least:
        raise ValueError(f"{len(points)} {name}: at least {least} are needed")
    points = points if points.is_floating_point() else points.double()
    bad = (~torch.isfinite(points)).any(1)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"{int(bad.sum())} of {len(points)} {name} hold NaN or infinity, the first is row {row}")
    return points


def check_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, not {value}")


class _Work:
    """The checked points of one call, its blocks, and where the rows come from."""

    def __init__(self, points: Tensor, queries: Tensor | None, rows: Tensor | None, memory_gib: float) -> None:
        check_positive(memory_gib=memory_gib)
        self.points = check_points(points)
        self.queries = self.points
        if queries is not None:
            self.queries = check_points(queries, "queries", 1).to(self.points)
            if self.queries.shape[1] != self.points.shape[1]:
                raise ValueError(f"queries have dimension {self.queries.shape[1]}, points {self.points.shape[1]}")
        self.is_self = queries is None
        self.rows = torch.arange(len(self.queries)) if rows is None else rows.cpu()
        self.memory = memory_gib * 2**30

    def blocks(self, numbers_per_row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(queries [B, D], own [B, 1], or [B, 0] if they are not in the set) with as many rows B of so many numbers
        as fit into the memory, or into a CPU's cache."""
        row_bytes = numbers_per_row * self.points.element_size()
        size = int(self.memory // max(row_bytes, 1))
        if self.points.device.type == "cpu":
            size = min(size, max(64, CACHE_BYTES // (len(self.points) * self.points.element_size())))
        for rows in self.rows.split(max(1, min(size, 4096))):
            rows = rows.to(self.points.device)
            yield self.queries[rows], rows[:, None][:, : int(self.is_self)]

    def atoms(self, gram_pays: bool) -> Atoms:
        number = len(self.points)
        fits = number * number * self.points.element_size() <= self.memory
        is_worth_it = gram_pays and fits and len(self.rows) * 4 >= number
        return Atoms(self.points, self.points @ self.points.T if is_worth_it else None)


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> csr_array:
    """CSR matrix; entries at the same place are added, zeros dropped."""
    matrix = csr_array((values.cpu().numpy(), (rows.cpu().numpy(), columns.cpu().numpy())), shape=shape)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _from_lists(columns: Tensor, values: Tensor, number: int) -> csr_array:
    """CSR [B, number] of ``columns`` and ``values`` [B, K]; column -1 means no entry."""
    rows = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
    named = columns >= 0
    return _sparse(rows[named], columns[named], values[named], (len(columns), number))


def _from_dense(block: Tensor) -> csr_array:
    rows, columns = block.nonzero(as_tuple=True)
    return _sparse(rows, columns, block[rows, columns], (block.shape[0], block.shape[1]))


def omp_path(
    points: Tensor,
    max_atoms: int | None = None,
    tolerance: float = 0.0,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> Iterator[Pursuit]:
    """The steps of SSC-OMP, block by block; see ``ssc_omp``. A looser bound stops at a prefix of the same steps."""
    check_positive(max_atoms=max_atoms)
    work = _Work(points, queries, rows, memory_gib)
    number, dim = work.points.shape
    most = min(dim, number - 1 if work.is_self else number)
    if max_atoms is not None and max_atoms > most:
        raise ValueError(f"max_atoms is {max_atoms}; {number} points of dimension {dim} allow at most {most}")
    steps = max_atoms or most
    atoms = work.atoms(gram_pays=dim >= 8 * steps)
    for block, own in work.blocks(3 * number + steps * (dim + steps)):
        yield pursuits.omp_block(atoms, block, own, Stop(steps, steps, tolerance))


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
    check_positive(max_steps=max_steps, max_atoms=max_atoms)
    work = _Work(points, queries, rows, memory_gib)
    number, dim = work.points.shape
    distinct = min(max_atoms or number, number)
    atoms = work.atoms(gram_pays=dim > 64)
    for block, own in work.blocks(4 * number + dim):
        yield pursuits.mp_block(atoms, block, own, Stop(max_steps or 100 * distinct, distinct, tolerance))


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
        points: [N, D], used as they are: normalise them first if the experiment does.
        max_atoms: s_max; min(D, N - 1) if not given.
        tolerance: tau, a residual norm (not squared, not relative); 0 for data-independent stopping. A point also
            stops when its residual or the next atom's new direction is round-off.
        queries: points [B, D] to code instead.
        rows: indices of the points (or queries) to code; all if not given.
        memory_gib: bound on work space.

    Raises:
        ValueError: for values outside of their range, NaN, or more atoms than the points allow.
    """
    number = len(points)
    paths = omp_path(points, max_atoms, tolerance, queries, rows, memory_gib)
    return vstack([_from_lists(path.picks, path.values, number) for path in paths], format="csr")


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
        points: [N, D].
        max_steps: s_max; without it 100 steps for each of at most ``max_atoms`` (or N) atoms, since matching pursuit
            returns to old atoms and may take forever to find new ones.
        max_atoms: p_max, distinct atoms; N if not given.
        tolerance: tau, a residual norm, tested before each step.
        queries, rows, memory_gib: as in ``ssc_omp``.
    """
    number = len(points)
    paths = mp_path(points, max_steps, max_atoms, tolerance, queries, rows, memory_gib)
    return vstack([_from_lists(path.picks, path.values, number) for path in paths], format="csr")


def tsc(
    points: Tensor,
    num_neighbors: int = 3,
    queries: Tensor | None = None,
    rows: Tensor | None = None,
    memory_gib: float = 1.0,
) -> csr_array:
    """Thresholding-based clustering: weights of the ``num_neighbors`` (q) most parallel points (section 3.3)."""
    check_positive(num_neighbors=num_neighbors)
    work = _Work(points, queries, rows, memory_gib)
    number, units = len(points), neighbors.unit_rows(work.points)
    if num_neighbors > number - 1:
        raise ValueError(f"num_neighbors is {num_neighbors}; {number} points have at most {number - 1}")
    lists = [
        neighbors.tsc_block(units, neighbors.unit_rows(block), own, num_neighbors)
        for block, own in work.blocks(3 * number)
    ]
    return vstack([_from_lists(columns, values, number) for columns, values in lists], format="csr")


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
        max_dimension: k_max, points after which a subspace grows no more.
        slack: eps; points whose projection has norm at least 1 - eps are neighbours too.
        points, queries, rows, memory_gib: as in ``ssc_omp``.
    """
    check_positive(num_neighbors=num_neighbors, max_dimension=max_dimension)
    work = _Work(points, queries, rows, memory_gib)
    (number, dim), units = work.points.shape, neighbors.unit_rows(work.points)
    if num_neighbors > number - 1:
        raise ValueError(f"num_neighbors is {num_neighbors}; {number} points have at most {number - 1}")
    size = min(max_dimension, num_neighbors)
    blocks = [
        _from_dense(neighbors.nsn_block(units, neighbors.unit_rows(block), own, num_neighbors, size, slack).double())
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
        points: [N, D].
        alpha: weight of the fit, relative to the smallest weight at which some coefficient is not zero.
        outliers: False for noise (squared error), True for sparse outlying entries (absolute error).
        penalty: rho of ADMM; ``alpha`` if not given, as in the authors' code. It changes the speed only.
        max_iterations, tolerance: end; the tolerance bounds every entry of the primal and dual residuals.
        queries, rows, memory_gib: as in ``ssc_omp``.

    Raises:
        ValueError: also where all points are orthogonal to each other: nothing can be expressed.
    """
    check_positive(alpha=alpha, penalty=penalty, max_iterations=max_iterations)
    work = _Work(points, queries, rows, memory_gib)
    (number, dim), points = work.points.shape, work.points
    least = lasso.smallest_largest_correlation(points, max(1, min(4096, CACHE_BYTES // number)))
    if least == 0:
        raise ValueError("no two points are correlated: none can be expressed by the others")
    outlier_weight = alpha / lasso.second_largest_l1(points) if outliers else None
    weights = lasso.Weights(alpha / least, outlier_weight, penalty or alpha)
    solve = lasso.factorize(points, weights)
    codes = [
        _from_dense(lasso.admm_block(points, block, own, weights, solve, max_iterations, tolerance))
        for block, own in work.blocks(8 * number + 6 * dim)
    ]
    return vstack(codes, format="csr")


SOLVERS: dict[str, Callable[..., csr_array]] = {
    "omp": ssc_omp,
    "mp": ssc_mp,
    "tsc": tsc,
    "nsn": nsn,
    "lasso": ssc_lasso,
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
