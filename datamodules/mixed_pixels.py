"""Hyperspectral images: the paper's Urban scene from its .mat file, and generated mixtures of known abundances.

Batches: ``points`` float64 [B, bands], non-negative; ``index``, ``label`` as in point_sets.py; ``abundances`` float64
[B, endmembers], which sum to 1, for generated images. Urban: array_file.ArrayFile.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.arrays.point_sets import GatheredPoints, Points
from modules.components.options import above, at_least


def draw_spectra(number: int, bands: int, random: np.random.Generator) -> np.ndarray:
    """Smooth reflectances [number, bands] in (0, 1): a level, a slope and three absorption lines each."""
    band = np.linspace(0, 1, bands)
    centers, depths = random.random((number, 3, 1)), 0.6 * random.random((number, 3, 1))
    widths = 0.03 + 0.12 * random.random((number, 3, 1))
    level, slope = random.uniform(0.3, 0.8, (number, 1)), random.uniform(-0.2, 0.2, (number, 1))
    lines = 1 - depths * np.exp(-0.5 * ((band - centers) / widths) ** 2)
    return (level + slope * (band - 0.5)) * lines.prod(1)


class PixelSet(Points):
    def __init__(self, points: Tensor, abundances: Tensor) -> None:
        super().__init__(points)
        self.abundances = abundances

    def __getitem__(self, index: int) -> dict[str, Any]:
        return super().__getitem__(index) | {"abundances": self.abundances[index]}


class MixedPixels(GatheredPoints):
    """Linear mixtures of random smooth spectra. One pixel of each endmember is pure, as extraction presumes.

    Args:
        num_endmembers, bands, num_pixels: sizes; the paper's Urban has 6, 162 and 5,929.
        concentration: of the Dirichlet distribution of the abundances; below 1 pixels are purer.
        noise_db: ratio of the signal's to the Gaussian noise's energy in dB; negative numbers that it makes become 0.
        seed: of everything.
    """

    def __init__(
        self,
        num_endmembers: int = 6,
        bands: int = 162,
        num_pixels: int = 5929,
        concentration: float = 0.5,
        noise_db: float = 30.0,
        seed: int = 0,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        at_least(1, num_endmembers=num_endmembers, bands=bands)
        at_least(num_endmembers, num_pixels=num_pixels)
        above(0, concentration=concentration)
        if np.isnan(noise_db):
            raise ValueError("noise_db must be a number of dB, not NaN")
        self.sizes, self.concentration = (num_endmembers, bands, num_pixels), concentration
        self.noise_db, self.seed = noise_db, seed

    def setup(self, stage: str) -> None:
        if self.dataset is None:
            self.dataset = PixelSet(*self.load())

    def load(self) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Points [N, bands] and abundances [N, endmembers]."""
        number, bands, num_pixels = self.sizes
        random = np.random.default_rng(self.seed)
        abundances = random.dirichlet(np.full(number, self.concentration), num_pixels)
        abundances[:number] = np.eye(number)
        pixels = abundances @ draw_spectra(number, bands, random)
        noise = random.standard_normal(pixels.shape)
        noise *= np.linalg.norm(pixels) / np.linalg.norm(noise) * 10 ** (-self.noise_db / 20)
        return torch.from_numpy((pixels + noise).clip(0)), torch.from_numpy(abundances)
