"""Smooth convex objectives of x [B, d]: value [B], gradient [B, d] and, where known, the smoothness L."""

import torch
from torch import Tensor
from torch.nn import functional


class LeastSquares:
    """0.5 |x - y|^2; L = 1, and the step 1 / L is the exact line search."""

    smoothness: float | None = 1.0

    def __init__(self, y: Tensor) -> None:
        self.y = y

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * (x - self.y).square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return x - self.y


class KullbackLeibler:
    """sum (x - y log(x + floor)) for y >= 0; not smooth near 0, so the step is found by line search."""

    smoothness: float | None = None

    def __init__(self, y: Tensor, floor: float = 1e-10) -> None:
        if bool((y < 0).any()):
            raise ValueError("Kullback-Leibler needs non-negative data")
        self.y, self.floor = y, floor

    def value(self, x: Tensor) -> Tensor:
        return (x - (self.y + self.floor) * torch.log(x.clamp_min(0) + self.floor)).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return 1 - (self.y + self.floor) / (x.clamp_min(0) + self.floor)


class Logistic:
    """Negative log-likelihood of labels in {0, 1} [m] under sigmoid(features [m, d] x + bias), plus weight * sum(x)."""

    def __init__(self, features: Tensor, labels: Tensor, bias: float = 0.0, weight: float = 0.0) -> None:
        self.features, self.bias, self.weight = features, bias, weight
        self.labels = labels.to(features)
        self.smoothness: float | None = 0.25 * float(torch.linalg.matrix_norm(features, 2)) ** 2

    def value(self, x: Tensor) -> Tensor:
        logits = x @ self.features.T + self.bias
        return (functional.softplus(logits) - self.labels * logits).sum(1) + self.weight * x.sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        logits = x @ self.features.T + self.bias
        return (torch.sigmoid(logits) - self.labels) @ self.features + self.weight
