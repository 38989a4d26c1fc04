"""From coefficients to labels: affinity, normalised spectral clustering, number of clusters (section 3.6)."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import eigsh
from sklearn.cluster import KMeans

from modules.subspace.blocks import check_counts, given

DENSE_LIMIT = 2000
"""Points up to which the eigenvalue problem is dense: exact and, there, no slower."""
SPARSE_CLUSTERS = 50
"""Clusters that the eigengap looks for where not all eigenvalues are computed and no bound is given."""
RESTARTS, MAX_ITERATIONS = 50, 1000


class Clustering(NamedTuple):
    labels: np.ndarray  # int64 [N] in 0..num_clusters - 1
    num_clusters: int
    eigenvalues: np.ndarray  # the smallest ones of the Laplacian, ascending, as many as were computed


def affinity(coefficients: csr_array) -> csr_array:
    """W = |C| + |C|^T, entrywise; the diagonal stays empty."""
    magnitude = abs(coefficients)
    return csr_array(magnitude + magnitude.T)


def normalized(graph: csr_array) -> csr_array:
    """D^-1/2 W D^-1/2 with degrees D; one minus it is the normalised Laplacian. Isolated points have zero rows."""
    scale = diags_array(1 / np.sqrt(graph.sum(axis=1) + np.finfo(float).eps))
    return csr_array(scale @ graph @ scale)


def smallest_eigenvectors(graph: csr_array, number: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``number`` smallest eigenvalues of the Laplacian, ascending, and their vectors [N, number]."""
    similarity, size = normalized(graph), graph.shape[0]
    if size <= DENSE_LIMIT or number >= size - 1:
        values, vectors = eigh(similarity.toarray(), subset_by_index=(size - number, size - 1))
    else:
        start = np.random.default_rng(0).standard_normal(size)
        values, vectors = eigsh(similarity, number, which="LA", v0=start)
        order = np.argsort(values)
        values, vectors = values[order], vectors[:, order]
    return 1 - values[::-1], vectors[:, ::-1]


def eigengap(eigenvalues: np.ndarray) -> int:
    """Number of clusters: where the ascending eigenvalues [M] of the Laplacian jump most, in 2 .. M - 1."""
    return 2 + int(np.argmax(np.diff(eigenvalues)[1:]))


def spectral_clustering(
    graph: csr_array,
    num_clusters: int | None = None,
    seed: int = 0,
    max_clusters: int | None = None,
    restarts: int = RESTARTS,
) -> Clustering:
    """Cut a symmetric, non-negative graph [N, N] into clusters.

    Args:
        graph: the affinity.
        num_clusters: L; found by the eigengap (at least 2) if not given.
        seed: of k-means.
        max_clusters: the eigengap's bound, at least 2; without it N - 1 for small and SPARSE_CLUSTERS for large sets.
        restarts: of k-means, the best of which counts.

    Raises:
        ValueError: if there are fewer points than clusters, too few points for an eigengap, or no edges to cut.
    """
    size = graph.shape[0]
    check_counts(**given(num_clusters=num_clusters, max_clusters=max_clusters))
    if num_clusters is not None and not 1 <= num_clusters <= size:
        raise ValueError(f"num_clusters is {num_clusters}; {size} points allow 1 to {size}")
    if num_clusters == 1:
        return Clustering(np.zeros(size, np.int64), 1, np.zeros(1))
    if max_clusters == 1:
        raise ValueError("max_clusters is 1; the eigengap finds at least 2: give num_clusters 1 instead")
    if num_clusters is None and size < 4:
        raise ValueError(f"{size} points are too few to find the number of clusters: give num_clusters")
    if not graph.count_nonzero():
        raise ValueError("no point is connected with another: nothing to cluster; loosen the bounds of the coding")
    bound = max_clusters or (size - 1 if size <= DENSE_LIMIT else SPARSE_CLUSTERS)
    wanted = num_clusters or min(bound + 1, size)
    values, vectors = smallest_eigenvectors(graph, wanted)
    found = num_clusters or eigengap(values)
    return Clustering(k_means(unit_rows(vectors[:, :found]), found, seed, restarts), found, values)


def unit_rows(embedding: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(embedding, axis=1, keepdims=True)
    return embedding / np.where(norms > 0, norms, 1.0)


def k_means(embedding: np.ndarray, num_clusters: int, seed: int, restarts: int) -> np.ndarray:
    """Labels [N] of the best of ``restarts`` runs of at most 1000 iterations."""
    best = KMeans(num_clusters, n_init=restarts, max_iter=MAX_ITERATIONS, random_state=seed)
    return best.fit_predict(np.ascontiguousarray(embedding)).astype(np.int64)
