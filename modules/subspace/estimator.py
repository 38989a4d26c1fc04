"""The methods behind scikit-learn's interface, for use without Lightning."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from modules.subspace.labelling import label_new
from modules.subspace.solvers import solver
from modules.subspace.spectral import affinity, spectral_clustering

COMMON = ("n_clusters", "max_clusters", "algorithm", "random_state")
"""Parameters that are no options of an algorithm."""


class SubspaceClusterer(ClusterMixin, BaseEstimator):
    """``SubspaceClusterer(3, algorithm="mp", max_steps=10).fit_predict(points)``.

    Points are what ``sklearn.utils.check_array`` makes a dense, finite, real matrix of; float32 is kept, the rest
    becomes float64. Input that it refuses raises its ValueError, sparse input its TypeError.

    Args:
        n_clusters: found by the eigengap if not given,
        max_clusters: up to so many.
        algorithm: omp, mp, tsc, nsn, lasso or elastic_net.
        random_state: seed of k-means.
        Others: options of the algorithms, see ``modules.subspace.solvers``; None for the default. One that the
            algorithm does not have is refused.

    Attributes:
        labels_: int64 [N]; n_clusters_; affinity_matrix_: scipy CSR [N, N], symmetric; coefficients_: scipy CSR [N, N],
        row j codes point j; points_: [N, D], as used; n_features_in_: D.
    """

    def __init__(
        self,
        n_clusters: int | None = None,
        *,
        algorithm: str = "mp",
        max_clusters: int | None = None,
        random_state: int = 0,
        max_steps: int | None = None,
        max_atoms: int | None = None,
        num_neighbors: int | None = None,
        max_dimension: int | None = None,
        slack: float | None = None,
        alpha: float | None = None,
        mixing: float | None = None,
        outliers: bool | None = None,
        penalty: float | None = None,
        max_iterations: int | None = None,
        max_rounds: int | None = None,
        tolerance: float | None = None,
        memory_gib: float | None = None,
    ) -> None:
        self.n_clusters, self.max_clusters = n_clusters, max_clusters
        self.algorithm, self.random_state = algorithm, random_state
        self.max_steps, self.max_atoms = max_steps, max_atoms
        self.num_neighbors, self.max_dimension, self.slack = num_neighbors, max_dimension, slack
        self.alpha, self.mixing, self.outliers, self.penalty = alpha, mixing, outliers, penalty
        self.max_iterations, self.max_rounds = max_iterations, max_rounds
        self.tolerance, self.memory_gib = tolerance, memory_gib

    def fit(self, X: Any, y: Any = None) -> "SubspaceClusterer":  # noqa: N803
        """``X`` [N, D], at least two points.

        Raises:
            ValueError: also for arguments or options out of their range.
        """
        for name in ("n_clusters", "max_clusters"):
            if (value := getattr(self, name)) is not None and not isinstance(value, Integral):
                raise ValueError(f"{name} must be a whole number or None, not {value!r}")
        solve = self._solver()
        self.points_ = self._matrix(X, least=2)
        self.n_features_in_ = self.points_.shape[1]
        self.coefficients_ = solve(torch.tensor(self.points_))
        self.affinity_matrix_ = affinity(self.coefficients_)
        found = spectral_clustering(
            self.affinity_matrix_, self.n_clusters, self.random_state, max_clusters=self.max_clusters
        )
        self.labels_, self.n_clusters_ = found.labels, found.num_clusters
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
        return label_new(self._solver(), torch.tensor(self.points_), self.labels_, torch.tensor(queries))

    def _solver(self) -> Callable[..., csr_array]:
        options = {name: value for name, value in self.get_params().items() if name not in COMMON and value is not None}
        return solver(self.algorithm, options)

    def _matrix(self, X: Any, least: int) -> np.ndarray:  # noqa: N803
        return check_array(X, dtype=(np.float64, np.float32), order="C", ensure_min_samples=least, estimator=self)
