"""SSC by the alternating direction method of multipliers (section 3.5 of the sheet).

Letters: N points, B of them coded at once, D dimension. Two problems, with c_j = 0 for a point of the set itself:

    noise     min |c|_1 + lambda/2 |x - X^T c|^2                 lambda = alpha / mu
    outliers  min |c|_1 + lambda_e |e|_1  s.t.  x = X^T c + e    lambda_e = alpha / nu

with mu the smallest over the points of their largest correlation with another one, and nu the same of l1 norms. Both
are two-block ADMM whose first block solves (rho I + lambda X X^T) a = lambda X target + rho (c - u); in the second
problem ``target`` is x without its outliers, and lambda = alpha / mu is the penalty of the constraint, as in the
authors' code of 2013.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from modules.subspace.pursuits import hide, round_off

Solve = Callable[[Tensor], Tensor]


class Weights(NamedTuple):
    data: float  # lambda
    outliers: float | None  # lambda_e, None for the noise problem
    penalty: float  # rho
    unit: float  # what the points were multiplied by: the bound on the constraint is in theirs


def shrink(values: Tensor, threshold: float) -> Tensor:
    """Soft thresholding, the proximal map of threshold * |.|_1."""
    return values - values.clamp(-threshold, threshold)


def smallest_largest_correlation(points: Tensor, block: int) -> float:
    """min_i max_{j != i} |<x_i, x_j>| without points orthogonal to all others up to round-off; 0 if all are that."""
    norms, peaks = points.norm(dim=1), []
    for rows in torch.arange(len(points), device=points.device).split(block):
        magnitude = (points[rows] @ points.T).abs_()
        hide(magnitude, rows[:, None])
        magnitude *= magnitude > round_off(points[rows])[:, None] * norms
        peaks.append(magnitude.amax(1))
    peak = torch.cat(peaks)
    return float(peak[peak > 0].min()) if bool((peak > 0).any()) else 0.0


def second_largest_l1(points: Tensor) -> float:
    """min_i max_{j != i} |x_j|_1: what is left when the largest norm may not be used."""
    return float(points.abs().sum(1).topk(2).values[1])


def factorize(points: Tensor, weights: Weights) -> Solve:
    """b [B, N] -> (rho I + lambda X X^T)^-1 b, through the smaller one of the two Gram matrices.

    Raises:
        ValueError: if round-off makes the matrix indefinite.
    """
    (number, dim), data, rho = points.shape, weights.data, weights.penalty
    identity = torch.eye(min(number, dim), dtype=points.dtype, device=points.device)
    if number <= dim:
        inverse = _inverse(data * (points @ points.T) + rho * identity)
        return lambda right: right @ inverse
    inner = _inverse(data * (points.T @ points) + rho * identity)
    return lambda right: (right - data * ((right @ points) @ inner) @ points.T) / rho


def _inverse(matrix: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise ValueError(
            f"SSC's linear system is singular in {matrix.dtype}: some point hardly correlates with the others, or the "
            "penalty is too small beside the weight of the fit; drop that point, give a larger penalty or float64"
        )
    return torch.cholesky_inverse(factor)


def admm_block(
    points: Tensor,
    queries: Tensor,
    own: Tensor,
    weights: Weights,
    solve: Solve,
    max_iterations: int,
    tolerance: float,
) -> Tensor:
    """Coefficients [B, N] of ``queries`` [B, D]; each one ends when no entry of its residuals exceeds ``tolerance``."""
    data, outlier_weight, rho, unit = weights
    result = queries.new_zeros(len(queries), len(points))
    rows = torch.arange(len(queries), device=queries.device)
    sparse, dual = torch.zeros_like(result), torch.zeros_like(result)
    slack = torch.zeros_like(queries)  # dual of the constraint
    projected = data * (queries @ points.T)
    for _ in range(max_iterations):
        dense = solve(projected + rho * (sparse - dual))
        before, sparse = sparse, shrink(dense + dual, 1 / rho)
        sparse.scatter_(1, own, 0.0)
        gap = dense - sparse
        dual += gap
        change = torch.maximum(gap.abs().amax(1), (sparse - before).abs().amax(1))
        if outlier_weight is not None:
            rest = queries - dense @ points
            outliers = shrink(rest + slack, outlier_weight / data)
            slack += rest - outliers
            projected = data * ((queries - outliers + slack) @ points.T)
            change = torch.maximum(change, (rest - outliers).abs().amax(1) / unit)
        is_open = change > tolerance
        if not bool(is_open.all()):
            result[rows[~is_open]] = sparse[~is_open]
            rows, own, queries, projected = rows[is_open], own[is_open], queries[is_open], projected[is_open]
            sparse, dual, slack = sparse[is_open], dual[is_open], slack[is_open]
            if not len(rows):
                break
    result[rows] = sparse
    return result
