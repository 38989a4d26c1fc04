"""Pairs of random matrices whose product is to be learned."""

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loaders import ResumableDataLoader, as_it_is, evaluation_loader, training_loader


class MatrixPairs(Dataset):
    """``left`` [N, n, m] and ``right`` [N, m, p]; whole batches are made at once."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, draw: tuple[int, int] | int) -> dict[str, Tensor]:
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[tuple[int, int] | int]) -> dict[str, Tensor]:
        rows = torch.tensor([draw[1] if isinstance(draw, tuple) else draw for draw in draws])
        return {"left": self.left[rows], "right": self.right[rows]}


class MatrixProducts(LightningDataModule):
    """Training: entries from U(-1, 1), double precision. Validation: integers from -9 to 9, of the same type.

    Batches: ``left`` [B, n, m], ``right`` [B, m, p].

    Args:
        n, m, p: sides.
        pairs: for training, drawn once.
        batch_size: of them.
        val_pairs: for validation, in one batch.
        seed: of entries and order.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(
        self,
        n: int = 2,
        m: int = 2,
        p: int = 2,
        pairs: int = 100_000,
        batch_size: int = 4,
        val_pairs: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        sizes = {"n": n, "m": m, "p": p, "pairs": pairs, "batch_size": batch_size, "val_pairs": val_pairs}
        if wrong := {name: size for name, size in sizes.items() if size < 1}:
            raise ValueError(f"sizes must be at least 1, got {wrong}")
        self.batch_size, self.val_pairs, self.seed = batch_size, val_pairs, seed
        random = np.random.default_rng(seed)
        real = [random.uniform(-1, 1, (pairs, *shape)) for shape in ((n, m), (m, p))]
        whole = [random.integers(-9, 10, (val_pairs, *shape)).astype(float) for shape in ((n, m), (m, p))]
        self.train = MatrixPairs(*map(torch.from_numpy, real))
        self.val = MatrixPairs(*map(torch.from_numpy, whole))

    def train_dataloader(self) -> ResumableDataLoader:
        return training_loader(self.train, self.batch_size, self.seed, 0, self.trainer, collate_fn=as_it_is)

    def val_dataloader(self) -> DataLoader:
        return evaluation_loader(self.val, self.val_pairs, 0, self.trainer, collate_fn=as_it_is)
