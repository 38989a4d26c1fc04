"""Stage 2 of DPLC, a codec of one rate around a frozen generator; and the baselines, which train their own.

DPLC   generator_weights     rmse(x, G(B(E(x), N))) + lambda(R) MMD(B(E(x), N)); E and B are trained
CAE    neither, no noise     rmse(x, G(B(E(x))));                                E, B and G are trained
GC     adversary             rmse(x, G(B(E(x), N))) - weight f(G(B(E(x), N)));   E, B and G against f
"""

from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.features import Features
from modules.components.gathering import of_all_ranks
from modules.components.mean import Mean
from modules.components.options import at_least
from modules.dplc.adversary import Adversary
from modules.dplc.evaluation import Evaluation, pixel_variance
from modules.dplc.losses import mmd, rate_weight, rmse, scaled, to_bytes
from modules.dplc.module import STATISTICS_BATCHES
from modules.dplc.nets import GRID, SIZE, Coded, CompressionNet, Generator
from modules.dplc.phases import TwoPhases, training_images
from modules.dplc.statistics import follow_batches, reestimate

Batch = dict[str, Any]
DRAWS_AT_ONCE = 512
"""Images that the pixel variance decodes together."""


class Compressor(TwoPhases):
    """Train E and B, for one rate of 16 c bits an image.

    Errors and variances are on the scale [-1, 1]. ``val/mse``, ``test/mse``: means over images, one draw of the noise
    each. ``test/pixel_variance``: over draws of the noise for one image, mean over pixels and images.
    ``test/same_code``, ``test/same_bits``: share of images, and of bits, that come out of the encoder again when a
    reconstruction of 8 bits is compressed once more. The others are those of ``Evaluation``.

    Args:
        network: E, B and G; its ``channels`` are the rate.
        generator_weights: checkpoint of stage 1 whose G is taken and stays as it is. Without, G is trained too.
        mmd_weight: lambda(R) of the MMD between B's output and the prior; null for the rule on CelebA, see
            ``losses.rate_weight``, and 0 for the baselines.
        statistics: ``running``: the frozen G and all evaluation use statistics that were measured, so one image can
            be decoded alone. ``batch``: all networks use those of the batch at hand, always: the published numbers.
        features: network for distances of distributions in ``test``.
        variance_images: of the test images, so many are decoded ``variance_draws`` times for the pixel variance.
        variance_draws: draws of the noise.
        optimizer, lr_scheduler, adversary, critic_optimizer, critic_scheduler: as in ``TwoPhases``.

    Raises:
        ValueError: for both a generator from stage 1 and an adversary.
    """

    network: CompressionNet

    def __init__(
        self,
        network: CompressionNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        generator_weights: str | None = None,
        mmd_weight: float | None = None,
        adversary: Adversary | None = None,
        critic_optimizer: OptimizerCallable = torch.optim.Adam,
        critic_scheduler: LRSchedulerCallable | None = None,
        statistics: Literal["running", "batch"] = "running",
        features: Features | None = None,
        variance_images: int = 256,
        variance_draws: int = 100,
    ) -> None:
        if adversary is not None and generator_weights is not None:
            raise ValueError("a generator of stage 1 stays as it is: give generator_weights or an adversary, not both")
        if statistics not in ("running", "batch"):
            raise ValueError(f"statistics must be running or batch, not {statistics!r}")
        at_least(0, mmd_weight=mmd_weight)
        at_least(0, variance_images=variance_images)
        at_least(2, variance_draws=variance_draws)
        super().__init__(network, optimizer, lr_scheduler, adversary, critic_optimizer, critic_scheduler)
        self.save_hyperparameters()
        self.generator_weights = generator_weights
        self.network.generator.requires_grad_(generator_weights is None)
        self.mmd_weight = rate_weight(network.channels) if mmd_weight is None else mmd_weight
        self.statistics = statistics
        self.variance_images, self.variance_draws = variance_images, variance_draws
        self.val_mse = Mean()
        self.evaluation = Evaluation(features)
        self.variances: list[Tensor] = []
        self.agreements: list[Tensor] = []

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.generator_weights is not None:
            load_generator(self.network.generator, self.generator_weights)
        if stage == "fit":
            self.train()  # Lightning keeps the modes that it finds

    def train(self, mode: bool = True) -> "Compressor":
        """The frozen generator keeps its measured statistics, unless the published mode is asked for."""
        super().train(mode)
        if self.generator_weights is not None:
            self.network.generator.train(mode and self.statistics == "batch")
        return self

    def fakes(self, x: Tensor) -> Tensor:
        return self.network(x, self.network.draw_noise(len(x))).x_hat

    def generator_loss(self, x: Tensor) -> Tensor:
        coded: Coded = self.network(x, self.network.draw_noise(len(x)))
        error = loss = rmse(coded.x_hat, x)
        self.log("train/rmse", error.detach(), prog_bar=True)
        if self.mmd_weight:
            prior = self.network.generator.draw_latents(len(x))
            discrepancy = mmd(coded.z.flatten(1), prior.flatten(1))
            loss = loss + self.mmd_weight * discrepancy
            self.log("train/mmd", discrepancy.detach(), prog_bar=True)
        if self.adversary is not None:
            adversarial = self.adversary.generator_loss(coded.x_hat)
            loss = loss + adversarial
            self.log("train/adversarial", adversarial.detach())
        return loss

    def on_validation_start(self) -> None:
        """Measure the batch norms of what was trained; the frozen G keeps those that it has under the prior."""
        if self.trainer.state.fn == "fit" and not self.trainer.sanity_checking and self.statistics == "running":
            network = self.network
            trained = [network.encoder, network.map] if self.generator_weights else [network]
            with self.trainer.precision_plugin.forward_context():
                reestimate(
                    torch.nn.ModuleList(trained),
                    lambda x: network(x, network.draw_noise(len(x), torch.Generator().manual_seed(0))),
                    training_images(self, STATISTICS_BATCHES),
                )
        follow_batches(self.network, self.statistics == "batch")

    def on_test_start(self) -> None:
        follow_batches(self.network, self.statistics == "batch")

    def noise(self, count: int, batch_index: int) -> Tensor:
        """The same for a batch in every evaluation, another one on every rank."""
        seed = batch_index * self.trainer.world_size + self.trainer.global_rank
        return self.network.draw_noise(count, torch.Generator().manual_seed(seed))

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        x = scaled(batch["image"])
        coded: Coded = self.network(x, self.noise(len(x), batch_index))
        self.val_mse.update((coded.x_hat.float() - x).square().mean((1, 2, 3)))
        self.log("val/mse", self.val_mse, prog_bar=True)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        x = scaled(batch["image"])
        coded: Coded = self.network(x, self.noise(len(x), batch_index))
        self.evaluation.add(x, coded.x_hat)
        again = self.network.encoder(scaled(to_bytes(coded.x_hat))).symbols
        self.agreements.append((again == coded.symbols).flatten(1).float().mean(1).cpu())
        share = -(-self.variance_images // self.trainer.world_size)
        room = share - sum(len(part) for part in self.variances)
        if room > 0:
            self.variances.append(self.variance(coded.symbols[:room]).cpu())

    def variance(self, symbols: Tensor) -> Tensor:
        """Pixel variance [N] of the images decoded from symbols int64 [N, c, 4, 4]."""
        count = max(1, DRAWS_AT_ONCE // self.variance_draws)
        generator = torch.Generator().manual_seed(0)
        values = []
        for part in symbols.split(count):
            repeated = part.repeat(self.variance_draws, 1, 1, 1)
            decoded = self.network.decode(repeated, self.network.draw_noise(len(repeated), generator))
            values.append(pixel_variance(decoded.float().unflatten(0, (self.variance_draws, -1))))
        return torch.cat(values)

    def on_test_epoch_end(self) -> None:
        results = {f"test/{name}": value for name, value in self.evaluation.results().items()}
        agreements = torch.cat(of_all_ranks(torch.cat(self.agreements)))
        variance = float(torch.cat(of_all_ranks(torch.cat(self.variances))).mean()) if self.variance_images else 0.0
        self.agreements, self.variances = [], []
        results["test/bpp"] = self.network.channels * GRID**2 / SIZE**2
        results["test/same_code"] = float((agreements == 1).float().mean())
        results["test/same_bits"] = float(agreements.mean())
        if self.variance_images:
            results |= {"test/pixel_variance": variance, "test/pixel_variance_unit": variance / 4}
        self.log_dict(results)

    def draws(self, image: Tensor, count: int) -> Tensor:
        """For reports: uint8 [count, N, 3, 64, 64], reconstructions of images uint8 [N, 3, 64, 64]."""
        symbols = self.network.encoder(scaled(image.to(self.device))).symbols
        generator = torch.Generator().manual_seed(0)
        noises = (self.network.draw_noise(len(symbols), generator) for _ in range(count))
        return torch.stack([to_bytes(self.network.decode(symbols, noise)) for noise in noises])


def load_generator(generator: Generator, path: str) -> None:
    """The weights of a checkpoint of stage 1, with the batch norms measured under the prior.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it holds no generator, or one of another width.
    """
    state = read_checkpoint(Path(path)).get("state_dict", {})
    prefix = "network.generator."
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not weights:
        raise CheckpointError(f"{path} holds no generator: give a checkpoint of stage 1")
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"the generator in {path} does not fit: width and latent must be those of stage 1 "
            f"({' '.join(str(error).split())[:200]})"
        ) from error
    seeded = torch.Generator().manual_seed(0)
    reestimate(generator, generator, (generator.draw_latents(64, seeded) for _ in range(STATISTICS_BATCHES)))
