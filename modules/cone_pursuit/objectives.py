"""Smooth convex objectives of x [B, d]: value [B], gradient [B, d] and, where known, the smoothness L. What more they
may give is told by ``Objective`` in solvers.py."""

import torch
from torch import Tensor
from torch.nn import functional

from modules.cone_pursuit.factors import FLOOR, weigh
from modules.cone_pursuit.small_cones import project


def real(y: Tensor) -> Tensor:
    """Raises: ValueError, unless ``y`` are floating-point numbers [B, d]."""
    if y.ndim != 2 or not y.is_floating_point():
        raise ValueError(f"data are real numbers [B, d] of float32 or float64, not {y.dtype} {[*y.shape]}")
    return y


class LeastSquares:
    """0.5 |x - y|^2; L = 1, and the step 1 / L is the exact line search."""

    smoothness: float | None = 1.0

    def __init__(self, y: Tensor) -> None:
        self.y = real(y)
        self.steepness = y.norm(dim=1)

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.y).square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return x - self.y

    def scale(self, x: Tensor) -> Tensor:
        """The factors [B] by which x fits y best."""
        return (x * self.y).sum(1) / x.square().sum(1)

    def refit(self, atoms: Tensor, coefficients: Tensor) -> Tensor:
        """The best coefficients [B, K] of ``atoms`` [B, K, d], whatever the given ones."""
        return project(atoms, self.y)


class KullbackLeibler:
    """D(y, x) = sum (y log(y / x) - y + x) for y >= 0, with 0 log 0 = 0: the generalised Kullback-Leibler divergence.

    Where x is below ``floor`` the logarithm goes on along its tangent, so that value and slope are finite at 0. Not
    smooth near 0: without ``smoothness`` the step is found by line search.
    """

    def __init__(self, y: Tensor, floor: float = FLOOR, smoothness: float | None = None) -> None:
        if bool((y < 0).any()):
            raise ValueError("Kullback-Leibler needs non-negative data")
        self.y, self.floor, self.smoothness = real(y), floor, smoothness
        self.steepness = torch.full_like(y[:, 0], y.shape[1] ** 0.5)  # of 1, from which y / x is taken
        self.least = (torch.xlogy(y, y) - y).sum(1)

    def value(self, x: Tensor) -> Tensor:
        reached = x.clamp_min(self.floor)
        return self.least + (x - self.y * (reached.log() + (x - reached) / reached)).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return 1 - self.y / x.clamp_min(self.floor)

    def scale(self, x: Tensor) -> Tensor:
        return self.y.sum(1) / x.sum(1)

    def refit(self, atoms: Tensor, coefficients: Tensor) -> Tensor:
        """The best coefficients [B, K] of ``atoms`` [B, K, d], found from given ones; see variant 1 of ``pursue``."""
        problems = zip(atoms, self.y, coefficients, strict=True)
        return torch.cat([weigh(own, y[None], start[None], sweeps=100) for own, y, start in problems])


class Logistic:
    """Negative log-likelihood of labels in {0, 1} [m] under sigmoid(features [m, d] x + bias), plus weight * sum(x)."""

    def __init__(self, features: Tensor, labels: Tensor, bias: float = 0.0, weight: float = 0.0) -> None:
        if labels.shape != features.shape[:1] or not bool(((labels == 0) | (labels == 1)).all()):
            raise ValueError(
                f"a label of 0 or 1 for each of {len(features)} samples, not {labels.unique().tolist()[:9]}"
            )
        self.features, self.bias, self.weight = real(features), bias, weight
        self.labels = labels.to(features)
        self.smoothness: float | None = 0.25 * float(torch.linalg.matrix_norm(features, 2)) ** 2

    def value(self, x: Tensor) -> Tensor:
        logits = x @ self.features.T + self.bias
        return (functional.softplus(logits) - self.labels * logits).sum(1) + self.weight * x.sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        logits = x @ self.features.T + self.bias
        return (torch.sigmoid(logits) - self.labels) @ self.features + self.weight
