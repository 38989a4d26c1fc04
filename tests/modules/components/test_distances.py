"""Distances against closed forms and double loops."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from modules.components.distances import BLOCK, bootstrap, frechet, kernel_distance, spread


def samples(seed: int, count: int, dims: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=generator, dtype=torch.float64)
    return torch.randn(count, dims, generator=generator, dtype=torch.float64) @ mixing + seed


def test_frechet_against_scipy() -> None:
    a, b = samples(0, 50), samples(1, 70)
    first, second = np.cov(a.numpy().T), np.cov(b.numpy().T)
    gap = ((a.mean(0) - b.mean(0)) ** 2).sum().item()
    expected = gap + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-8)


def test_frechet_of_one_feature_and_of_too_few_samples() -> None:
    a, b = torch.tensor([[0.0], [2.0]]), torch.tensor([[10.0], [16.0]])
    assert frechet(a, b) == pytest.approx(12**2 + (math.sqrt(2) - math.sqrt(18)) ** 2)
    with pytest.raises(ValueError, match="two samples of each set"):
        frechet(a[:1], b)


def test_kernel_distance_against_a_double_loop() -> None:
    a, b = samples(2, 5).float(), samples(3, 6).float()

    def k(x: torch.Tensor, y: torch.Tensor) -> float:
        return (float(x.double() @ y.double()) / 4 + 1) ** 3

    expected = sum(k(a[i], a[j]) for i in range(5) for j in range(5) if i != j) / 20
    expected += sum(k(b[i], b[j]) for i in range(6) for j in range(6) if i != j) / 30
    expected -= 2 * sum(k(x, y) for x in a for y in b) / 30
    value, error = kernel_distance(a, b)
    assert value == pytest.approx(expected, rel=1e-6) and math.isnan(error)


def test_kernel_distance_over_blocks() -> None:
    a, b = samples(4, 2 * BLOCK), samples(5, 2 * BLOCK + 1)
    value, error = kernel_distance(a, b)
    one, two = kernel_distance(a[:BLOCK], b[: BLOCK + 1])[0], kernel_distance(a[BLOCK:], b[BLOCK + 1 :])[0]
    assert value == pytest.approx((one + two) / 2)
    assert error == pytest.approx(abs(one - two) / 2)


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for seed in range(100):
        x = torch.randn(40, generator=generator, dtype=torch.float64)
        low, high = bootstrap(lambda i, x=x: float(x[i].mean()), 40, draws=200, seed=seed)
        assert high - low == pytest.approx(2 * 1.96 / math.sqrt(40), rel=0.5)
        hits += low < 0 < high
    assert 86 <= hits <= 100


def test_bootstrap_is_pivotal() -> None:
    """Of a maximum, resampling only finds smaller values: the interval lies above."""
    x = torch.arange(100.0)
    low, high = bootstrap(lambda i: float(x[i].max()), 100)
    assert low == 99 and high > 100


def test_spread_is_the_mean_squared_distance_of_pairs() -> None:
    a = samples(6, 9)
    expected = sum(float(((a[i] - a[j]) ** 2).sum()) for i in range(9) for j in range(9) if i != j) / 72
    assert spread(a) == pytest.approx(expected)
