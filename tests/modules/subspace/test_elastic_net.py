"""EnSC: scikit-learn's elastic net for each point, what enters a support, and points without neighbours."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import ElasticNet
from torch import Tensor

from modules.subspace.elastic_net import ENTERING, _entering
from modules.subspace.solvers import ssc_elastic_net


def random_points(number: int, dim: int, seed: int = 0) -> Tensor:
    return torch.randn(number, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_scikit_learn(x: np.ndarray, j: int, atoms: np.ndarray, alpha: float, mixing: float) -> np.ndarray:
    """Coefficients of ``x`` over ``atoms``; weights as the paper gives them, in scikit-learn's scale."""
    gamma = alpha * mixing / np.abs(atoms @ x).max()
    scale = gamma * len(x)
    model = ElasticNet(
        alpha=1 / scale, l1_ratio=mixing, fit_intercept=False, tol=1e-14, max_iter=1_000_000, selection="cyclic"
    )
    return model.fit(atoms.T, x).coef_


@pytest.mark.parametrize(("number", "dim"), [(60, 12), (15, 20)])
@pytest.mark.parametrize("mixing", [0.9, 0.3])
def test_each_point_solves_its_own_elastic_net(number: int, dim: int, mixing: float) -> None:
    points = random_points(number, dim)
    ours = ssc_elastic_net(points, 8.0, mixing, tolerance=1e-9).toarray()
    x = points.numpy()
    for j in range(number):
        reference = by_scikit_learn(x[j], j, np.delete(x, j, 0), 8.0, mixing)
        np.testing.assert_allclose(ours[j], np.insert(reference, j, 0.0), atol=1e-6)


def test_more_neighbours_than_enter_in_a_round() -> None:
    points = random_points(100, 60)
    ours = ssc_elastic_net(points, 200.0, 0.5, tolerance=1e-9, rows=torch.tensor([7])).toarray()[0]
    assert np.count_nonzero(ours) > 2 * ENTERING
    reference = by_scikit_learn(points[7].numpy(), 7, np.delete(points.numpy(), 7, 0), 200.0, 0.5)
    np.testing.assert_allclose(ours, np.insert(reference, 7, 0.0), atol=5e-5)


def test_all_of_the_mixing_at_the_l1_norm_is_the_lasso() -> None:
    points = random_points(15, 20)
    ours = ssc_elastic_net(points, 8.0, 1.0, tolerance=1e-9).toarray()
    reference = by_scikit_learn(points[3].numpy(), 3, np.delete(points.numpy(), 3, 0), 8.0, 1.0)
    np.testing.assert_allclose(np.delete(ours[3], 3), reference, atol=1e-6)


def test_a_looser_tolerance_and_fewer_rounds_are_felt() -> None:
    points = random_points(100, 60)
    exact = ssc_elastic_net(points, 50.0, tolerance=1e-9).toarray()
    loose = ssc_elastic_net(points, 50.0, tolerance=0.3).toarray()
    one_round = ssc_elastic_net(points, 50.0, max_rounds=1, tolerance=1e-9).toarray()
    assert 1e-3 < np.abs(loose - exact).max() < 0.5
    assert np.count_nonzero(one_round, axis=1).max() <= ENTERING < np.count_nonzero(exact, axis=1).max()


def test_new_points_and_threads_and_float32() -> None:
    points, queries = random_points(40, 12), random_points(9, 12, seed=1)
    ours = ssc_elastic_net(points, 8.0, tolerance=1e-9, queries=queries).toarray()
    for query, row in zip(queries.numpy(), ours, strict=True):
        np.testing.assert_allclose(row, by_scikit_learn(query, -1, points.numpy(), 8.0, 0.9), atol=1e-6)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    again = ssc_elastic_net(points, 8.0, tolerance=1e-9, queries=queries).toarray()
    torch.set_num_threads(threads)
    assert np.array_equal(again, ours)
    single = ssc_elastic_net(points.float(), 8.0, queries=queries.float())
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.toarray(), ours, atol=2e-2)


def test_the_steepest_points_enter_in_order() -> None:
    correlation = np.array([0.5, -3.0, 2.0, 9.0, 2.5, -1.0, 7.0])
    values, picks = np.zeros(7), np.zeros(3, np.int64)
    values[6] = 0.1  # already there
    assert _entering(correlation, values, 3, 0.9, picks) == 3 and picks.tolist() == [1, 4, 2]
    assert _entering(correlation, values, 3, 2.2, picks) == 2 and picks[:2].tolist() == [1, 4]
    assert _entering(correlation, values, -1, 9.0, picks) == 0


def test_a_point_orthogonal_to_all_others_has_no_neighbours() -> None:
    points = torch.cat([random_points(20, 6), torch.zeros(20, 1, dtype=torch.float64)], 1)
    lonely = torch.cat([points, torch.eye(7, dtype=torch.float64)[6:], torch.zeros(1, 7, dtype=torch.float64)])
    ours = ssc_elastic_net(lonely).toarray()
    assert not ours[20:].any() and not ours[:, 20:].any() and ours[:20].any(1).all()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"mixing": 1.1}, "need mixing of at most 1 and alpha above 1"),
        ({"alpha": 1.0}, "need mixing of at most 1 and alpha above 1"),
        ({"mixing": 0.0}, "mixing"),
        ({"max_rounds": 0}, "max_rounds"),
        ({"tolerance": 0.0}, "tolerance"),
    ],
)
def test_values_out_of_range_are_refused(options: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        ssc_elastic_net(random_points(5, 3), **options)
