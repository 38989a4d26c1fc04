"""The methods behind scikit-learn's interface, for use without Lightning."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from modules.subspace.labelling import label_new
from modules.subspace.solvers import solver
from modules.subspace.spectral import affinity, spectral_clustering


class SubspaceClusterer(ClusterMixin, BaseEstimator):
    """``SubspaceClusterer("mp", {"max_steps": 10}, num_clusters=3).fit_predict(points)``.

    Points are what ``sklearn.utils.check_array`` makes a dense, finite, real matrix of; float32 is kept, the rest
    becomes float64. Input that it refuses raises its ValueError, sparse input its TypeError.

    Args:
        algorithm: omp, mp, tsc, nsn or lasso.
        options: of the algorithm, see ``modules.subspace.solvers``.
        num_clusters: found by the eigengap if not given.
        random_state: seed of k-means.

    Attributes:
        labels_: int64 [N]; num_clusters_; coefficients_: scipy CSR [N, N], row j codes point j; points_: [N, D], as
        used; n_features_in_: D.
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
        """``X`` [N, D], at least two points.

        Raises:
            ValueError: also for arguments or options out of their range.
        """
        if self.num_clusters is not None and not isinstance(self.num_clusters, Integral):
            raise ValueError(f"num_clusters must be a whole number or None, not {self.num_clusters!r}")
        solve = solver(self.algorithm, self.options or {})
        self.points_ = self._matrix(X, least=2)
        self.n_features_in_ = self.points_.shape[1]
        self.coefficients_ = solve(torch.tensor(self.points_))
        found = spectral_clustering(affinity(self.coefficients_), self.num_clusters, self.random_state)
        self.labels_, self.num_clusters_ = found.labels, found.num_clusters
        return self

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Clusters int64 [B] of new points ``X`` [B, D]; -1 for one that correlates with no point of ``fit``.

        Raises:
            NotFittedError: before ``fit``.
            ValueError: if ``X`` has another dimension.
        """
        check_is_fitted(self)
        queries = self._matrix(X, least=1)
        if queries.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {queries.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input"
            )
        solve = solver(self.algorithm, self.options or {})
        return label_new(solve, torch.tensor(self.points_), self.labels_, torch.tensor(queries))

    def _matrix(self, X: Any, least: int) -> np.ndarray:  # noqa: N803
        return check_array(X, dtype=(np.float64, np.float32), order="C", ensure_min_samples=least, estimator=self)
