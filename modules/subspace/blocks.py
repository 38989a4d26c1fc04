"""The work of one solver call: checked points, blocks of rows in bounded memory, and sparse results.

Letters: N points, B rows of a block, D dimension.
"""

import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor

from modules.subspace.pursuits import Atoms

CACHE_BYTES = 2**23
"""Correlations of one block on a CPU: they are read several times and should stay in its cache."""


def check_points(points: Tensor, name: str = "points", least: int = 2) -> Tensor:
    """``points`` as a matrix without gradient: float32 stays, other numbers become float64.

    Raises:
        ValueError: if it is not a real tensor, not a matrix of at least ``least`` rows, is empty, or holds NaN or
            infinity.
    """
    if not isinstance(points, Tensor) or points.is_complex():
        kind = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise ValueError(f"{name} must be a torch tensor of real numbers, not {kind}: torch.as_tensor makes one")
    if points.ndim != 2 or points.shape[1] < 1:
        raise ValueError(f"{name} must be a matrix [N, D], not of shape {tuple(points.shape)}")
    if len(points) < least:
        raise ValueError(f"{len(points)} {name}: at least {least} are needed")
    points = points.detach() if points.dtype is torch.float32 else points.detach().double()
    bad = ~torch.isfinite(largest_entries(points))
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(f"{int(bad.sum())} of {len(points)} {name} hold NaN or infinity, the first is row {row}")
    return points


def largest_entries(points: Tensor) -> Tensor:
    """max_d |x_d| [N] of ``points`` [N, D]; NaN where a row holds one."""
    return torch.linalg.vector_norm(points, math.inf, dim=1)


def check_queries(queries: Tensor, points: Tensor) -> Tensor:
    """``queries`` [B, D] in the precision and on the device of ``points`` [N, D]; ValueError if they do not fit."""
    queries = check_points(queries, "queries", 1).to(points)
    if queries.shape[1] != points.shape[1]:
        raise ValueError(f"queries have dimension {queries.shape[1]}, points {points.shape[1]}")
    if not bool(torch.isfinite(largest_entries(queries)).all()):
        raise ValueError(f"queries exceed the range of {points.dtype}, in which the points are: give both as float64")
    return queries


def check_rows(rows: Tensor, number: int) -> Tensor:
    """``rows`` int64 [R] on the CPU; ValueError unless they are indices in 0 .. ``number`` - 1."""
    is_vector = isinstance(rows, Tensor) and rows.ndim == 1
    if not is_vector or rows.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8):
        raise ValueError("rows must be a tensor [R] of indices; a mask has them in mask.nonzero().squeeze(1)")
    rows = rows.cpu().long()
    if bool(((rows < 0) | (rows >= number)).any()):
        raise ValueError(f"rows go from {int(rows.min())} to {int(rows.max())}; they must be in 0 .. {number - 1}")
    return rows


def given(**values: Any) -> dict[str, Any]:
    """Those that are not None: the optional arguments that a check is to see."""
    return {name: value for name, value in values.items() if value is not None}


def is_real(value: Any) -> bool:
    """Whether it is a finite number, and not True or False."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def check_counts(**values: int) -> None:
    for name, value in values.items():
        if not (is_real(value) and isinstance(value, Integral) and value > 0):
            raise ValueError(f"{name} must be positive and whole, not {value!r}")


def check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (is_real(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, not {value!r}")


def check_tolerance(tolerance: float) -> None:
    if not (is_real(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance must be a finite number of at least 0, not {tolerance!r}")


def safe_scale(points: Tensor, *others: Tensor) -> float:
    """1, or where squares might over- or underflow: the power of two that brings the largest entry of all near 1.

    Raises:
        ValueError: for a point that is not zero, but so small beside the largest one that its square would be.
    """
    limits, peaks = torch.finfo(points.dtype), torch.cat([largest_entries(each) for each in (points, *others)])
    exponent, lowest = math.frexp(float(peaks.max()))[1], math.frexp(limits.tiny)[1]
    scale = 1.0 if abs(exponent) <= -lowest // 8 else 2.0 ** -max(lowest, min(exponent, -lowest))
    small = (peaks > 0) & (peaks < math.sqrt(limits.tiny / limits.eps) / scale)
    if bool(small.any()):
        ends = f"{float(peaks[small].min()):.1e} and {float(peaks.max()):.1e}"
        raise ValueError(f"points of size {ends} are too far apart for {points.dtype}: normalise them first")
    return scale


class Work:
    """The checked points of one call, its blocks, and where the rows come from.

    ``scale`` is the power of two that points and queries are multiplied by, see ``safe_scale``. Coefficients do not
    change by that, not even in the last bit; lengths do.
    """

    def __init__(self, points: Tensor, queries: Tensor | None, rows: Tensor | None, memory_gib: float) -> None:
        check_positive(memory_gib=memory_gib)
        self.is_self = queries is None
        self.points = self.queries = check_points(points)
        if queries is not None:
            self.queries = check_queries(queries, self.points)
        self.rows = torch.arange(len(self.queries)) if rows is None else check_rows(rows, len(self.queries))
        self.scale = safe_scale(self.points) if self.is_self else safe_scale(self.points, self.queries)
        if self.scale != 1:
            self.points, self.queries = self.points * self.scale, self.queries * self.scale
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
