"""The line search against minima in closed form."""

import pytest
import torch
from torch import Tensor

from modules.cone_pursuit.solvers import exact_step

INF = torch.inf


def search(optimum: list[float], gap: list[float], limit: list[float], guess: float, power: int) -> Tensor:
    """For the slopes gap ((gamma / optimum)^power - 1)."""
    best, first = torch.tensor(optimum, dtype=torch.float64), torch.tensor(gap, dtype=torch.float64)
    most = torch.tensor(limit, dtype=torch.float64)
    return exact_step(lambda gamma: first * ((gamma / best) ** power - 1), first, most, torch.full_like(best, guess))


@pytest.mark.parametrize("guess", [1e-12, 1.0, 1e20])
@pytest.mark.parametrize(("power", "error"), [(1, 1e-9), (3, 1e-3)])
def test_many_at_once_whatever_the_guess(guess: float, power: int, error: float) -> None:
    found = search([3.0, 2e-10, 5e8, 3.0, 3.0], [1.0, 1e10, 1e-5, 1.0, 0.0], [INF, INF, INF, 0.7, INF], guess, power)
    expected = torch.tensor([3.0, 2e-10, 5e8, 0.7, 0.0], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=error, atol=0)
    assert float(found[3]) == 0.7  # a step that ends at the limit drops an atom: exactly


def test_beyond_where_the_function_is_defined() -> None:
    """-log(1 - gamma) - 2 gamma, without a value from 1 on."""
    one = torch.ones(1, dtype=torch.float64)
    found = exact_step(lambda gamma: torch.where(gamma < 1, 1 / (1 - gamma), torch.nan) - 2, one, INF * one, 1e3 * one)
    assert 0.5 * 0.98 < float(found) < 0.5 * 1.02


def test_no_minimum() -> None:
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="without bound"):
        exact_step(lambda gamma: -torch.ones_like(gamma), one, INF * one, one)


@pytest.mark.parametrize("unit", [1e-150, 1e-70, 1e70, 1e150])
def test_minima_at_any_scale(unit: float) -> None:
    found = search([unit], [1.0], [INF], 1.0, 1)
    assert float(found) == pytest.approx(unit, rel=1e-9)
