"""Generated non-negative matrices and tensors of known rank.

Batches: ``points`` float64 [B, ...], the slices of the array along its first axis, ``label`` and ``index`` as in
point_sets.py.
"""

import numpy as np
import torch
from torch import Tensor

from datamodules.arrays.point_sets import GatheredPoints


class LowRankTensor(GatheredPoints):
    """A sum of ``rank`` outer products of vectors from U(0, 1), of which a share is zero, plus noise.

    Args:
        shape: sizes of two or more modes.
        rank: number of terms.
        zeros: share of the factors' entries that is zero.
        noise: |half-normal noise|_F as a share of the sum's norm; the array stays non-negative.
        seed: of everything.
    """

    def __init__(
        self,
        shape: list[int] | None = None,
        rank: int = 8,
        zeros: float = 0.5,
        noise: float = 0.01,
        seed: int = 0,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        self.shape = [60, 50, 24] if shape is None else shape
        if len(self.shape) < 2 or min(*self.shape, rank) < 1 or not 0 <= zeros < 1 or not 0 <= noise < np.inf:
            raise ValueError(f"two or more sizes, rank >= 1, 0 <= zeros < 1, noise >= 0: {shape, rank, zeros, noise}")
        self.rank, self.zeros, self.noise, self.seed = rank, zeros, noise, seed

    def load(self) -> tuple[Tensor, None]:
        random = np.random.default_rng(self.seed)
        whole = np.zeros(self.shape)
        for _ in range(self.rank):
            term = np.ones(())
            for size in self.shape:
                term = np.multiply.outer(term, random.random(size) * (random.random(size) >= self.zeros))
            whole += term
        noise = np.abs(random.standard_normal(whole.shape))
        whole += noise * (self.noise * np.linalg.norm(whole) / np.linalg.norm(noise))
        return torch.from_numpy(whole), None
