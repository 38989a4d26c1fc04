"""Rank-one terms against scipy, scikit-learn and the formula."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as scipy_nnls
from sklearn.decomposition import NMF
from torch import Tensor

from modules.cone_pursuit.factors import FactorCorrection, compose, decompose, hals, total
from modules.cone_pursuit.objectives import LeastSquares
from modules.cone_pursuit.oracles import RankOne
from modules.cone_pursuit.solvers import pursue


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def objective(target: Tensor, factors: list[Tensor]) -> Tensor:
    return 0.5 * (target - compose(factors).sum(1)).flatten(1).square().sum(1)


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 3), (3, 2, 4, 2)])
def test_terms_and_factors_are_the_same_thing(shape: tuple[int, ...]) -> None:
    factors = [uniform(2, n, 3, seed=i) for i, n in enumerate(shape)]
    terms = compose(factors)
    one = factors[0][1, :, 2].numpy()
    for factor in factors[1:]:
        one = np.multiply.outer(one, factor[1, :, 2].numpy())
    np.testing.assert_allclose(terms[1, 2].numpy(), one)
    torch.testing.assert_close(total(factors), terms.sum(1))
    flat = terms.flatten(2)
    norms = flat.norm(dim=2)
    again = decompose(flat / norms[:, :, None], norms, shape)
    torch.testing.assert_close(compose(again), terms)
    sizes = torch.stack([factor.norm(dim=1) for factor in again])
    torch.testing.assert_close(sizes, sizes[:1].expand_as(sizes))


def test_one_column_at_a_time_is_non_negative_least_squares() -> None:
    """One sweep over rank-one factors: each is what scipy finds for it while the other one is held."""
    target, factors = uniform(1, 6, 5) - 0.2, [uniform(1, 6, 1, seed=1), uniform(1, 5, 1, seed=2)]
    new = hals(target, factors, 1)
    rows = [scipy_nnls(factors[1][0].numpy(), row)[0] for row in target[0].numpy()]
    columns = [scipy_nnls(np.array(rows), column)[0] for column in target[0].numpy().T]
    np.testing.assert_allclose(compose(new)[0, 0].numpy(), np.array(rows) @ np.array(columns).T, atol=1e-12)


def test_objective_never_grows_and_ends_where_scikit_learn_does() -> None:
    target, starts = uniform(1, 12, 9), [uniform(1, 12, 3, seed=1), uniform(1, 9, 3, seed=2)]
    factors, values = starts, [objective(target, starts)]
    for _ in range(30):
        factors = hals(target, factors, 1)
        values.append(objective(target, factors))
    assert (torch.stack(values).diff(dim=0) <= 1e-12).all()
    reference = NMF(3, init="custom", solver="cd", tol=1e-12, max_iter=5000)
    w = reference.fit_transform(target[0].numpy(), W=starts[0][0].numpy(), H=starts[1][0].T.numpy().copy())
    best = 0.5 * np.square(target[0].numpy() - w @ reference.components_).sum()
    assert float(objective(target, hals(target, factors, 2000))) == pytest.approx(best, rel=1e-4)


def test_a_zero_term_stays_zero_unless_there_is_a_floor() -> None:
    target, starts = uniform(1, 6, 5), [uniform(1, 6, 2, seed=1), uniform(1, 5, 2, seed=2)]
    for factor in starts:
        factor[:, :, 1] = 0
    assert not compose(hals(target, starts, 5))[:, 1].any()
    assert compose(hals(target, [factor.clamp_min(1e-16) for factor in starts], 50, floor=1e-16))[:, 1].norm() > 1e-3


@pytest.mark.parametrize("algorithm", ["nnmp", "amp", "pwmp", "fcmp0", "fcmp1"])
def test_a_corrected_pursuit_keeps_its_books(algorithm: str) -> None:
    factors = [uniform(1, n, 2, seed=i) for i, n in enumerate((6, 5, 4))]
    target = compose(factors).sum(1)
    flat, correct = target.flatten(1), FactorCorrection(hals, target, 30)
    result = pursue(LeastSquares(flat), RankOne((6, 5, 4)), flat, algorithm, 8, max_atoms=2, correct=correct)
    rebuilt = torch.einsum("bk,bkd->bd", result.coefficients, result.atoms)
    torch.testing.assert_close(rebuilt, result.x, atol=1e-12, rtol=1e-12)
    assert (result.values.diff(dim=0) <= 1e-12).all() and int(result.counts.max()) == 2
    plain = pursue(LeastSquares(flat), RankOne((6, 5, 4)), flat, algorithm, len(result.values) - 1, max_atoms=2)
    assert float(result.values[-1]) < float(plain.values[-1])
