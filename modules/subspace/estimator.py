"""The methods behind scikit-learn's interface, for use without Lightning."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin

from modules.subspace.blocks import check_points
from modules.subspace.solvers import solver
from modules.subspace.spectral import affinity, spectral_clustering


class SubspaceClusterer(ClusterMixin, BaseEstimator):
    """``SubspaceClusterer("mp", {"max_steps": 10}, num_clusters=3).fit_predict(points)``.

    Args:
        algorithm: omp, mp, tsc, nsn or lasso.
        options: of the algorithm, see ``modules.subspace.solvers``.
        num_clusters: found by the eigengap if not given.
        random_state: seed of k-means.

    Attributes:
        labels_: int64 [N]; num_clusters_; coefficients_: scipy CSR [N, N], row j codes point j.
    """

    def __init__(
        self,
        algorithm: str = "mp",
        options: dict[str, Any] | None = None,
        num_clusters: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.algorithm, self.options = algorithm, options
        self.num_clusters, self.random_state = num_clusters, random_state

    def fit(self, X: Any, y: Any = None) -> "SubspaceClusterer":  # noqa: N803
        """``X`` [N, D]: anything numpy takes; float32 is kept, the rest becomes float64."""
        points = check_points(torch.as_tensor(np.asarray(X)))
        self.coefficients_ = solver(self.algorithm, self.options or {})(points)
        found = spectral_clustering(affinity(self.coefficients_), self.num_clusters, self.random_state)
        self.labels_, self.num_clusters_ = found.labels, found.num_clusters
        return self
