"""Handwritten digits that come with scikit-learn: small enough for a test, no files needed."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from datamodules.arrays.point_sets import GatheredPoints


class Digits(GatheredPoints):
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: points [B, 64] in [0, 1]."""

    def __init__(self, batch_size: int = 4096) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()

    def load(self) -> tuple[Tensor, Tensor]:
        digits = load_digits()
        return torch.from_numpy(digits.data / 16), torch.from_numpy(digits.target)
