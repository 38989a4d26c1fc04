"""The work of one solver call: checked points, blocks of rows in bounded memory, and sparse results.

Letters: N points, B rows of a block, D dimension.
"""

from collections.abc import Iterator

import torch
from scipy.sparse import csr_array
from torch import Tensor

from modules.subspace.pursuits import Atoms

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


class Work:
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

    def shorten(self) -> int:
        """Where there are far more dimensions than points, change to coordinates in the points' span, which keep all
        inner products up to round-off; the number of dimensions after that."""
        number, dim = self.points.shape
        if self.is_self and dim >= 2 * number:
            self.points = self.queries = torch.linalg.qr(self.points.T, mode="r").R.T.contiguous()
        return self.points.shape[1]

    def block_size(self, numbers_per_row: int) -> int:
        """How many rows of so many numbers fit into the memory, or into a CPU's cache."""
        row_bytes = numbers_per_row * self.points.element_size()
        size = int(self.memory // max(row_bytes, 1))
        if self.points.device.type == "cpu":
            size = min(size, max(128, CACHE_BYTES // (len(self.points) * self.points.element_size())))
        return max(1, min(size, 4096, len(self.rows)))

    def blocks(self, numbers_per_row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(queries [B, D], own [B, 1], or [B, 0] if they are not in the set), ``block_size`` rows at a time."""
        for rows in self.rows.split(self.block_size(numbers_per_row)):
            rows = rows.to(self.points.device)
            yield self.queries[rows], rows[:, None][:, : int(self.is_self)]

    def atoms(self, gram_pays: bool, numbers_per_row: int) -> Atoms:
        number = len(self.points)
        fits = number * number * self.points.element_size() <= self.memory
        is_worth_it = gram_pays and fits and len(self.rows) * 4 >= number
        scratch = self.points.new_empty(self.block_size(numbers_per_row), number)
        return Atoms(self.points, self.points @ self.points.T if is_worth_it else None, scratch)


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> csr_array:
    """CSR matrix; entries at the same place are added, zeros dropped."""
    matrix = csr_array((values.cpu().numpy(), (rows.cpu().numpy(), columns.cpu().numpy())), shape=shape)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def from_lists(columns: Tensor, values: Tensor, number: int) -> csr_array:
    """CSR [B, number] of ``columns`` and ``values`` [B, K]; column -1 means no entry."""
    rows = torch.arange(len(columns), device=columns.device)[:, None].expand_as(columns)
    named = columns >= 0
    return _sparse(rows[named], columns[named], values[named], (len(columns), number))


def from_dense(block: Tensor) -> csr_array:
    rows, columns = block.nonzero(as_tuple=True)
    return _sparse(rows, columns, block[rows, columns], (block.shape[0], block.shape[1]))
