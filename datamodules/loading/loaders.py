"""What all datamodules share: the data root, samplers that shard and resume, and the loaders made of them.

The order of a training epoch and everything random in a sample follow from (seed, epoch, index) alone, never from
the global generators, so they do not depend on the number of workers or on what ran before. Both samplers are
``DistributedSampler`` subclasses that know their rank, so Lightning leaves them as they are, whatever
``use_distributed_sampler`` says.
"""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from datamodules.loading.roots import chosen_root, is_url

log = logging.getLogger(__name__)


def is_rank_zero() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def warn(message: str) -> None:
    """Log a warning, on rank zero only."""
    if is_rank_zero():
        log.warning(message)


def data_root(root: str | None = None) -> Path:
    """``root`` if given, else the environment variable PARSIMONY_DATA, else ``data``.

    Raises:
        ValueError: for a URL, which only data sets of packed images take (``images.remote.image_root``).
    """
    text = chosen_root(root)
    if is_url(text):
        raise ValueError(f"the root {text} is a URL, from which packed images are read; this data set needs a folder")
    return Path(text)


class EpochSampler(DistributedSampler):
    """Draws (epoch, index): a permutation seeded by seed + epoch, from which each rank takes every world-th element.

    Ranks get equally many draws; if the set does not divide, a few indices occur twice in an epoch, which training
    does not mind. ``set_epoch`` is called by Lightning before every epoch. ``start`` skips the first draws of this
    rank; the length stays that of the whole epoch.
    """

    def __init__(self, dataset: Dataset, seed: int = 0, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=True, seed=seed)
        self.start = 0

    def order(self) -> np.ndarray:
        """The indices of this rank in this epoch, int64 [len(self)]."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        whole = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        return self.padded(whole.numpy())[self.rank :: self.num_replicas]

    def padded(self, order: np.ndarray) -> np.ndarray:
        """With the first indices once more at the end, so that the ranks share it evenly."""
        return np.resize(order, self.total_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """One draw at a time: a list of millions would take a hundred bytes each."""
        epoch = self.epoch  # Lightning sets the next one while draws of this one are left
        return ((epoch, int(index)) for index in self.order()[self.start :])


class EvaluationSampler(DistributedSampler):
    """Every index once: rank r takes r, r + world, ... in order. Ranks may differ by one sample.

    Nothing is padded, since a duplicate would count twice in a metric. Metrics reduced at the end of the epoch
    (``sync_dist``, torchmetrics) are indifferent to the unequal lengths.

    Raises:
        ValueError: if there are fewer samples than ranks; a rank without any batch would make the others wait.
    """

    def __init__(self, dataset: Dataset, rank: int = 0, world_size: int = 1) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=False)
        self.indices = range(rank, len(dataset), world_size)  # type: ignore[arg-type]
        if len(dataset) < world_size:  # type: ignore[arg-type]
            raise ValueError(
                f"{len(dataset)} evaluation samples cannot be shared by {world_size} processes; "  # type: ignore[arg-type]
                "use fewer devices or more samples"
            )

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class ResumableDataLoader(DataLoader):
    """A loader that continues in the middle of an epoch: ``state_dict`` holds the epoch and the batches handed out.

    Lightning stores and restores that state with a checkpoint. The skipped batches are not read again: the sampler
    starts behind them. Iteration begins at the first ``next``, not at ``iter``, since Lightning calls ``iter``, which
    would start the workers, before it sets the epoch. A state of another epoch than the one that runs is dropped.

    With a ``trainer``, the epoch is its ``current_epoch``: after a resume from the end of an epoch, Lightning 2.6
    gives ``set_epoch`` one too many, and without a validation loop asks the finished epoch for one batch more.
    """

    trainer: Trainer | None = None

    _epoch = 0
    _batches = 0
    _resuming = False

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "batches": self._batches}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._epoch, self._batches = state_dict["epoch"], state_dict["batches"]
        self._resuming = True

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.trainer is not None and isinstance(self.sampler, EpochSampler):
            self.sampler.set_epoch(self.trainer.current_epoch)
        epoch = getattr(self.sampler, "epoch", 0)
        if not self._resuming or self._epoch != epoch:
            self._batches = 0
        self._epoch, self._resuming = epoch, False
        if self.trainer is not None and self._batches >= self.trainer.num_training_batches:
            return
        if isinstance(self.sampler, EpochSampler):
            self.sampler.start = self._batches * (self.batch_size or 1)
        for batch in super().__iter__():
            self._batches += 1
            yield batch


def rank_and_world(trainer: Trainer | None) -> tuple[int, int]:
    """Global rank and world size of the trainer that a datamodule is attached to; (0, 1) without one."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def training_device(trainer: Trainer | None) -> torch.device:
    """Where the trainer's model lives; without a trainer, the first GPU if there is one."""
    if trainer is not None:
        return trainer.strategy.root_device
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def as_it_is(batch: Any) -> Any:
    """Collate function for a dataset whose ``__getitems__`` returns a whole batch."""
    return batch


def training_loader(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    num_workers: int,
    trainer: Trainer | None,
    pin_memory: bool = True,
    sampler: EpochSampler | None = None,
    collate_fn: Callable[[Any], Any] | None = None,
) -> ResumableDataLoader:
    """Shuffled, sharded and resumable. The last short batch is dropped (unless it is the only one), so that all
    batches have one shape; every epoch drops other samples. A ``sampler`` brings its own order and seed."""
    if sampler is None:
        sampler = EpochSampler(dataset, seed, *rank_and_world(trainer))
    loader = ResumableDataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=len(sampler) >= batch_size,
        collate_fn=collate_fn,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory and torch.cuda.is_available(),
        # Otherwise every epoch start would draw from the global generator.
        generator=torch.Generator(),
    )
    loader.trainer = trainer
    return loader


def evaluation_loader(
    dataset: Dataset,
    batch_size: int,
    num_workers: int,
    trainer: Trainer | None,
    pin_memory: bool = True,
    sampler: EvaluationSampler | None = None,
    collate_fn: Callable[[Any], Any] | None = None,
) -> DataLoader:
    """In order, sharded without padding, every sample exactly once; a ``sampler`` brings its own shards."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EvaluationSampler(dataset, *rank_and_world(trainer)) if sampler is None else sampler,
        collate_fn=collate_fn,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory and torch.cuda.is_available(),
        generator=torch.Generator(),
    )
