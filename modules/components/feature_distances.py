"""Distances between the images that went in and those that came out, under the features of a network."""

import torch
from torch import Tensor

from modules.components.distances import bootstrap, frechet, kernel_distance, spread
from modules.components.features import Features
from modules.components.frozen import Frozen
from modules.components.gathering import of_all_ranks


class FeatureDistances:
    """Gathers features of two sets of images and compares them over all ranks.

    Args:
        features: its ``label`` names the Frechet distance.
    """

    def __init__(self, features: Features) -> None:
        self.features, self.label = Frozen(features), features.label
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []

    def add(self, x: Tensor, x_hat: Tensor) -> None:
        """Images [N, 3, H, W] in [-1, 1]: what went in and what came out."""
        self.features.to(x.device)
        self.real.append(self.features(x.float()).float().cpu())
        self.fake.append(self.features(x_hat.float()).float().cpu())

    def results(self) -> dict[str, float]:
        """The Frechet distance under its name with a 95 % interval (``_low``, ``_high``), ``kernel`` and
        ``kernel_error`` of the same features, and ``diversity``: mean squared feature distance of two of the outputs
        over that of two real images. Empty for fewer than two images; the next begin anew.
        """
        real, fake = (torch.cat(of_all_ranks(together(part))) for part in (self.real, self.fake))
        self.real, self.fake = [], []
        if len(fake) < 2:
            return {}
        kernel, error = kernel_distance(fake, real)
        low, high = bootstrap(lambda i: frechet(fake[i], real), len(fake))
        return {
            self.label: frechet(fake, real),
            f"{self.label}_low": low,
            f"{self.label}_high": high,
            "kernel": kernel,
            "kernel_error": error,
            "diversity": spread(fake) / max(spread(real), 1e-12),
        }


def together(parts: list[Tensor]) -> Tensor:
    """One tensor of several; an empty one of none."""
    return torch.cat(parts) if parts else torch.empty(0)
