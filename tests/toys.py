"""A model and data that train in no time and make a resume hard: dropout, a shuffled order, a schedule."""

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler

from datamodules.loading.loaders import EvaluationSampler


class Network(nn.Module):
    def __init__(self, width: int = 8, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Dropout(dropout), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Toy(LightningModule):
    """Linear regression. ``signal_at``: (step, signal number) that the module sends its own process, once."""

    def __init__(
        self,
        network: Network,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        signal_at: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network, self.optimizer, self.lr_scheduler = network, optimizer, lr_scheduler
        self.signal_at = signal_at

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        return (self.network(batch["points"]).squeeze(1) - batch["label"]).square().mean()

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        if self.signal_at and self.global_step == self.signal_at[0]:
            number, self.signal_at = self.signal_at[1], None
            os.kill(os.getpid(), signal.Signals(number))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.log("val/loss", self.loss(batch), prog_bar=True, batch_size=len(batch["label"]), sync_dist=True)

    def test_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        self.log("test/loss", self.loss(batch), batch_size=len(batch["label"]), sync_dist=True)

    def predict_step(self, batch: dict[str, Tensor], batch_index: int) -> Tensor:
        return self.network(batch["points"]).squeeze(1)

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}


class EndsWandb(Callback):
    """Kills wandb's own process before the second batch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == 1:
            subprocess.run(["pkill", "-KILL", "-P", str(os.getpid()), "wandb-core"], check=True)


class Mute(LightningModule):
    """Has nothing to predict."""

    def __init__(self, network: Network, optimizer: OptimizerCallable = torch.optim.Adam, **kwargs: Any) -> None:
        super().__init__()


class EpochSampler(DistributedSampler):
    """The order of an epoch follows from seed and epoch alone; rank r of w takes every w-th sample from r."""

    def __init__(self, size: int, trainer: Trainer | None) -> None:
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        super().__init__(range(size), num_replicas=world, rank=rank, shuffle=True)  # type: ignore[arg-type]


class ResumableLoader(DataLoader):
    """Counts the batches of the epoch and skips as many after a restart."""

    served, skip = 0, 0

    def __iter__(self) -> Iterator[Any]:
        skip, self.skip = self.skip, 0
        self.served = skip
        for index, batch in enumerate(super().__iter__()):
            if index >= skip:
                self.served += 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        return {"served": self.served % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skip = state["served"]


class Points(LightningDataModule):
    """64 training points by default; ``root`` only exists to be missing."""

    def __init__(self, num_points: int = 64, batch_size: int = 16, root: str | None = None) -> None:
        super().__init__()
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.num_points, self.batch_size, self.root = num_points, batch_size, root

    def setup(self, stage: str) -> None:
        if self.root and not os.path.isdir(self.root):
            raise FileNotFoundError(f"no points in {self.root}: make the folder first")
        x = torch.randn(self.num_points + 32, 4, generator=torch.Generator().manual_seed(1))
        rows = [{"points": row, "label": row.sum()} for row in x]
        self.train, self.val = rows[: self.num_points], rows[self.num_points :]

    def train_dataloader(self) -> ResumableLoader:
        sampler = EpochSampler(self.num_points, self.trainer)
        return ResumableLoader(self.train, batch_size=self.batch_size, sampler=sampler)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=8)  # type: ignore[arg-type]

    test_dataloader = val_dataloader

    def predict_dataloader(self) -> DataLoader:
        rows = [row | {"index": index} for index, row in enumerate(self.val)]
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        sampler = EvaluationSampler(rows, rank, world)  # type: ignore[arg-type]
        return DataLoader(rows, batch_size=8, sampler=sampler)  # type: ignore[arg-type]
