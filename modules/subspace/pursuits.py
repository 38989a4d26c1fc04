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

from modules.subspace.compiled_matching import REFRESH, matching_steps
from modules.subspace.row_peaks import first_largest


class Atoms(NamedTuple):
    points: Tensor  # [N, D]
    gram: Tensor | None  # [N, N], where it pays
    scratch: Tensor  # at least [B, N]: the correlations of a block; fresh memory for each would cost as much as a step


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


def largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Column [B] of each row's entry of largest magnitude, the first one of equals, and whether it is not zero."""
    if values.device.type == "cpu":
        return first_largest(values)
    peak, column = values.abs().max(1)
    return column, peak > 0


def round_off(queries: Tensor) -> Tensor:
    """Norms [B] below which a residual of ``queries`` [B, D] is nothing but round-off."""
    return 64 * torch.finfo(queries.dtype).eps * queries.norm(dim=1)


def first_correlations(atoms: Atoms, queries: Tensor, own: Tensor, out: Tensor) -> Tensor:
    """<x_i, x_j> [B, N] for the queries j, into ``out``; rows of the Gram matrix if they are points of the set."""
    if atoms.gram is not None and own.shape[1]:
        return torch.index_select(atoms.gram, 0, own[:, 0], out=out)
    return torch.mm(queries, atoms.points.T, out=out)


def hide(values: Tensor, columns: Tensor) -> None:
    """Make the entries at ``columns`` [B, K] ineligible. A -1 stands in rows that have stopped, where all is one."""
    values.scatter_(1, columns.clamp_min(0), 0.0)


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
    correlation = atoms.scratch[:size]
    start = None if atoms.gram is None else first_correlations(atoms, queries, own, torch.empty_like(correlation))
    active = norms[:, 0] > 0
    for step in range(steps):
        _omp_correlations(atoms, residual, start, picks[:, :step], triangle, inner, correlation)
        hide(correlation, torch.cat((own, picks[:, :step]), 1))
        pick, found = largest(correlation)
        atom = points[pick]
        direction, weights = orthogonalize(atom, basis[:, :step])
        length = direction.norm(dim=1)
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
    """<x_i, r_j> [B, N] into ``out``: from the residual, or as start - sum_k c_k G[picks_k]."""
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
    correlation = first_correlations(atoms, queries, own, atoms.scratch[:size])
    if atoms.gram is not None and points.device.type == "cpu":
        return _compiled_mp(atoms.points, atoms.gram, correlation, queries, own, stop)
    squares = points.square().sum(1)
    residual, floor = queries.clone(), round_off(queries)
    is_counting = stop.max_atoms < stop.max_steps  # else the bound on distinct atoms says nothing
    is_taken = torch.zeros(correlation.shape if is_counting else (0, 0), dtype=torch.bool, device=points.device)
    num_taken = own.new_zeros(size)
    history: list[tuple[Tensor, Tensor, Tensor]] = []
    norm = queries.norm(dim=1)
    active = (norm > stop.tolerance) & (norm > floor)
    while len(history) < stop.max_steps and bool(active.any()):
        if history:
            _mp_correlations(atoms, residual, *history[-1][:2], len(history), correlation)
        hide(correlation, own)
        pick, found = largest(correlation)
        active = active & found
        atom = points[pick]
        amount = active * (atom * residual).sum(1) / squares[pick].clamp_min(torch.finfo(atom.dtype).tiny)
        residual -= amount[:, None] * atom
        if is_counting:
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


def _compiled_mp(
    points: Tensor, gram: Tensor, correlation: Tensor, queries: Tensor, own: Tensor, stop: Stop
) -> Pursuit:
    place = own[:, 0] if own.shape[1] else own.new_full((len(queries),), -1)
    arrays = (points.contiguous().numpy(), gram.numpy(), correlation.numpy(), queries.numpy(), place.numpy())
    steps = matching_steps(*arrays, stop.max_steps, stop.max_atoms, stop.tolerance, round_off(queries).numpy())
    return Pursuit(*map(torch.from_numpy, steps))


def _mp_correlations(atoms: Atoms, residual: Tensor, pick: Tensor, amount: Tensor, step: int, out: Tensor) -> None:
    """<x_i, r_j> [B, N] in place of those before the last step: from the residual, or less amount * G[pick]."""
    if atoms.gram is None or step % REFRESH == 0:
        torch.mm(residual, atoms.points.T, out=out)
    else:
        out.addcmul_(atoms.gram[pick.clamp_min(0)], amount[:, None], value=-1)
