"""Sets of points and of draws, small enough for memory, and the loader that hands out each item once, in order.

Batches of points are dicts: ``points`` float64 [B, D], ``index`` int64 [B] (the row in the set), and ``label`` int64
[B] where known. Items of a study are one whole draw each: ``points`` [N, D], ``label`` [N], ``index`` (the draw) and
``setting``, what distinguishes it, as a dict of numbers.
"""

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loaders import EpochSampler, ResumableDataLoader, evaluation_loader, rank_and_world

NO_LABEL = -1


class InOrder(EpochSampler):
    """Every index in order: rank r of w takes r, r + w, ...; the last ones wrap around, so that all ranks take equally
    many. Whoever gathers the items tells the repeated ones by their ``index``. ``start`` skips, as in EpochSampler."""

    def __iter__(self) -> Iterator[Any]:
        size = len(self.dataset)  # type: ignore[arg-type]
        order = [(self.rank + step * self.num_replicas) % size for step in range(len(self))]
        return iter(order[self.start :])


def gathering_loader(dataset: Dataset, batch_size: int | None, trainer: Trainer | None) -> ResumableDataLoader:
    """All items, sharded and resumable; ``batch_size`` None hands out items instead of batches."""
    sampler = InOrder(dataset, 0, *rank_and_world(trainer))
    loader = ResumableDataLoader(dataset, batch_size=batch_size, sampler=sampler, generator=torch.Generator())
    loader.trainer = trainer
    return loader


class Points(Dataset):
    """``points`` [N, D] and ``label`` [N], NO_LABEL where unknown."""

    def __init__(self, points: Tensor, label: Tensor | None = None) -> None:
        self.points = points.double()
        self.label = torch.full((len(points),), NO_LABEL) if label is None else label.long()

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"points": self.points[index], "label": self.label[index], "index": index}


class GatheredPoints(LightningDataModule):
    """What sets of points share: a subclass gives ``load()``, the points and labels (or None) of the whole set.

    ``fit`` goes through the set once an epoch, in order; ``predict`` and ``test`` hand out the same points.
    """

    def __init__(self, batch_size: int = 4096) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.batch_size = batch_size
        self.dataset: Points | None = None

    def load(self) -> tuple[Tensor, Tensor | None]:
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        if self.dataset is None:
            self.dataset = Points(*self.load())

    def train_dataloader(self) -> DataLoader:
        assert self.dataset is not None, "setup comes first"
        return gathering_loader(self.dataset, self.batch_size, self.trainer)

    def predict_dataloader(self) -> DataLoader:
        assert self.dataset is not None, "setup comes first"
        return evaluation_loader(self.dataset, self.batch_size, 0, self.trainer)

    test_dataloader = predict_dataloader


def unit_norm(points: Tensor) -> Tensor:
    """Rows scaled to Euclidean norm 1; zero rows stay zero."""
    norms = points.norm(dim=1, keepdim=True)
    return points / torch.where(norms > 0, norms, 1.0)
