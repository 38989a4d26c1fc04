"""Labels of new points from points that are clustered already.

Letters: N clustered points, B new ones, D dimension.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from modules.subspace.neighbors import unit_rows

UNCONNECTED = -1


def label_new(solve: Callable[..., csr_array], points: Tensor, clusters: np.ndarray, queries: Tensor) -> np.ndarray:
    """The cluster int64 [B] that carries most of the weight of each query's coefficients over the points.

    Args:
        solve: of ``solvers.solver``.
        points: [N, D].
        clusters: int64 [N] in 0..L - 1.
        queries: [B, D]; one that correlates with no point gets label UNCONNECTED.
    """
    queries = queries.to(points)
    coefficients = abs(solve(points, queries=queries))
    membership = csr_array(np.eye(clusters.max() + 1)[clusters])
    weight = (coefficients @ membership).toarray()
    is_connected = (weight.max(1) > 0) & is_correlated(points, queries)
    return np.where(is_connected, weight.argmax(1), UNCONNECTED)


def is_correlated(points: Tensor, queries: Tensor) -> np.ndarray:
    """bool [B]: whether the cosine to any of the points exceeds the round-off of an inner product, 10 sqrt(D) eps."""
    units, noise = directions(points), 10 * points.shape[1] ** 0.5 * torch.finfo(points.dtype).eps
    cosines = [(directions(some) @ units.T).abs().amax(1) for some in queries.split(512)]
    return (torch.cat(cosines) > noise).cpu().numpy()


def directions(points: Tensor) -> Tensor:
    """Rows scaled to norm 1, whatever their magnitude; zero rows stay zero."""
    largest = points.abs().amax(1, keepdim=True)
    return unit_rows(points / torch.where(largest > 0, largest, 1.0))
