"""What a test gathers about pairs of an image and what came out for it."""

import math

import torch
from torch import Tensor

from modules.components.frozen import Frozen
from modules.components.gathering import of_all_ranks
from modules.dplc.distances import bootstrap, frechet, kernel_distance, spread
from modules.dplc.features import Features


class Evaluation:
    """Distortion, and distances of distributions under a network of features.

    Args:
        features: or None, for distortion alone.
    """

    def __init__(self, features: Features | None) -> None:
        self.features = None if features is None else Frozen(features)
        self.label = "" if features is None else features.label
        self.errors: list[Tensor] = []
        self.real: list[Tensor] = []
        self.fake: list[Tensor] = []

    def add(self, x: Tensor, x_hat: Tensor) -> None:
        """Images [N, 3, H, W] in [-1, 1]; the second set clamped to what can be stored."""
        x, x_hat = x.float(), x_hat.float().clamp(-1, 1)
        self.errors.append((x_hat - x).square().mean((1, 2, 3)).cpu())
        if self.features is not None:
            self.features.to(x.device)
            self.real.append(self.features(x).float().cpu())
            self.fake.append(self.features(x_hat).float().cpu())

    def results(self) -> dict[str, float]:
        """Numbers over all ranks with 95 % intervals (``_low``, ``_high``), and an empty evaluation for the next.

        ``mse`` on the scale [-1, 1], ``psnr`` of that mean, ``images``; with features the Frechet distance under its
        name, ``kernel`` and ``kernel_error`` of the same features, and ``diversity``: mean squared feature distance of
        two of the outputs over that of two real images.
        """
        errors, real, fake = (_of_all(part) for part in (self.errors, self.real, self.fake))
        self.errors, self.real, self.fake = [], [], []
        mse = float(errors.double().mean())
        results = {"images": float(len(errors)), "mse": mse, "psnr": 10 * math.log10(4 / max(mse, 1e-12))}
        results |= _interval("mse", bootstrap(lambda i: float(errors[i].double().mean()), len(errors), draws=1000))
        if self.features is not None and len(errors) > 1:
            results[self.label] = frechet(fake, real)
            results |= _interval(self.label, bootstrap(lambda i: frechet(fake[i], real), len(fake)))
            results["kernel"], results["kernel_error"] = kernel_distance(fake, real)
            results["diversity"] = spread(fake) / max(spread(real), 1e-12)
        return results


def _interval(name: str, ends: tuple[float, float]) -> dict[str, float]:
    return {f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _of_all(parts: list[Tensor]) -> Tensor:
    mine = torch.cat(parts) if parts else torch.empty(0)
    return torch.cat(of_all_ranks(mine))


def pixel_variance(draws: Tensor) -> Tensor:
    """Population variance over draws [K, N, 3, H, W], averaged over pixels: [N], in the square of their unit."""
    return draws.var(0, correction=0).mean((1, 2, 3))
