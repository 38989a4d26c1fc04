"""Modules for test_fake_cuda.py: one that optimises by hand and is right, and one for each thing that is wrong."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

Batch = dict[str, Tensor]


def batch() -> Batch:
    return {"points": torch.ones(2, 3)}


class Adversarial(LightningModule):
    """A critic with a gradient penalty and a generator, each with its optimizer and a schedule, taking turns."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.Linear(4, 3))
        self.critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def penalty(self, real: Tensor, made: Tensor) -> Tensor:
        share = torch.rand(len(real), 1, device=self.device)
        between = (share * real + (1 - share) * made).requires_grad_()
        [slope] = torch.autograd.grad(self.critic(between).sum(), between, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    def training_step(self, batch: Batch, batch_index: int) -> None:
        real = batch["points"]
        for_generator, for_critic = self.optimizers()  # type: ignore[misc]
        with self.toggled_optimizer(for_critic):
            made = self.generator(real).detach()
            loss = self.critic(made).mean() - self.critic(real).mean() + 10 * self.penalty(real, made)
            for_critic.zero_grad()
            self.manual_backward(loss)
            for_critic.step()
        with self.toggled_optimizer(for_generator):
            for_generator.zero_grad()
            self.manual_backward(-self.critic(self.generator(real)).mean())
            for_generator.step()
        missing = [name for name, p in self.named_parameters() if p.grad is None and name != "critic.2.bias"]
        assert not missing, f"without a gradient: {missing}"
        self.clip_gradients(for_generator, gradient_clip_val=1.0)
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self.log("train/loss", loss)

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.log("val/score", self.critic(batch["points"]).mean())

    def configure_optimizers(self) -> Any:
        optimizers = [torch.optim.Adam(part.parameters()) for part in (self.generator, self.critic)]
        return optimizers, [torch.optim.lr_scheduler.StepLR(optimizers[0], 5)]


class Plain(LightningModule):
    """Right, and what the others change."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.weights = torch.ones(2)  # no buffer

    def values(self, batch: Batch) -> Tensor:
        return self.layer(batch["points"])

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.values(batch).square().mean()

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.values(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class ReadsAValue(Plain):
    def values(self, batch: Batch) -> Tensor:
        values = super().values(batch)
        return values / float(values.detach().amax())


class AsksATensor(Plain):
    def values(self, batch: Batch) -> Tensor:
        values = super().values(batch)
        return -values if values.mean() > 0 else values


class MasksByBool(Plain):
    def values(self, batch: Batch) -> Tensor:
        values = super().values(batch)
        return values[values > 0]


class LeavesATensorBehind(Plain):
    def values(self, batch: Batch) -> Tensor:
        return super().values(batch) * self.weights


class MovesWeights(Plain):
    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return (self.values(batch) * self.weights.to(self.device)).mean()


class IndexesFromTheHost(Plain):
    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.values(batch)[torch.tensor([0, 1])].mean()


class FetchesTheLoss(Plain):
    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.values(batch).mean()
        self.log("train/loss", loss.detach().cpu())
        return loss


class FailsBackwards(Plain):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            return gradient * torch.ones(2, 2)

    def values(self, batch: Batch) -> Tensor:
        return self.Function.apply(super().values(batch))


TOYS = (
    Adversarial,
    Plain,
    ReadsAValue,
    AsksATensor,
    MasksByBool,
    LeavesATensorBehind,
    MovesWeights,
    IndexesFromTheHost,
    FetchesTheLoss,
    FailsBackwards,
)
