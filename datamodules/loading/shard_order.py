"""An order of training that reads few shards at a time, for sets on a network or on disks that seek slowly."""

import numpy as np
from torch.utils.data import Dataset

from datamodules.loading.loaders import EpochSampler


class ShardSampler(EpochSampler):
    """Draws (epoch, index) as ``EpochSampler`` does, in another order: the shards are permuted, ``at_once``
    neighbours of that order are mixed with each other, and each rank takes a stretch of the whole.

    A rank so reads its share of the shards and no other rank reads them, but for those at the ends of its stretch.
    The order follows from (seed, epoch) alone. Batches are less mixed than those of ``EpochSampler``: pack the set in
    a random order (``--shuffle``), or a class lies in a few shards.

    Args:
        dataset: of N images and N * k samples, where sample i is of image i % N.
        shards: int [N], the shard of each image.
        at_once: shards that are mixed.
    """

    def __init__(
        self, dataset: Dataset, shards: np.ndarray, at_once: int, seed: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__(dataset, seed, rank, world_size)
        if at_once < 1:
            raise ValueError(f"shards_at_once must be at least 1, got {at_once}")
        self.shards, self.at_once = shards, at_once

    def order(self) -> np.ndarray:
        random = np.random.default_rng((self.seed, self.epoch))
        numbers, shard_of = np.unique(self.shards, return_inverse=True)
        window_of = random.permutation(len(numbers))[shard_of] // self.at_once
        windows = np.tile(window_of, len(self.dataset) // len(self.shards))  # type: ignore[arg-type]
        mixed = random.permutation(len(windows))
        whole = self.padded(mixed[np.argsort(windows[mixed], kind="stable")])
        return whole[self.rank * self.num_samples : (self.rank + 1) * self.num_samples]
