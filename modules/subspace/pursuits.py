"""The private steps of SSC-OMP and SSC-MP: all points of a block at once (sections 3.1 and 3.2 of the sheet).

Letters: N atoms (the points themselves), B points that are coded, D their dimension, S steps.

A step needs the correlations [B, N] of all residuals with all atoms. They are a matrix product, or, where the Gram
matrix is at hand and D is large, a combination of a few of its rows: one pass over memory in place of 2 D operations
for every entry. Residuals are kept explicitly in both cases, so stopping never suffers from drift.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

REFRESH = 100
"""Steps after which matching pursuit computes its correlations anew, since updates add up round-off."""


class Atoms(NamedTuple):
    points: Tensor  # [N, D]
    gram: Tensor | None  # [N, N], where it pays


class Stop(NamedTuple):
    """A point stops at whatever comes first: steps, distinct atoms, or a residual norm of at most ``tolerance``."""

    max_steps: int
    max_atoms: int
    tolerance: float


class Pursuit(NamedTuple):
    """What happened in each step; a stopped point has pick -1, value 0 and repeats its residual norm."""

    picks: Tensor  # int64 [B, S], the atom taken in a step
    values: Tensor  # [B, S], OMP: the atom's final coefficient; MP: what the step added to it (atoms may repeat)
    residuals: Tensor  # [B, S], norm of the residual after the step


def largest(magnitude: Tensor) -> Tensor:
    """Column [B] of each row's largest entry, the first one of equals."""
    if magnitude.device.type == "cpu":
        return torch.from_numpy(magnitude.numpy().argmax(1))  # vectorised in numpy, a scalar loop in torch
    return magnitude.argmax(1)


def round_off(queries: Tensor) -> Tensor:
    """Norms [B] below which a residual of ``queries`` [B, D] is nothing but round-off."""
    return 64 * torch.finfo(queries.dtype).eps * queries.norm(dim=1)


def first_correlations(atoms: Atoms, queries: Tensor, own: Tensor) -> Tensor:
    """<x_i, x_j> [B, N] for the queries j; rows of the Gram matrix if they are points of the set."""
    if atoms.gram is not None and own.shape[1]:
        return atoms.gram[own[:, 0]]
    return queries @ atoms.points.T


def hide(magnitude: Tensor, columns: Tensor) -> None:
    """Make the entries at ``columns`` [B, K] ineligible. A -1 stands in rows that have stopped, where all is one."""
    magnitude.scatter_(1, columns.clamp_min(0), -1.0)


def omp_block(atoms: Atoms, queries: Tensor, own: Tensor, stop: Stop) -> Pursuit:
    """Orthogonal matching pursuit of ``queries`` [B, D].

    ``own`` is [B, 1], each one's row among the atoms, or [B, 0] where they are none of them. Gram-Schmidt keeps an
    orthonormal basis Q of the chosen atoms, X_S = Q R. The bound on the residual is tested after each step, so that
    at least one atom is taken. An atom that the chosen ones span stops its point.
    """
    points, (size, dim), steps = atoms.points, queries.shape, stop.max_steps
    residual, floor = queries.clone(), round_off(queries)
    basis = queries.new_zeros(size, steps, dim)
    triangle = torch.eye(steps, dtype=queries.dtype, device=queries.device).repeat(size, 1, 1)
    inner = queries.new_zeros(size, steps)  # Q^T x
    picks = own.new_full((size, steps), -1)
    norms = queries.norm(dim=1)[:, None].repeat(1, steps)
    start = None if atoms.gram is None else first_correlations(atoms, queries, own)
    magnitude = queries.new_empty(size, len(points))
    active = norms[:, 0] > 0
    for step in range(steps):
        _omp_correlations(atoms, residual, start, picks[:, :step], triangle, inner, magnitude)
        hide(magnitude, torch.cat((own, picks[:, :step]), 1))
        pick = largest(magnitude)
        atom = points[pick]
        direction, weights = orthogonalize(atom, basis[:, :step])
        length = direction.norm(dim=1)
        found = magnitude.gather(1, pick[:, None]).squeeze(1) > 0
        active = active & found & (length > 64 * torch.finfo(atom.dtype).eps * atom.norm(dim=1))
        if not active.any():
            break
        direction = direction * (active / length.clamp_min(torch.finfo(atom.dtype).tiny))[:, None]
        amount = (direction * residual).sum(1)
        residual -= amount[:, None] * direction
        basis[:, step], inner[:, step] = direction, amount
        triangle[:, :step, step] = weights * active[:, None]
        triangle[:, step, step] = torch.where(active, length, 1.0)
        picks[:, step] = torch.where(active, pick, -1)
        norm = residual.norm(dim=1)
        norms[:, step:] = norm[:, None]
        active = active & (norm > stop.tolerance) & (norm > floor)
    return Pursuit(picks, triangular_solve(triangle, inner), norms)


def _omp_correlations(
    atoms: Atoms,
    residual: Tensor,
    start: Tensor | None,
    picks: Tensor,
    triangle: Tensor,
    inner: Tensor,
    out: Tensor,
) -> None:
    """|<x_i, r_j>| [B, N] into ``out``: from the residual, or as start - sum_k c_k G[picks_k]."""
    step = picks.shape[1]
    if atoms.gram is None or start is None:
        torch.mm(residual, atoms.points.T, out=out)
    elif step == 0:
        out.copy_(start)
    else:
        coefficients = triangular_solve(triangle[:, :step, :step], inner[:, :step])
        fit = functional.embedding_bag(
            picks.clamp_min(0), atoms.gram, per_sample_weights=coefficients.contiguous(), mode="sum"
        )
        torch.sub(start, fit, out=out)
    out.abs_()


def orthogonalize(vectors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """``vectors`` [B, D] without their part in ``basis`` [B, K, D], and its weights [B, K]; twice, for accuracy."""
    total = vectors.new_zeros(basis.shape[:2])
    for _ in range(2 if basis.shape[1] else 0):
        weights = inner_products(basis, vectors)
        vectors = vectors - combine(weights, basis)
        total += weights
    return vectors, total


def inner_products(basis: Tensor, vectors: Tensor) -> Tensor:
    """<q_k, v> [B, K] of ``basis`` [B, K, D] and ``vectors`` [B, D]. Small batches are slow in torch on a CPU."""
    if basis.device.type == "cpu":
        return torch.from_numpy(np.vecdot(basis.numpy(), vectors[:, None].numpy()))
    return torch.bmm(basis, vectors[:, :, None]).squeeze(2)


def combine(weights: Tensor, basis: Tensor) -> Tensor:
    """sum_k w_k q_k [B, D] of ``weights`` [B, K] and ``basis`` [B, K, D]."""
    if basis.device.type == "cpu":
        return torch.from_numpy(np.matmul(weights[:, None].numpy(), basis.numpy())).squeeze(1)
    return torch.bmm(weights[:, None], basis).squeeze(1)


def triangular_solve(triangle: Tensor, right: Tensor) -> Tensor:
    """c [B, K] with triangle [B, K, K] c = right [B, K]."""
    return torch.linalg.solve_triangular(triangle, right[:, :, None], upper=True).squeeze(2)


def mp_block(atoms: Atoms, queries: Tensor, own: Tensor, stop: Stop) -> Pursuit:
    """Matching pursuit of ``queries`` [B, D]: as ``omp_block``, but atoms stay eligible and nothing is solved.

    The bounds are tested before each step, as in the authors' loop: a point within ``tolerance`` takes no atom.
    """
    points, size = atoms.points, len(queries)
    squares = points.square().sum(1)
    residual, floor = queries.clone(), round_off(queries)
    correlation = first_correlations(atoms, queries, own)
    magnitude = torch.empty_like(correlation)
    is_taken = torch.zeros(correlation.shape, dtype=torch.bool, device=points.device)
    num_taken = own.new_zeros(size)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    norm = queries.norm(dim=1)
    active = (norm > stop.tolerance) & (norm > floor)
    while len(history) < stop.max_steps and bool(active.any()):
        torch.abs(correlation, out=magnitude)
        hide(magnitude, own)
        pick = largest(magnitude)
        active = active & (magnitude.gather(1, pick[:, None]).squeeze(1) > 0)
        atom = points[pick]
        amount = active * (atom * residual).sum(1) / squares[pick].clamp_min(torch.finfo(atom.dtype).tiny)
        residual -= amount[:, None] * atom
        if atoms.gram is None or (len(history) + 1) % REFRESH == 0:
            torch.mm(residual, points.T, out=correlation)
        else:
            correlation.addcmul_(atoms.gram[pick], amount[:, None], value=-1)
        seen = is_taken.gather(1, pick[:, None]).squeeze(1)
        is_taken.scatter_(1, pick[:, None], (seen | active)[:, None])
        num_taken += active & ~seen
        norm = torch.where(active, residual.norm(dim=1), norm)
        history.append((torch.where(active, pick, -1), amount, norm))
        active = active & (norm > stop.tolerance) & (norm > floor) & (num_taken < stop.max_atoms)
    if not history:
        return Pursuit(own.new_zeros(size, 0), queries.new_zeros(size, 0), queries.new_zeros(size, 0))
    picks, values, norms = (torch.stack(column, 1) for column in zip(*history, strict=True))
    return Pursuit(picks, values, norms)
