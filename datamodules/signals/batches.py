"""Records of different length in batches: bucketed by length, padded with zeros, class-balanced on request."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loaders import (
    EpochSampler,
    ResumableDataLoader,
    as_it_is,
    evaluation_loader,
    rank_and_world,
    training_loader,
)
from datamodules.signals.cache import Cache

Batch = dict[str, Any]
BATCHES_PER_BUCKETING = 32
"""So many batches' worth of shuffled records are sorted by length at a time."""


class Records(Dataset):
    """Some records of a cache with their labels; a draw is (epoch, index) or an index.

    Whole batches are made at once (``__getitems__``), without a tensor per record.

    Args:
        cache: all records.
        rows: int64 [R], which records of the cache, in this set's order.
        labels: int64 [R].
        pad_to: every batch is padded to so many samples; None pads to its longest record.
        index: int64 [R], the number of each record in the set that they were taken from; 0, 1, ... if not given.
    """

    def __init__(
        self,
        cache: Cache,
        rows: np.ndarray,
        labels: np.ndarray,
        pad_to: int | None = None,
        index: np.ndarray | None = None,
    ) -> None:
        self.cache, self.rows, self.pad_to = cache, rows, pad_to
        self.index = torch.from_numpy(np.arange(len(rows)) if index is None else index)
        self.labels = torch.from_numpy(labels)
        self.lengths = (cache.offsets[rows + 1] - cache.offsets[rows]).astype(np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: tuple[int, int] | int) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[tuple[int, int] | int]) -> Batch:
        """``signal`` float32 [N, T] in 1/1000 mV, ``length``, ``label`` and ``index`` int64 [N], ``name`` list of N."""
        indices = [draw[1] if isinstance(draw, tuple) else draw for draw in draws]
        lengths = self.lengths[indices]
        width = self.pad_to or int(lengths.max())
        signal = np.zeros((len(indices), width), np.float32)
        for row, record, length in zip(signal, self.rows[indices], lengths, strict=True):
            start = self.cache.offsets[record]
            row[:length] = self.cache.signals[start : start + min(length, width)]
        return {
            "signal": torch.from_numpy(signal),
            "length": torch.from_numpy(lengths.clip(max=width)),
            "label": self.labels[indices],
            "index": self.index[indices],
            "name": [self.cache.names[record] for record in self.rows[indices]],
        }


def repeats(labels: Tensor, share: float = 20.0) -> Tensor:
    """How often each record enters the pool of an epoch: floor(share / percentage of its class) + 1.

    For the whole set N 1, A 3, O 1, ~ 7 times (section 6).
    """
    percentages = 100 * torch.bincount(labels, minlength=1) / len(labels)
    return (share / percentages[labels]).floor().long() + 1


class BucketSampler(EpochSampler):
    """An epoch's draws such that the records of a batch, on all ranks together, are of similar length.

    The pool of an epoch is shuffled, cut to the size of the set, sorted by length ``BATCHES_PER_BUCKETING`` batches
    at a time, and the batches are shuffled again. All of it follows from seed + epoch.

    Args:
        records: the set.
        batch_size: records a batch on each rank.
        seed: of the order.
        rank: of this process,
        world_size: of so many.
        oversample: repeat the records of rare classes in the pool; some others then miss the epoch.
        bucket: whether to sort by length at all.
    """

    def __init__(
        self,
        records: Records,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        oversample: bool = False,
        bucket: bool = True,
    ) -> None:
        super().__init__(records, seed, rank, world_size)
        self.global_batch = batch_size * world_size
        self.lengths = torch.from_numpy(records.lengths)
        self.pool = torch.arange(len(records))
        if oversample:
            self.pool = self.pool.repeat_interleave(repeats(records.labels))
        self.bucket = bucket

    def epoch_order(self) -> Tensor:
        """Indices int64 [total_size] of all ranks; batch b of the epoch is the b-th run of ``global_batch``."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = self.pool[torch.randperm(len(self.pool), generator=generator)]
        order = torch.cat([order, order[: self.total_size]])[: self.total_size]
        full = len(order) // self.global_batch * self.global_batch
        if not self.bucket or not full:
            return order
        chunks = order[:full].split(self.global_batch * BATCHES_PER_BUCKETING)
        by_length = torch.cat([chunk[torch.argsort(self.lengths[chunk], stable=True)] for chunk in chunks])
        batches = by_length.view(-1, self.global_batch)
        batches = batches[torch.randperm(len(batches), generator=generator)]
        return torch.cat([batches.flatten(), order[full:]])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        mine = self.epoch_order()[self.rank :: self.num_replicas].tolist()
        return iter([(self.epoch, index) for index in mine[self.start :]])


def training_batches(
    records: Records,
    batch_size: int,
    seed: int,
    num_workers: int,
    trainer: Trainer | None,
    oversample: bool = False,
    bucket: bool = True,
) -> ResumableDataLoader:
    """Shuffled, bucketed, sharded and resumable; the last short batch is dropped unless it is the only one."""
    sampler = BucketSampler(records, batch_size, seed, *rank_and_world(trainer), oversample=oversample, bucket=bucket)
    return training_loader(records, batch_size, seed, num_workers, trainer, sampler=sampler, collate_fn=as_it_is)


def evaluation_batches(records: Records, batch_size: int, num_workers: int, trainer: Trainer | None) -> DataLoader:
    """Every record exactly once, shortest first."""
    order = np.argsort(records.lengths, kind="stable")
    by_length = Records(records.cache, records.rows[order], records.labels.numpy()[order], records.pad_to, order)
    return evaluation_loader(by_length, batch_size, num_workers, trainer, collate_fn=as_it_is)
