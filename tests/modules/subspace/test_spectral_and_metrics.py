"""Spectral clustering and the measures of section 6."""

from itertools import permutations

import numpy as np
import pytest
from scipy.sparse import block_diag, csr_array

from modules.subspace import metrics
from modules.subspace.spectral import affinity, eigengap, normalized, smallest_eigenvectors, spectral_clustering


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


@pytest.mark.parametrize("size", [20, 60])
def test_a_graph_without_edges_is_refused(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.subspace.spectral.DENSE_LIMIT", 40)
    with pytest.raises(ValueError, match="no point is connected"):
        spectral_clustering(csr_array((size, size)), 3)


@pytest.mark.parametrize("name", ["num_clusters", "max_clusters"])
@pytest.mark.parametrize("value", [0, -3, 2.5, "two"])
def test_numbers_of_clusters_are_whole(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive and whole"):
        spectral_clustering(blocks(6, 6)[0], **{name: value})  # type: ignore[arg-type]


def test_max_clusters_bounds_the_eigengap() -> None:
    graph, _ = blocks(5, 6, 7, 8, noise=0.02)
    assert spectral_clustering(graph).num_clusters == 4
    assert spectral_clustering(graph, max_clusters=4).num_clusters == 4
    assert spectral_clustering(graph, max_clusters=3).num_clusters <= 3
    with pytest.raises(ValueError, match="max_clusters is 1"):
        spectral_clustering(graph, max_clusters=1)


def test_eigengap_is_at_least_two() -> None:
    assert eigengap(np.array([0.0, 0.9, 0.95, 1.0])) >= 2
    assert eigengap(np.array([0.0, 0.01, 0.02, 0.8, 0.9])) == 3


def test_number_of_clusters_is_the_sheets() -> None:
    """L = N - g with g the index, in 1 .. N - 2, of the largest drop of the descending eigenvalues."""
    random, last = np.random.default_rng(0), 0
    for _ in range(60):
        size = int(random.integers(6, 14))
        graph = affinity(csr_array(np.triu(random.random((size, size)) + 0.1, 1)))
        values = np.sort(np.linalg.eigvalsh(np.eye(size) - normalized(graph).toarray()))[::-1]
        expected = size - 1 - int(np.argmax((values[:-1] - values[1:])[: size - 2]))
        assert spectral_clustering(graph, restarts=1).num_clusters == expected
        last += expected == size - 1
    assert last > 0


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
    assert metrics.no_false_connections(csr_array(np.diag([1.0, 0, 0], 1)), truth)


def test_rates_and_masses_of_figure_4() -> None:
    """By the formulas, for classes of different sizes, one of them a single point."""
    random = np.random.default_rng(0)
    truth = np.array([3, 3, 3, 3, 1, 1, 7])
    dense = random.standard_normal((7, 7)) * (random.random((7, 7)) < 0.5) * (1 - np.eye(7))
    true_rates, false_rates, true_mass, false_mass = [], [], 0.0, 0.0
    for cluster in (1, 3, 7):
        own = truth == cluster
        size = own.sum()
        inside, outside = dense[own][:, own], dense[own][:, ~own]
        true_rates.append(np.count_nonzero(inside) / (size * (size - 1)) if size > 1 else 0.0)
        false_rates.append(np.count_nonzero(outside) / (size * (7 - size)))
        true_mass, false_mass = true_mass + np.abs(inside).sum(), false_mass + np.abs(outside).sum()
    ours = metrics.connection_metrics(csr_array(dense), truth)
    assert ours["true_positive_rate"] == pytest.approx(np.mean(true_rates))
    assert ours["false_positive_rate"] == pytest.approx(np.mean(false_rates))
    assert (ours["true_l1"], ours["false_l1"]) == (pytest.approx(true_mass / 7), pytest.approx(false_mass / 7))
    assert ours["no_false_connections"] == 0
    one = metrics.connection_metrics(csr_array(np.ones((3, 3)) - np.eye(3)), np.zeros(3, int))
    assert (one["true_positive_rate"], one["false_positive_rate"], one["no_false_connections"]) == (1, 0, 1)


def test_rows_of_the_embedding_have_norm_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of few and of many edges lie at unlike distances from the origin, in the same direction."""
    random = np.random.default_rng(0)
    weak = np.diag(10.0 ** random.uniform(-2, 0, 24))
    graph = affinity(csr_array(weak @ blocks(12, 12, noise=0.01)[0].toarray() @ weak))
    graph = csr_array(block_diag([graph.toarray(), np.zeros((1, 1))]))  # and one point without any
    seen = []

    def remember(embedding: np.ndarray, *others: int) -> np.ndarray:
        seen.append(embedding)
        return np.zeros(len(embedding), np.int64)

    monkeypatch.setattr("modules.subspace.spectral.k_means", remember)
    spectral_clustering(graph, 2)
    vectors = smallest_eigenvectors(graph, 2)[1]
    norms = np.linalg.norm(vectors, axis=1)
    assert norms[:24].max() > 3 * norms[:24].min()
    np.testing.assert_allclose(np.linalg.norm(seen[0][:24], axis=1), 1)
    np.testing.assert_allclose(seen[0][:24] * norms[:24, None], vectors[:24], atol=1e-12)


def test_the_laplacian_is_normalised_on_both_sides() -> None:
    random = np.random.default_rng(1)
    weights = np.triu(random.random((7, 7)), 1)
    weights += weights.T
    degrees = weights.sum(1)
    expected = np.array([[weights[i, j] / np.sqrt(degrees[i] * degrees[j]) for j in range(7)] for i in range(7)])
    np.testing.assert_allclose(normalized(csr_array(weights)).toarray(), expected, rtol=1e-12)
    values, vectors = smallest_eigenvectors(csr_array(weights), 3)
    np.testing.assert_allclose((np.eye(7) - expected) @ vectors, vectors * values, atol=1e-12)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(np.eye(7) - expected)[:3], atol=1e-12)


def test_mutual_information_and_rand_index_by_their_formulas() -> None:
    random = np.random.default_rng(2)
    truth, labels = random.integers(0, 3, 30), random.integers(0, 4, 30)
    joint = np.array([[np.mean((truth == a) & (labels == b)) for b in range(4)] for a in range(3)])
    rows, columns = joint.sum(1), joint.sum(0)
    present = joint > 0
    information = (joint[present] * np.log((joint / np.outer(rows, columns))[present])).sum()
    entropies = [-(p * np.log(p)).sum() for p in (rows, columns)]
    assert metrics.normalized_mutual_information(labels, truth) == pytest.approx(
        information / np.sqrt(entropies[0] * entropies[1])
    )
    pairs = [[(truth[i] == truth[j], labels[i] == labels[j]) for j in range(i)] for i in range(30)]
    flat = np.array([pair for row in pairs for pair in row])
    both, either = flat.all(1).sum(), flat.sum(0)
    chance = either[0] * either[1] / len(flat)
    expected = (both - chance) / (either.mean() - chance)
    assert metrics.adjusted_rand_index(labels, truth) == pytest.approx(expected)
