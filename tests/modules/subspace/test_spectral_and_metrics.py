"""Spectral clustering and the measures of section 6."""

from itertools import permutations

import numpy as np
import pytest
from scipy.sparse import block_diag, csr_array

from modules.subspace import metrics
from modules.subspace.spectral import affinity, eigengap, smallest_eigenvectors, spectral_clustering


def blocks(*sizes: int, noise: float = 0.0) -> tuple[csr_array, np.ndarray]:
    """A graph of dense blocks with weak edges between them, and the blocks' numbers."""
    random = np.random.default_rng(0)
    graph = block_diag([random.random((n, n)) + 0.5 for n in sizes]).toarray()
    graph += noise * random.random(graph.shape)
    np.fill_diagonal(graph, 0)
    return affinity(csr_array(graph)), np.repeat(np.arange(len(sizes)), sizes)


@pytest.mark.parametrize("sizes", [(10, 10), (8, 12, 20), (5, 6, 7, 8, 9)])
@pytest.mark.parametrize("known", [True, False])
def test_blocks_are_found(sizes: tuple[int, ...], known: bool) -> None:
    graph, truth = blocks(*sizes, noise=0.02)
    found = spectral_clustering(graph, len(sizes) if known else None)
    assert found.num_clusters == len(sizes)
    assert metrics.clustering_error(found.labels, truth) == 0


def test_sparse_eigenvectors_are_the_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, truth = blocks(30, 40, 50, noise=0.05)
    dense, vectors = smallest_eigenvectors(graph, 3)
    monkeypatch.setattr("modules.subspace.spectral.DENSE_LIMIT", 10)
    sparse, others = smallest_eigenvectors(graph, 3)
    np.testing.assert_allclose(sparse, dense, atol=1e-9)
    np.testing.assert_allclose(np.abs((vectors * others).sum(0)), 1, atol=1e-6)
    assert metrics.clustering_error(spectral_clustering(graph, 3).labels, truth) == 0


def test_one_cluster_isolated_points_and_too_few_points() -> None:
    graph, _ = blocks(6, 6)
    assert not spectral_clustering(graph, 1).labels.any()
    lonely = csr_array(block_diag([graph.toarray(), np.zeros((1, 1))]))
    assert len(spectral_clustering(lonely, 2).labels) == 13
    with pytest.raises(ValueError, match="12 points allow 1 to 12"):
        spectral_clustering(graph, 13)
    with pytest.raises(ValueError, match="too few"):
        spectral_clustering(blocks(3)[0])


def test_eigengap_is_at_least_two() -> None:
    assert eigengap(np.array([0.0, 0.9, 0.95, 1.0])) >= 2
    assert eigengap(np.array([0.0, 0.01, 0.02, 0.8, 0.9])) == 3


def test_clustering_error_by_all_permutations() -> None:
    random = np.random.default_rng(0)
    truth, labels = random.integers(0, 4, 40), random.integers(0, 4, 40)
    best = min(np.mean(np.array(p)[labels] != truth) for p in permutations(range(4)))
    assert metrics.clustering_error(labels, truth) == pytest.approx(best)
    assert metrics.clustering_error((truth + 1) % 4 + 7, truth) == 0
    assert metrics.labelling_metrics(truth, truth) == {"error": 0, "nmi": pytest.approx(1), "ari": 1}


def test_positives_and_feature_detection_error() -> None:
    truth = np.array([0, 0, 1, 1])
    coefficients = csr_array(np.array([[0, 3.0, 4, 0], [1, 0, 0, 0], [0, 0, 0, 0], [-1, 1, 1, 0]]))
    true, false = metrics.true_false_positives(coefficients, truth)
    assert true.tolist() == [1, 1, 0, 1] and false.tolist() == [1, 0, 0, 2]
    expected = np.mean([1 - 3 / 5, 0, 1 - 1 / np.sqrt(3)])
    assert metrics.feature_detection_error(coefficients, truth) == pytest.approx(expected)
    assert not metrics.no_false_connections(coefficients, truth)
