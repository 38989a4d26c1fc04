"""The Kullback-Leibler divergence and its solvers against scipy, scikit-learn and the formula."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.optimize import nnls as scipy_nnls
from scipy.special import kl_div
from sklearn.decomposition import NMF
from torch import Tensor

from modules.cone_pursuit.factors import (
    FactorCorrection,
    best_rank_one,
    ccd,
    compose,
    multiplicative,
    total,
    unit_terms,
    weigh,
)
from modules.cone_pursuit.objectives import KullbackLeibler
from modules.cone_pursuit.oracles import RankOne
from modules.cone_pursuit.solvers import ALGORITHMS, pursue


def uniform(*shape: int, seed: int = 0, zeros: float = 0.0) -> Tensor:
    """U(0, 1), a share of it zero."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.random(shape) * (random.random(shape) >= zeros))


def divergence(target: Tensor, factors: list[Tensor]) -> Tensor:
    """[B]."""
    return torch.from_numpy(kl_div(target.numpy(), compose(factors).sum(1).numpy())).flatten(1).sum(1)


def violations(target: Tensor, factors: list[Tensor]) -> float:
    """The largest violation of the conditions of Karush, Kuhn and Tucker in any entry of the factors."""
    leaves = [factor.clone().requires_grad_() for factor in factors]
    x = compose(leaves).sum(1)
    (x - target * x.log()).sum().backward()
    worst = 0.0
    for leaf in leaves:
        assert leaf.grad is not None
        wrong = torch.where(leaf > 0, leaf.grad.abs(), (-leaf.grad).clamp_min(0))
        worst = max(worst, float(wrong.max()))
    return worst


def test_the_divergence_and_its_gradient() -> None:
    y, x = uniform(3, 40, zeros=0.3), uniform(3, 40, seed=1) + 0.1
    y[2], x[2, :5], y[2, :5] = x[2], 0, 0
    objective = KullbackLeibler(y)
    np.testing.assert_allclose(objective.value(x).numpy(), kl_div(y.numpy(), x.numpy()).sum(1), atol=1e-13)
    assert float(objective.value(x)[2].abs()) < 1e-13
    coarse = KullbackLeibler(y, floor=0.3)  # half of x is below, where the tangent goes on
    for place in range(40):
        shift = torch.zeros_like(x)
        shift[:, place] = 1e-6
        slope = (coarse.value(x + shift) - coarse.value(x - shift)) / 2e-6
        torch.testing.assert_close(slope, coarse.gradient(x)[:, place], atol=1e-4, rtol=1e-4)
    assert torch.isfinite(objective.value(torch.zeros_like(x))).all()
    scales = torch.linspace(0.5, 2, 301)
    values = torch.stack([KullbackLeibler(y[:1]).value(float(s) * x[:1]) for s in scales])
    assert float(scales[values.argmin()]) == pytest.approx(float(KullbackLeibler(y[:1]).scale(x[:1])), abs=0.005)


def test_updates_are_scikit_learns_step_for_step() -> None:
    target = uniform(1, 12, 9, zeros=0.2)
    starts = [uniform(1, 12, 3, seed=1), uniform(1, 9, 3, seed=2)]
    for sweeps in (1, 2, 3, 10, 50):
        peer = NMF(3, init="custom", solver="mu", beta_loss="kullback-leibler", tol=0, max_iter=sweeps)
        w = peer.fit_transform(target[0].numpy(), W=starts[0][0].numpy().copy(), H=starts[1][0].T.numpy().copy())
        ours = multiplicative(target, starts, sweeps)
        np.testing.assert_allclose(ours[0][0].numpy(), w, atol=1e-8)
        np.testing.assert_allclose(ours[1][0].T.numpy(), peer.components_, atol=1e-8)


@pytest.mark.parametrize("shape", [(12, 9), (6, 5, 4)])
@pytest.mark.parametrize("update", [multiplicative, ccd])
def test_no_sweep_raises_the_divergence(update, shape: tuple[int, ...]) -> None:
    """Data and factors with zeros, even a row and a term of nothing else; all problems at once as one by one."""
    target = uniform(20, *shape, zeros=0.4)
    target[0, 0] = 0
    factors = [uniform(20, n, 3, seed=m + 1) for m, n in enumerate(shape)]
    for m, factor in enumerate(factors):
        factor[:, :, 1:] *= uniform(20, shape[m], 2, seed=m + 9, zeros=0.6) > 0
    factors[0][1, :, 2] = 0
    one = update(target[7:8], [factor[7:8] for factor in factors], 3)
    values = [divergence(target, factors)]
    for sweep in range(40):
        factors = update(target, factors, 1)
        values.append(divergence(target, factors))
        if sweep == 2:
            torch.testing.assert_close(total(one), total([factor[7:8] for factor in factors]), atol=1e-10, rtol=1e-10)
    falls = torch.stack(values).diff(dim=0)
    assert (falls <= 1e-12).all() and (values[-1] < 0.9 * values[0]).all()
    assert all(float(factor.min()) >= 0 for factor in factors)


def test_zeros_that_should_grow_do() -> None:
    """From atoms that overlap in nothing, and cover not all, to about the end of dense starts."""
    target = total([uniform(1, 12, 2, seed=1), uniform(1, 9, 2, seed=2)])
    blocks = [torch.zeros(1, 12, 2), torch.zeros(1, 9, 2)]
    for factor, half in zip(blocks, (6, 4), strict=True):
        factor[:, :half, 0], factor[:, half:-1, 1] = 1, 1
    sparse = multiplicative(target, [factor.double() for factor in blocks], 3000)
    assert float(divergence(target, sparse)) < 1e-4


@pytest.mark.parametrize("shape", [(12, 9), (6, 5, 4)])
def test_best_rank_one_is_where_updates_end(shape: tuple[int, ...]) -> None:
    target = uniform(2, *shape, zeros=0.3)
    ends = multiplicative(target, [uniform(2, n, 1, seed=m) for m, n in enumerate(shape)], 200)
    torch.testing.assert_close(total(best_rank_one(target)), total(ends), atol=1e-10, rtol=1e-10)


def test_coordinate_descent_ends_at_a_stationary_point() -> None:
    target = uniform(3, 10, 8, zeros=0.2)
    starts = [uniform(3, 10, 3, seed=1), uniform(3, 8, 3, seed=2)]
    ends = ccd(target, starts, 3000)
    assert violations(target, ends) < 1e-6 < 1 < violations(target, starts)
    assert any(float(factor.min()) == 0 for factor in ends)


def test_one_term_is_weighed_by_the_formula() -> None:
    atoms, points = uniform(1, 15), uniform(6, 15, seed=1)
    points[3] = 0
    expected = points.sum(1) / atoms.sum()
    np.testing.assert_allclose(weigh(atoms, points)[:, 0].numpy(), expected.numpy(), atol=1e-12)
    far = torch.full((6, 1), 1e4, dtype=torch.float64)
    np.testing.assert_allclose(weigh(atoms, points, far)[:, 0].numpy(), expected.numpy(), atol=1e-12)


def test_weights_are_scipys() -> None:
    atoms, points = uniform(5, 20, zeros=0.3), uniform(8, 20, seed=1, zeros=0.3)
    atoms[4] = 0
    points[:, ~(atoms > 0).any(0)] += 1  # which no atom reaches
    weights = weigh(atoms, points, torch.ones(8, 5, dtype=torch.float64))
    assert weights[:, 4].tolist() == [1] * 8 and not weights[:, :4].all()
    is_reached = (atoms > 0).any(0).numpy()
    a, y = atoms[:4].numpy()[:, is_reached], points.numpy()[:, is_reached]

    def value(w: np.ndarray, row: np.ndarray) -> float:
        return float(kl_div(row, w @ a).sum())

    for row, found in zip(y, weights[:, :4].numpy(), strict=True):
        best = minimize(value, np.ones(4), (row,), method="L-BFGS-B", bounds=[(1e-12, None)] * 4, tol=1e-12)
        assert value(found, row) <= best.fun + 1e-9
        np.testing.assert_allclose(found, best.x, atol=1e-3)
        slopes = a @ (1 - row / (found @ a))
        assert np.abs(np.where(found > 0, slopes, np.minimum(slopes, 0))).max() < 1e-7


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("shape", [(9, 8), (6, 5, 4)])
def test_a_corrected_pursuit_keeps_its_books(algorithm: str, shape: tuple[int, ...]) -> None:
    target = total([uniform(1, n, 3, seed=m) for m, n in enumerate(shape)])
    flat, start = target.flatten(1), unit_terms(best_rank_one(target))
    correct = FactorCorrection(multiplicative, target, 60)
    objective = KullbackLeibler(flat, smoothness=10.0 if algorithm == "fcmp0" else None)
    result = pursue(objective, RankOne(shape), flat, algorithm, 8, max_atoms=3, correct=correct, start=start)
    rebuilt = torch.einsum("bk,bkd->bd", result.coefficients, result.atoms)
    torch.testing.assert_close(rebuilt, result.x, atol=1e-12, rtol=1e-12)
    assert int(result.counts[0]) == 1 and int(result.counts.max()) == 3
    assert float(result.values[0]) == pytest.approx(float(divergence(target, best_rank_one(target))))
    assert float(result.values[-1]) < 0.2 * float(result.values[0])
    if algorithm != "fcmp0":  # a fixed step may be too long
        assert (result.values.diff(dim=0) <= 1e-12).all()


@pytest.mark.parametrize("algorithm", ["fcmp0", "fcmp1"])
def test_one_corrective_step(algorithm: str) -> None:
    """Variant 0: scipy's projection of x - 0.1 g. Variant 1: stationary over the cone of the two atoms."""
    target = uniform(1, 9, 8, zeros=0.2) + 0.1
    flat, start = target.flatten(1), unit_terms(best_rank_one(target))
    objective = KullbackLeibler(flat, smoothness=10.0)
    result = pursue(objective, RankOne((9, 8)), flat, algorithm, 1, start=start)
    atoms, found = result.atoms[0].numpy(), result.coefficients[0].numpy()
    before = (start[0][0].T @ start[1][0]).numpy()
    if algorithm == "fcmp0":
        goal = before - 0.1 * (1 - flat[0].numpy() / before)
        np.testing.assert_allclose(found, scipy_nnls(atoms.T, goal)[0], atol=1e-9)
    else:
        assert (found > 0).all() and float(result.values[1]) < float(result.values[0])
        np.testing.assert_allclose(atoms @ (1 - flat[0].numpy() / (found @ atoms)), 0, atol=1e-6)
