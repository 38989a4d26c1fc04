"""The training step of both stages: a critic phase, if there is a critic, and a generator phase."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from modules.components.checkpoint_file import entry
from modules.dplc.adversary import Adversary
from modules.dplc.losses import scaled

Batch = dict[str, Any]


class TwoPhases(LightningModule):
    """Manual optimization: every batch makes a critic step; after ``adversary.steps`` of them, its last batch also
    makes a generator step. Without an adversary every batch makes a generator step.

    The batches are counted here, over epochs and restarts: ``trainer.global_step`` counts steps of either optimizer.
    A subclass gives ``fakes`` and ``generator_loss``.

    Args:
        network: what the generator phase trains, as far as it requires gradients.
        optimizer: called with those parameters.
        lr_scheduler: called with that optimizer; stepped after every epoch.
        adversary: the critic, or None.
        critic_optimizer, critic_scheduler: the same for the critic.
    """

    instead_of_predict = "`python codec.py sample --checkpoint <last.ckpt> --output <folder>` draws images"

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        adversary: Adversary | None,
        critic_optimizer: OptimizerCallable,
        critic_scheduler: LRSchedulerCallable | None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.adversary = adversary
        self.critic_optimizer, self.critic_scheduler = critic_optimizer, critic_scheduler
        self.batches = 0

    def fakes(self, x: Tensor) -> Tensor:
        """Images for the critic to tell from x [N, 3, 64, 64]; called without gradients."""
        raise NotImplementedError

    def generator_loss(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x = scaled(batch["image"])
        self.batches += 1
        loss = x.new_zeros(())
        if self.adversary is not None:
            loss = loss + self.critic_phase(x, self.adversary)
        if self.adversary is None or self.batches % self.adversary.steps == 0:
            loss = loss + self.generator_phase(x)
        return loss  # without a graph: callbacks look whether it is finite

    def critic_phase(self, x: Tensor, adversary: Adversary) -> Tensor:
        """Updates the critic and nothing else; the gradients of a batch's chunks are summed."""
        with torch.no_grad():
            fake = self.fakes(x)
        alpha = torch.rand(len(x), 1, 1, 1, device=x.device)
        optimizer = self._optimizers()[1]
        loss, wasserstein, penalty = x.new_zeros(3)
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            for part in torch.arange(len(x), device=x.device).chunk(adversary.chunks):
                distance, excess = adversary.critic_terms(x[part], fake[part], alpha[part])
                share = len(part) / len(x)
                part_loss = share * (adversary.penalty_weight * excess - distance)
                self.manual_backward(part_loss)
                loss = loss + part_loss.detach()
                wasserstein, penalty = wasserstein + share * distance.detach(), penalty + share * excess.detach()
            optimizer.step()
        self.log("train/wasserstein", wasserstein, prog_bar=True)
        self.log("train/penalty", penalty)
        return loss

    def generator_phase(self, x: Tensor) -> Tensor:
        """Updates what the network trains; gradients pass through the critic and through a frozen generator."""
        optimizer = self._optimizers()[0]
        with self.toggled_optimizer(optimizer):
            optimizer.zero_grad()
            loss = self.generator_loss(x)
            self.manual_backward(loss)
            optimizer.step()
        return loss.detach()

    def _optimizers(self) -> list[Any]:
        optimizers = self.optimizers()
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def on_train_epoch_end(self) -> None:
        schedulers: Any = self.lr_schedulers() or []
        for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
            scheduler.step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches"] = self.batches

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches = entry(checkpoint, "batches", self)

    def configure_optimizers(self) -> Any:
        trained = [(self.network, self.optimizer, self.lr_scheduler)]
        if self.adversary is not None:
            trained.append((self.adversary, self.critic_optimizer, self.critic_scheduler))
        optimizers, schedulers = [], []
        for network, optimizer, scheduler in trained:
            optimizers.append(optimizer([p for p in network.parameters() if p.requires_grad]))
            if scheduler is not None:
                schedulers.append({"scheduler": scheduler(optimizers[-1]), "interval": "epoch"})
        return optimizers, schedulers


def training_images(module: LightningModule, count: int) -> Iterator[Tensor]:
    """The first ``count`` batches of this epoch's training images, in [-1, 1].

    Raises:
        ValueError: if ``fit`` was given loaders instead of a datamodule, whose order must not be disturbed.
    """
    if module.trainer.datamodule is None:  # type: ignore[attr-defined]
        raise ValueError("batch norms are measured on training images: give fit a datamodule, not loaders")
    for batch in islice(module.trainer.datamodule.train_dataloader(), count):  # type: ignore[attr-defined]
        yield scaled(batch["image"].to(module.device))
