"""Private steps of the two nearest-neighbour methods, TSC and NSN (sections 3.3 and 3.4 of the sheet).

Letters: N points, B of them handled at once, D dimension. Both work on points of norm 1; a zero point stays zero,
has no neighbours and is nobody's.
"""

import torch
from torch import Tensor

from modules.subspace.pursuits import hide, largest, orthogonalize


def unit_rows(points: Tensor) -> Tensor:
    """Rows scaled to norm 1; zero rows stay zero."""
    norms = points.norm(dim=1, keepdim=True)
    return points / torch.where(norms > 0, norms, 1.0)


def tsc_block(points: Tensor, queries: Tensor, own: Tensor, num_neighbors: int) -> tuple[Tensor, Tensor]:
    """Thresholding: the ``num_neighbors`` (q) largest |cosines| of each query; columns and weights [B, q].

    The weight is exp(-2 arccos |cosine|) in [exp(-pi), 1]; it is 0 where a zero point is involved. Which of equally
    parallel points are taken is not defined.
    """
    cosine = (queries @ points.T).abs_()
    cosine.masked_fill_(~points.any(1), -1.0).scatter_(1, own, -1.0)
    values, columns = cosine.topk(num_neighbors, dim=1)
    is_neighbor = (values >= 0) & queries.any(1, keepdim=True)
    return columns, torch.where(is_neighbor, torch.exp(-2 * torch.arccos(values.clamp(0, 1))), 0.0)


def nsn_block(
    points: Tensor, queries: Tensor, own: Tensor, num_neighbors: int, max_dimension: int, slack: float
) -> Tensor:
    """Greedy subspace neighbours: bool [B, N], True for neighbours of each query (Park, Caramanis, Sanghavi 2014).

    A query's subspace starts as its own span and grows by the point with the largest projection, ``num_neighbors``
    (K) times; beyond ``max_dimension`` (k_max) points the subspace stays as it is. Points that lie in the final
    subspace up to ``slack`` (eps) are neighbours too.
    """
    size, dim = queries.shape
    tiny = 64 * torch.finfo(queries.dtype).eps
    basis = queries.new_zeros(size, max_dimension, dim)
    squared = queries.new_zeros(size, len(points))  # squared norm of each point's projection
    chosen = own
    newest = queries
    for count in range(1, num_neighbors + 1):
        if count <= max_dimension:
            direction, _ = orthogonalize(newest, basis[:, : count - 1])
            length = direction.norm(dim=1, keepdim=True)
            direction = torch.where(length > tiny, direction / length.clamp_min(tiny), 0.0)
            basis[:, count - 1] = direction
            squared += (direction @ points.T).square_()
        eligible = squared.clone()
        hide(eligible, chosen)
        pick, is_found = largest(eligible)
        chosen = torch.cat((chosen, torch.where(is_found, pick, -1)[:, None]), 1)
        newest = points[pick] * is_found[:, None]
    is_neighbor = squared.sqrt_() >= 1 - slack
    rows = torch.arange(size, device=own.device)[:, None].expand_as(chosen)
    is_neighbor[rows[chosen >= 0], chosen[chosen >= 0]] = True
    return is_neighbor.scatter_(1, own, False)
