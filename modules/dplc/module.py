"""Stage 1 of DPLC: a generator whose samples follow the training images.

WGAN-GP        adversary, no F     -f(G(z)), z from the prior
WAE            F, no adversary     rmse(x, G(F(x))) + mmd_weight MMD(F(x))
Wasserstein++  F and adversary     both, the adversarial term at G(F(x)) and without a gradient to F
"""

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from modules.components.features import Features
from modules.components.mean import Mean
from modules.components.options import at_least
from modules.dplc.adversary import Adversary
from modules.dplc.evaluation import Evaluation
from modules.dplc.losses import mmd, rmse, scaled, to_bytes
from modules.dplc.nets import GenerativeNet
from modules.dplc.phases import TwoPhases, training_images
from modules.dplc.statistics import reestimate

Batch = dict[str, Any]
STATISTICS_BATCHES = 32


class GenerativeModel(TwoPhases):
    """Train G, and F if the network has it, against the adversary if there is one.

    ``val/mse``, ``test/mse``: squared error in [-1, 1] of G(F(x)), mean over images; without F, of a sample.
    ``test/sample_*`` are about samples: distances of distributions, and their diversity.

    Args:
        network: G, and F or not.
        mmd_weight: lambda of the MMD between F(x) and the prior.
        features: network for distances of distributions in ``test``.
        optimizer, lr_scheduler, adversary, critic_optimizer, critic_scheduler: as in ``TwoPhases``.

    Raises:
        ValueError: for neither F nor an adversary.
    """

    network: GenerativeNet

    def __init__(
        self,
        network: GenerativeNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        adversary: Adversary | None = None,
        critic_optimizer: OptimizerCallable = torch.optim.Adam,
        critic_scheduler: LRSchedulerCallable | None = None,
        mmd_weight: float = 100.0,
        features: Features | None = None,
    ) -> None:
        if adversary is None and network.encoder is None:
            raise ValueError("nothing would train the generator: give an adversary, or the network an encoder")
        super().__init__(network, optimizer, lr_scheduler, adversary, critic_optimizer, critic_scheduler)
        at_least(0, mmd_weight=mmd_weight)
        self.save_hyperparameters()
        self.mmd_weight = mmd_weight
        self.val_mse = Mean()
        self.evaluation, self.samples = Evaluation(features), Evaluation(features)

    def fakes(self, x: Tensor) -> Tensor:
        """Samples of the prior; with F, of random points between F(x) and the prior, as the authors' intencprior."""
        z = self.network.generator.draw_latents(len(x))
        if self.network.encoder is not None:
            alpha = torch.rand(len(x), 1, 1, 1, device=x.device)
            z = alpha * self.network.encoder(x) + (1 - alpha) * z
        return self.network.generator(z)

    def generator_loss(self, x: Tensor) -> Tensor:
        generator = self.network.generator
        z = prior = generator.draw_latents(len(x))
        loss = x.new_zeros(())
        if self.network.encoder is not None:
            q = self.network.encoder(x)
            error, discrepancy = rmse(generator(q), x), mmd(q.flatten(1), prior.flatten(1))
            loss = error + self.mmd_weight * discrepancy
            self.log_dict({"train/rmse": error.detach(), "train/mmd": discrepancy.detach()}, prog_bar=True)
            z = q.detach()
        if self.adversary is not None:
            adversarial = self.adversary.generator_loss(generator(z))
            loss = loss + adversarial
            self.log("train/adversarial", adversarial.detach())
        return loss

    def on_validation_start(self) -> None:
        """Measure the batch norms that validation, the checkpoint and stage 2 take: G's under the prior."""
        if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
            return
        generator, encoder = self.network.generator, self.network.encoder
        seeded = torch.Generator().manual_seed(0)
        with self.trainer.precision_plugin.forward_context():
            reestimate(generator, generator, (generator.draw_latents(64, seeded) for _ in range(STATISTICS_BATCHES)))
            if encoder is not None:
                reestimate(encoder, encoder, training_images(self, STATISTICS_BATCHES))

    def reconstruct(self, x: Tensor, seed: int = 0) -> Tensor:
        """G(F(x)); random images where there is no F."""
        generator = self.network.generator
        if self.network.encoder is None:
            return generator(generator.draw_latents(len(x), torch.Generator().manual_seed(seed)))
        return generator(self.network.encoder(x))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        x = scaled(batch["image"])
        self.val_mse.update((self.reconstruct(x, batch_index).float() - x).square().mean((1, 2, 3)))
        self.log("val/mse", self.val_mse, prog_bar=True)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        x = scaled(batch["image"])
        if self.network.encoder is not None:
            self.evaluation.add(x, self.reconstruct(x))
        seed = batch_index * self.trainer.world_size + self.trainer.global_rank
        generator = self.network.generator
        self.samples.add(x, generator(generator.draw_latents(len(x), torch.Generator().manual_seed(seed))))

    def on_test_epoch_end(self) -> None:
        results = {f"test/sample_{name}": value for name, value in self.samples.results().items()}
        if self.network.encoder is not None:
            results |= {f"test/{name}": value for name, value in self.evaluation.results().items()}
        self.log_dict(results)

    def draws(self, image: Tensor, count: int) -> Tensor:
        """For reports, uint8 [count, N, 3, 64, 64] of images uint8 [N, 3, 64, 64]: G(F(x)) and random samples."""
        x = scaled(image.to(self.device))
        pictures = [self.reconstruct(x), *(self.sample(len(x), seed) for seed in range(1, count))]
        return torch.stack([to_bytes(picture) for picture in pictures])

    def sample(self, count: int, seed: int = 0) -> Tensor:
        """Random images [count, 3, 64, 64] in [-1, 1]."""
        generator = self.network.generator
        return generator(generator.draw_latents(count, torch.Generator().manual_seed(seed)))
