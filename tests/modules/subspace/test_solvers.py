"""Every solver against an independent reference or a property it must have."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor

from datamodules.unions_of_subspaces import Setting, draw_union
from modules.subspace import lasso, pursuits, solvers
from modules.subspace.solvers import (
    SOLVERS,
    merge_shards,
    nsn,
    omp_path,
    shard,
    ssc_lasso,
    ssc_mp,
    ssc_omp,
    tsc,
)

OPTIONS = {
    "omp": {"max_atoms": 3},
    "mp": {"max_steps": 6},
    "tsc": {"num_neighbors": 3},
    "nsn": {"num_neighbors": 4, "max_dimension": 3},
    "lasso": {"alpha": 5.0},
    "elastic_net": {"alpha": 5.0, "tolerance": 1e-10},
}
EVERY = [(name, OPTIONS[name]) for name in SOLVERS]


def random_points(number: int = 40, dim: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(number, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def omp_by_loop(points: np.ndarray, steps: int, tolerance: float) -> np.ndarray:
    """The textbook: correlate, pick, least squares, one point at a time."""
    coefficients = np.zeros((len(points), len(points)))
    for j, x in enumerate(points):
        support: list[int] = []
        residual, solution = x, np.zeros(0)
        for _ in range(steps):
            scores = np.abs(points @ residual)
            scores[[j, *support]] = -1
            support.append(int(scores.argmax()))
            solution = np.linalg.lstsq(points[support].T, x, rcond=None)[0]
            residual = x - solution @ points[support]
            if np.linalg.norm(residual) <= tolerance:
                break
        coefficients[j, support] = solution
    return coefficients


def mp_by_loop(points: np.ndarray, steps: int, atoms: int, tolerance: float) -> np.ndarray:
    coefficients = np.zeros((len(points), len(points)))
    for j, x in enumerate(points):
        residual, c = x.copy(), coefficients[j]
        for _ in range(steps):
            if np.linalg.norm(residual) <= tolerance or np.count_nonzero(c) >= atoms:
                break
            scores = np.abs(points @ residual)
            scores[j] = -1
            i = int(scores.argmax())
            amount = points[i] @ residual / (points[i] @ points[i])
            c[i] += amount
            residual -= amount * points[i]
    return coefficients


@pytest.mark.parametrize("dim", [12, 80, 200])  # from the residuals, from the Gram matrix, in the points' span
@pytest.mark.parametrize(("steps", "tolerance"), [(5, 0.0), (8, 2.0)])
def test_omp_is_the_loop(dim: int, steps: int, tolerance: float) -> None:
    points = random_points(60, dim)
    ours = ssc_omp(points, steps, tolerance).toarray()
    np.testing.assert_allclose(ours, omp_by_loop(points.numpy(), steps, tolerance), atol=1e-10)


@pytest.mark.parametrize("dim", [12, 80, 200])
@pytest.mark.parametrize(("steps", "atoms", "tolerance"), [(7, 60, 0.0), (300, 4, 0.0), (300, 60, 1.5)])
def test_mp_is_the_loop(dim: int, steps: int, atoms: int, tolerance: float) -> None:
    points = random_points(60, dim)
    ours = ssc_mp(points, steps, atoms, tolerance).toarray()
    np.testing.assert_allclose(ours, mp_by_loop(points.numpy(), steps, atoms, tolerance), atol=1e-10)


def test_mp_energy_falls_by_what_the_step_explains() -> None:
    points = random_points(30, 10)
    [path] = solvers.mp_path(points, max_steps=150)
    energy = torch.cat((points.square().sum(1, keepdim=True), path.residuals.square()), 1)
    explained = path.values.square() * points.square().sum(1)[path.picks.clamp_min(0)]
    torch.testing.assert_close(energy[:, :-1] - energy[:, 1:], explained, atol=1e-12, rtol=1e-9)
    assert (energy.diff(dim=1) <= 1e-14).all()


def test_noiseless_omp_with_a_residual_bound_finds_the_dimensions() -> None:
    setting = Setting(60, (4, 7, 10), 0, 5.0, 0.0, True, False)
    points, label = draw_union(setting, [3])
    counts = np.diff(ssc_omp(points, tolerance=1e-8).indptr)
    assert [set(counts[label.numpy() == k]) for k in range(3)] == [{4}, {7}, {10}]


@pytest.mark.parametrize("outliers", [False, True])
@pytest.mark.parametrize("number", [15, 40])
def test_admm_solves_its_problem(number: int, outliers: bool) -> None:
    """No direction of descent is left, whichever Gram matrix is factorised; without outliers: scikit-learn's Lasso."""
    points = random_points(number, 20, seed=1)
    points /= points.norm(dim=1, keepdim=True)
    alpha = 8.0
    options = {"penalty": 3.0, "max_iterations": 3000, "tolerance": 1e-9}
    ours = ssc_lasso(points, alpha, outliers, **options).toarray()
    x = points.numpy()
    if outliers:
        weight = alpha / np.sort(np.abs(x).sum(1))[-2]

        def objective(c: np.ndarray) -> np.ndarray:
            return np.abs(c).sum(1) + weight * np.abs(x - c @ x).sum(1)

        random = np.random.default_rng(0)
        for scale in (1e-1, 1e-3, 1e-5):
            moved = ours + scale * random.standard_normal(ours.shape) * (1 - np.eye(number))
            assert (objective(moved) >= objective(ours) - 1e-7).all()
        return
    gram = np.abs(x @ x.T) - 2 * np.eye(number)
    weight = alpha / gram.max(1).min()
    for j in range(0, number, 4):
        others = np.delete(x, j, axis=0)
        lasso = Lasso(alpha=1 / (weight * x.shape[1]), fit_intercept=False, tol=1e-12, max_iter=100_000)
        reference = np.insert(lasso.fit(others.T, x[j]).coef_, j, 0.0)
        np.testing.assert_allclose(ours[j], reference, atol=1e-6)


def test_tsc_weights() -> None:
    points = random_points(20, 5)
    units = (points / points.norm(dim=1, keepdim=True)).numpy()
    cosine = np.abs(units @ units.T) - 2 * np.eye(20)
    ours = tsc(points, 3).toarray()
    for j in range(20):
        nearest = np.argsort(-cosine[j])[:3]
        assert set(np.flatnonzero(ours[j])) == set(nearest)
        np.testing.assert_allclose(ours[j, nearest], np.exp(-2 * np.arccos(cosine[j, nearest])))


def test_tsc_of_orthogonal_points() -> None:
    """q neighbours by the definition, of weight exp(-pi); never the point itself, never a zero point."""
    points = torch.cat((torch.eye(5, dtype=torch.float64), torch.zeros(2, 5, dtype=torch.float64)))
    ours = tsc(points, 4).toarray()
    expected = np.zeros((7, 7))
    expected[:5, :5] = np.exp(-np.pi) * (1 - np.eye(5))
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    assert not tsc(points, 2, queries=points[5:]).nnz


def test_nsn_refuses_a_subspace_that_is_the_space() -> None:
    points = random_points(30, 6)
    with pytest.raises(ValueError, match="max_dimension is 20; it must be less than the 6 of the space"):
        nsn(points, 10)
    assert nsn(points, 5).nnz < 30 * 29 and nsn(points, 10, 5).nnz < 30 * 29


@pytest.mark.parametrize("outliers", [False, True])
def test_lasso_of_a_point_orthogonal_up_to_round_off(outliers: bool) -> None:
    """It has no coefficients, and does not blow up the weight of the fit for the others."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 7)))[0]
    draws = np.random.default_rng(1).standard_normal((40, 3))
    points = torch.from_numpy(np.concatenate((draws[:20] @ basis[:, :3].T, draws[20:] @ basis[:, 3:6].T)))
    points /= points.norm(dim=1, keepdim=True)
    lonely = torch.cat((points, torch.from_numpy(basis[:, 6:].T)))
    assert 0 < float((lonely[:40] @ lonely[40]).abs().max()) < 1e-15
    ours = ssc_lasso(lonely, outliers=outliers).toarray()
    assert np.isfinite(ours).all() and ours[:40].any(1).all()
    if not outliers:  # absolute errors may be smaller with points that are orthogonal
        assert not ours[40].any() and not ours[:, 40].any()
        np.testing.assert_allclose(ours[:40, :40], ssc_lasso(points).toarray(), atol=1e-9)


def test_lasso_whose_system_is_singular_says_so() -> None:
    points = random_points(6, 60).float().repeat(5, 1)
    with pytest.raises(ValueError, match=r"singular in torch.float32.*larger penalty"):
        ssc_lasso(points, alpha=1e12, penalty=1e-12)
    with pytest.raises(ValueError, match="no two points are correlated"):
        ssc_lasso(torch.eye(4))


@pytest.mark.parametrize("slack", [1e-4, 0.1])
def test_nsn_against_its_definition(slack: float) -> None:
    points = random_points(25, 6, seed=2)
    units = (points / points.norm(dim=1, keepdim=True)).numpy()
    ours = nsn(points, num_neighbors=5, max_dimension=3, slack=slack).toarray()
    for j in range(25):
        chosen = [j]
        for _ in range(5):
            if len(chosen) <= 3:
                basis = np.linalg.qr(units[chosen].T)[0]
            scores = np.linalg.norm(units @ basis, axis=1)
            eligible = np.delete(np.arange(25), chosen)
            chosen.append(int(eligible[scores[eligible].argmax()]))
        expected = set(chosen) | set(np.flatnonzero(scores >= 1 - slack))
        assert set(np.flatnonzero(ours[j])) == expected - {j}


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_order_blocks_and_shards_do_not_matter(name: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    points = random_points(50, 8)
    whole = SOLVERS[name](points, **options).toarray()
    assert not whole.diagonal().any()
    order = np.random.default_rng(0).permutation(50)
    permuted = SOLVERS[name](points[order], **options).toarray()
    np.testing.assert_allclose(permuted, whole[order][:, order], atol=1e-9)
    monkeypatch.setattr("modules.subspace.blocks.CACHE_BYTES", 1)
    tiny = SOLVERS[name](points, **options, memory_gib=30_000 / 2**30).toarray()
    np.testing.assert_allclose(tiny, whole, atol=1e-9)
    shards = [SOLVERS[name](points, **options, rows=shard(50, rank, 3)) for rank in range(3)]
    np.testing.assert_allclose(merge_shards(shards).toarray(), whole, atol=1e-9)
    assert SOLVERS[name](points, **options, rows=torch.arange(0)).shape == (0, 50)


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_zero_and_equal_points(name: str, options: dict) -> None:
    points = random_points(20, 6)
    points[3] = 0
    points[7] = points[8]
    coefficients = SOLVERS[name](points, **options).toarray()
    assert np.isfinite(coefficients).all()
    assert not coefficients[3].any() and not coefficients[:, 3].any()
    assert coefficients[7, 8] > 0


def test_equal_points_stop_omp_early() -> None:
    """What a chosen atom spans already is no news: no singular system."""
    points = random_points(4, 6).repeat_interleave(3, 0)
    coefficients = ssc_omp(points, 3)
    assert np.diff(coefficients.indptr).max() == 1


@pytest.mark.parametrize(("name", "options"), EVERY)
@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.tensor([[1.0, 2], [float("nan"), 1], [0, 1]]), "1 of 3 points hold NaN or infinity, the first is row 1"),
        (torch.ones(1, 3), "at least 2 are needed"),
        (torch.ones(3), "must be a matrix"),
    ],
)
def test_points_that_cannot_be_coded(name: str, options: dict, points: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SOLVERS[name](points, **options)


def test_values_out_of_range() -> None:
    points = random_points(10, 4)
    with pytest.raises(ValueError, match="allow at most 4"):
        ssc_omp(points, 5)
    with pytest.raises(ValueError, match="at most 9"):
        tsc(points, 10)
    with pytest.raises(ValueError, match="max_steps must be positive"):
        ssc_mp(points, 0)
    with pytest.raises(ValueError, match="no option max_atom"):
        solvers.solver("omp", {"max_atom": 3})
    with pytest.raises(ValueError, match="choose one of omp, mp"):
        solvers.solver("ompp", {})


def test_new_points_are_coded_by_the_old_ones() -> None:
    points = random_points(30, 70)
    queries = random_points(3, 70, seed=9)
    both = np.concatenate((queries.numpy(), points.numpy()))
    ours = ssc_omp(points, 3, queries=queries).toarray()
    support = [set(np.flatnonzero(row)) for row in ours]
    for j in range(3):
        alone = omp_by_loop(np.concatenate((both[j : j + 1], points.numpy())), 3, 0.0)[0]
        np.testing.assert_allclose(ours[j], alone[1:], atol=1e-10)
    assert all(len(s) == 3 for s in support)


def test_a_looser_bound_is_a_prefix() -> None:
    points = random_points(30, 10)
    [tight], [loose] = list(omp_path(points, tolerance=0.1)), list(omp_path(points, tolerance=1.0))
    taken = loose.picks >= 0
    assert torch.equal(tight.picks[taken], loose.picks[taken])


def test_orthogonalising_twice_on_near_parallel_atoms() -> None:
    """Once leaves a share of 1e-16 / 1e-9 of the basis in what remains."""
    random = np.random.default_rng(0)
    directions = np.linalg.qr(random.standard_normal((20, 4)))[0].T
    weights, off = random.standard_normal((3, 4)), random.standard_normal((3, 20))
    vectors = weights @ directions + 1e-9 * off
    stacked = torch.from_numpy(np.broadcast_to(directions, (3, 4, 20)).copy())
    rest, total = pursuits.orthogonalize(torch.from_numpy(vectors), stacked)
    units = rest / rest.norm(dim=1, keepdim=True)
    assert float((stacked @ units[:, :, None]).abs().max()) < 1e-14
    torch.testing.assert_close(total, torch.from_numpy(weights + 1e-9 * off @ directions.T), atol=1e-14, rtol=0)


def test_omp_on_near_parallel_points_is_least_squares() -> None:
    points = random_points(6, 30)
    points = torch.cat((points, points + 1e-7 * random_points(6, 30, seed=1)))
    ours = ssc_omp(points, 4)
    for j in range(12):
        support = ours.indices[ours.indptr[j] : ours.indptr[j + 1]]
        reference = np.linalg.lstsq(points[support].T.numpy(), points[j].numpy(), rcond=None)[0]
        fit = ours[[j]].toarray()[0][support] @ points[support].numpy()
        np.testing.assert_allclose(fit, reference @ points[support].numpy(), atol=1e-9)


@pytest.mark.parametrize("outliers", [False, True])
def test_lasso_at_any_scale(outliers: bool) -> None:
    """The iterates are those of points about 1, bit for bit; only the bound on the constraint is in the points' unit,
    so that it is met sooner by small ones."""
    points = random_points(20, 8)
    options = {"alpha": 6.0, "outliers": outliers, "max_iterations": 40}
    plain = ssc_lasso(points, **options, tolerance=0.0).toarray()
    for power in (-300, -3, 3, 300):
        scaled = ssc_lasso(points * 2.0**power, **options, tolerance=0.0).toarray()
        np.testing.assert_allclose(scaled, plain, atol=1e-9)


def test_the_bound_of_admm_is_in_the_units_of_the_points() -> None:
    points = random_points(12, 6)
    own, weight = torch.arange(12)[:, None], lasso.Weights(9.0, 3.0, 50.0, 1.0)
    times4 = lasso.Weights(9.0 / 16, 3.0 / 4, 50.0, 4.0)
    for tolerance in (1e-1, 1e-2, 1e-3):
        plain, larger = (
            lasso.admm_block(x, x, own, weights, lasso.factorize(x, weights), 500, tolerance)
            for x, weights in ((points, weight), (4 * points, times4))
        )
        torch.testing.assert_close(larger, plain, atol=1e-12, rtol=0)
        wrong = times4._replace(unit=1.0)
        other = lasso.admm_block(4 * points, 4 * points, own, wrong, lasso.factorize(4 * points, wrong), 500, tolerance)
        assert float((other - plain).abs().max()) > 1e-9  # it would go on


def test_weights_of_the_two_problems_by_their_definitions() -> None:
    points = random_points(15, 6, seed=4)
    x = points.numpy()
    gram = np.abs(x @ x.T) - 1e9 * np.eye(15)
    assert lasso.smallest_largest_correlation(points, 4) == pytest.approx(gram.max(1).min())
    sums = np.abs(x).sum(1)
    others = [np.delete(sums, i).max() for i in range(15)]
    assert lasso.second_largest_l1(points) == pytest.approx(min(others))


def test_mp_goes_on_until_it_has_its_atoms() -> None:
    """It returns to old atoms: the default allows far more steps than atoms."""
    points = random_points(40, 6)
    assert (np.diff(ssc_mp(points, max_atoms=5).indptr) == 5).all()
    [path] = solvers.mp_path(points, max_atoms=5)
    assert int((path.picks >= 0).sum(1).max()) > 5
