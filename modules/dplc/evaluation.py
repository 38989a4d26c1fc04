"""What a test gathers about pairs of an image and what came out for it."""

import math

import torch
from torch import Tensor

from modules.components.distances import bootstrap
from modules.components.feature_distances import FeatureDistances, together
from modules.components.features import Features
from modules.components.gathering import of_all_ranks


class Evaluation:
    """Distortion, and distances of distributions under a network of features.

    Args:
        features: or None, for distortion alone.
    """

    def __init__(self, features: Features | None) -> None:
        self.distances = None if features is None else FeatureDistances(features)
        self.errors: list[Tensor] = []

    def add(self, x: Tensor, x_hat: Tensor) -> None:
        """Images [N, 3, H, W] in [-1, 1]; the second set clamped to what can be stored."""
        x, x_hat = x.float(), x_hat.float().clamp(-1, 1)
        self.errors.append((x_hat - x).square().mean((1, 2, 3)).cpu())
        if self.distances is not None:
            self.distances.add(x, x_hat)

    def results(self) -> dict[str, float]:
        """Numbers over all ranks with 95 % intervals (``_low``, ``_high``), and an empty evaluation for the next.

        ``mse`` on the scale [-1, 1], ``psnr`` of that mean, ``images``; with features those of ``FeatureDistances``.
        """
        errors = torch.cat(of_all_ranks(together(self.errors))).double()
        self.errors = []
        mse = float(errors.mean())
        low, high = bootstrap(lambda i: float(errors[i].mean()), len(errors), draws=1000)
        results = {
            "images": float(len(errors)),
            "mse": mse,
            "mse_low": low,
            "mse_high": high,
            "psnr": 10 * math.log10(4 / max(mse, 1e-12)),
        }
        return results | ({} if self.distances is None else self.distances.results())


def pixel_variance(draws: Tensor) -> Tensor:
    """Population variance over draws [K, N, 3, H, W], averaged over pixels: [N], in the square of their unit."""
    return draws.var(0, correction=0).mean((1, 2, 3))
