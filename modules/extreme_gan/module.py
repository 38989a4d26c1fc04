"""Extreme compression as a LightningModule: an encoder and a generator against a discriminator."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure, PeakSignalNoiseRatio

from modules.components.coding.container import pack
from modules.components.features import Features
from modules.components.mean import Mean
from modules.components.options import at_least
from modules.components.segmentation import Segmenter
from modules.extreme_gan import losses
from modules.extreme_gan.codec import Codec, SideInformation, choose
from modules.extreme_gan.evaluation import SceneEvaluation
from modules.extreme_gan.masks import cells_of, pixels_of, random_boxes, random_instances, scene_channels
from modules.extreme_gan.nets import CompressionNet, Judgement, MultiscaleDiscriminator, Reconstruction

Batch = dict[str, Any]

MS_SSIM_SIDE = 160
"""Five scales of an 11-pixel window need longer sides than this."""


def adam(parameters: Any) -> torch.optim.Optimizer:
    """Adam as in pix2pixHD: 2e-4, betas 0.5 and 0.999."""
    return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))


def mean_metrics(names: Sequence[str], prefix: str) -> MetricCollection:
    """Means that are updated one by one; no ``nan_strategy``, which would wait for the accelerator."""
    means: dict[str, Any] = {name: Mean() for name in names}
    return MetricCollection(means, prefix=prefix, compute_groups=False)


class Scene(NamedTuple):
    """A batch as the networks take it."""

    x: Tensor
    """[N, 3, H, W] in [-1, 1]."""
    labels: Tensor | None
    """[N, K + 1, H, W] one-hot and edges, if a network takes them."""
    keep: Tensor | None
    """[N, 1, h, w] in {0, 1} for selective compression."""
    kept_pixels: Tensor | None
    """[N, 1, H, W] in {0, 1}."""
    noise: Tensor | None


class ExtremeGAN(LightningModule):
    """GC, GC(D+) and SC, which differ in the networks given; without a discriminator, the MSE baseline.

    A batch is one step of encoder and generator, then one of the discriminator, which judges the same x_hat.
    Optimization is manual: ``trainer.global_step`` counts both steps, ``batches`` counts batches, and schedules go by
    it. Several processes need ``strategy: ddp_find_unused_parameters_true``.

    Logged: every term of both losses, ``val/psnr_db``, ``val/ms_ssim``, ``val/level_0`` .. ``4`` (shares of the five
    levels), ``val/bpp_bound`` (dim(w_hat) log2(5)), for SC also MSE on [-1, 1] inside and outside of what is kept;
    ``test`` writes and decodes files: ``test/file_bpp``, ``test/payload_bpp`` without the container's header; with
    ``features`` also distances of distributions, with ``segmenter`` ``test/miou`` (see ``SceneEvaluation``).

    Args:
        network: ``GCNet`` or ``SCNet``.
        discriminator: its ``num_labels`` tells GC(D+) (more than 0) from GC; null for the MSE baseline.
        generator_optimizer, discriminator_optimizer: called with the trainable parameters.
        lr_scheduler: called with each optimizer and stepped with it.
        mse_weight, feature_weight, vgg_weight: lambda of distortion, feature matching and VGG term. The sources say
            10..12 for each.
        vgg_weights: file of torchvision's VGG-19; by default where torchvision would keep it. If it is missing, the
            term is left out and a message says so.
        masks: what SC keeps in training, a random quarter of the ``instances`` or a random ``box``.
        freeze_norm_after: batches after which the generator's normalisation is frozen; null for never.
        accumulate: batches whose gradients are averaged for one step.
        test_keep: labels that SC keeps in ``test``, as for codec.py; null for everything.
        features: network for distances of distributions in ``test``.
        patch: side of the squares that are compared; null for whole scenes.
        segmenter: network that labels pixels, for mIoU in ``test``.
        seed: of masks and noise.

    Raises:
        ValueError: if the values do not go together.
    """

    instead_of_predict = "`python codec.py compress <images> --checkpoint <best.ckpt> --output <folder>` writes files"

    def __init__(
        self,
        network: CompressionNet,
        discriminator: MultiscaleDiscriminator | None = None,
        generator_optimizer: OptimizerCallable = adam,
        discriminator_optimizer: OptimizerCallable = adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        mse_weight: float = 10.0,
        feature_weight: float = 10.0,
        vgg_weight: float = 10.0,
        vgg_weights: str | None = None,
        masks: Literal["instances", "box"] = "instances",
        freeze_norm_after: int | None = None,
        accumulate: int = 1,
        test_keep: str | None = "person,car",
        features: Features | None = None,
        patch: int | None = 64,
        segmenter: Segmenter | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if masks not in ("instances", "box"):
            raise ValueError(f"masks must be instances or box, got {masks!r}")
        at_least(1, accumulate=accumulate, patch=patch)
        at_least(0, mse_weight=mse_weight, feature_weight=feature_weight, vgg_weight=vgg_weight)
        at_least(0, freeze_norm_after=freeze_norm_after)
        self.automatic_optimization = False
        self.save_hyperparameters()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = discriminator and discriminator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.generator_optimizer, self.discriminator_optimizer = generator_optimizer, discriminator_optimizer
        self.lr_scheduler = lr_scheduler
        self.mse_weight, self.feature_weight, self.vgg_weight = mse_weight, feature_weight, vgg_weight
        self.vgg_weights = vgg_weights
        self.vgg: list[losses.VGGLoss] = []  # in a list it is in neither parameters() nor state_dict()
        self.masks, self.freeze_norm_after, self.accumulate, self.seed = masks, freeze_norm_after, accumulate, seed
        self.test_keep = test_keep
        self.evaluation = SceneEvaluation(features, patch, segmenter)
        self.batches = 0
        self.pending_gradients: dict[str, Tensor] = {}
        self.num_labels = max(network.num_labels, discriminator.num_labels if discriminator else 0)
        means = ("bpp_bound", *(f"level_{i}" for i in range(5)), *(("mse_kept", "mse_rest") if self.selective else ()))
        self.val_means = mean_metrics(means, "val/")
        self.val_images = MetricCollection({"psnr_db": PeakSignalNoiseRatio(1.0, dim=(1, 2, 3))}, prefix="val/")
        self.test_images = self.val_images.clone(prefix="test/")
        self.test_bpp = mean_metrics(("file_bpp", "payload_bpp"), "test/")
        self.test_ms_ssim = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)
        self.val_ms_ssim = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0)

    @property
    def selective(self) -> bool:
        return self.network.num_labels > 0

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        if self.freeze_norm_after is not None and self.batches >= self.freeze_norm_after:
            self.network.freeze_norm()
        scene = self.scene_of(batch)
        optimizers = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        # The discriminator's weights change at the end of the step only, so one judgement of x serves both phases.
        real = self.discriminator(scene.x, scene.labels) if self.discriminator is not None else []

        with self.toggled_optimizer(optimizers[0]):  # encoder and generator; the discriminator gets no gradient
            x_hat, symbols = self.network(scene.x, scene.keep, scene.labels, scene.noise)
            terms = self.generator_terms(x_hat, scene, real)
            loss = torch.stack(list(terms.values())).sum()
            self.manual_backward(loss / self.accumulate)
            self.step(optimizers[0], 0)

        if self.discriminator is not None:
            with self.toggled_optimizer(optimizers[1]):  # the same x_hat, detached: encoder and generator get none
                fake = self.discriminator(x_hat.detach(), scene.labels)
                discriminator_loss = losses.discriminator_loss(real, fake)
                self.manual_backward(discriminator_loss / self.accumulate)
                self.step(optimizers[1], 1)
            terms["discriminator"] = discriminator_loss

        self.network.update_prior(symbols, scene.keep)
        self.batches += 1
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        self.log("train/loss", loss.detach(), prog_bar=True)
        return {"loss": loss.detach()}

    def generator_terms(self, x_hat: Tensor, scene: Scene, real: list[Judgement]) -> dict[str, Tensor]:
        """The weighted terms of the loss of encoder and generator, by name; ``real`` are the judgements of x."""
        terms = {"mse": self.mse_weight * losses.distortion(x_hat, scene.x, scene.kept_pixels)}
        if self.discriminator is not None:
            fake = self.discriminator(x_hat, scene.labels)
            terms["adversarial"] = losses.adversarial_loss(fake)
            if self.feature_weight:
                terms["feature"] = self.feature_weight * losses.feature_matching_loss(real, fake)
        if self.vgg:
            terms["vgg"] = self.vgg_weight * self.vgg[0](x_hat, scene.x)
        return terms

    def step(self, optimizer: LightningOptimizer, index: int) -> None:
        """Step if this batch is the last of ``accumulate``, and let the schedule follow."""
        if (self.batches + 1) % self.accumulate:
            return
        optimizer.step()
        optimizer.zero_grad()
        if self.lr_scheduler is not None:
            schedulers: Any = self.lr_schedulers()
            (schedulers[index] if isinstance(schedulers, list) else schedulers).step()

    def scene_of(self, batch: Batch) -> Scene:
        """The batch on [-1, 1] with labels, a random mask and noise."""
        x = (batch["image"].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        seed = self._draw_seed()
        labels = keep = kept_pixels = None
        if self.num_labels:
            labels = scene_channels(batch["mask"], batch["instance"], self.num_labels)
            labels = labels.contiguous(memory_format=torch.channels_last)
        if self.selective:
            keep = self._random_cells(batch["instance"], seed)
            kept_pixels = pixels_of(keep, self.network.stride)
        return Scene(x, labels, keep, kept_pixels, self.network.noise(len(x), x.shape[-2], x.shape[-1], seed, x.device))

    def _random_cells(self, instance: Tensor, seed: int) -> Tensor:
        stride = self.network.stride
        if self.masks == "instances":
            return cells_of(random_instances(instance, seed), stride)
        images, height, width = instance.shape
        return random_boxes(images, height // stride, width // stride, seed, instance.device)[:, None].float()

    def _draw_seed(self) -> int:
        """A seed of its own for each batch and rank; evaluation draws the same in every epoch."""
        position = self.batches * self.trainer.world_size + self.global_rank if self.training else 0
        return (self.seed * 1_000_000_007 + position) % (1 << 32)  # torch's generator takes 32 bits

    # --- evaluation -------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        scene = self.scene_of(batch)
        reconstruction = self.network(scene.x, scene.keep, scene.labels, scene.noise)
        self._update(scene, reconstruction)
        self.log_dict(self.val_means)
        self.log_dict(self.val_images, prog_bar=True)

    def _update(self, scene: Scene, reconstruction: Reconstruction) -> None:
        x, x_hat = (scene.x.float() + 1) / 2, (reconstruction.image + 1) / 2
        self.val_images.update(x_hat, x)
        if min(x.shape[-2:]) > MS_SSIM_SIDE:
            self.val_ms_ssim.update(x_hat, x)
            self.log("val/ms_ssim", self.val_ms_ssim)
        keep = torch.ones_like(reconstruction.symbols[:, :1]) if scene.keep is None else scene.keep
        num_symbols = keep.sum() * self.network.code_channels
        bits = num_symbols * torch.tensor(5.0).log2()
        self.val_means["bpp_bound"].update(bits / (x.shape[0] * x.shape[-1] * x.shape[-2]))
        for level in range(5):
            share = ((reconstruction.symbols == level) * keep).sum() / num_symbols.clamp(min=1)
            self.val_means[f"level_{level}"].update(share)
        if scene.kept_pixels is not None:
            self.val_means["mse_kept"].update(losses.distortion(reconstruction.image, scene.x, scene.kept_pixels))
            self.val_means["mse_rest"].update(losses.distortion(reconstruction.image, scene.x, 1 - scene.kept_pixels))

    def on_test_start(self) -> None:
        self.test_codec = self.codec()
        self.evaluation.start(self.device)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Real files of whole scenes, one a batch, decoded again; SC keeps ``test_keep``."""
        pixels = batch["image"][0].permute(1, 2, 0).contiguous().cpu().numpy()
        scene: dict[str, Any] = {name: batch[name][0].cpu().numpy() for name in ("mask", "instance") if name in batch}
        side = self.side_information(scene, self.test_keep)
        container = self.test_codec.compress(pixels, None, side)
        decoded = torch.from_numpy(self.test_codec.decompress(container)).permute(2, 0, 1)[None]
        decoded = decoded.to(batch["image"].device)
        self.evaluation.add(batch["image"], decoded, batch["mask"])
        x, x_hat = batch["image"].float() / 255, decoded.float() / 255
        self.test_images.update(x_hat, x)
        self.test_bpp["file_bpp"].update(8 * len(pack(container)) / pixels[..., 0].size)
        self.test_bpp["payload_bpp"].update(8 * len(container.tiles[0].payload) / pixels[..., 0].size)
        self.log_dict(self.test_bpp)
        self.log_dict(self.test_images)
        if min(pixels.shape[:2]) > MS_SSIM_SIDE:
            self.test_ms_ssim.update(x_hat, x)
            self.log("test/ms_ssim", self.test_ms_ssim)

    def on_test_epoch_end(self) -> None:
        self.log_dict({f"test/{name}": value for name, value in self.evaluation.results().items()})

    # --- codec ------------------------------------------------------------------------------------------------------

    def codec(self) -> Codec:
        """A codec with the current weights, on this module's device."""
        return Codec(self.network, device=str(self.device))

    def side_information(
        self, scene: dict[str, Any], keep: str | None, box: str | None = None
    ) -> SideInformation | None:
        """What SC is told of a scene (``instance`` [H, W]); ``keep`` and ``box`` as for codec.py. None for GC."""
        if not self.selective:
            return None
        return SideInformation(scene["instance"], choose(scene["instance"], keep, box))

    # --- set-up and state -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.vgg_weight and self.discriminator is not None and not self.vgg:
            path = losses.vgg_weights_file(self.vgg_weights)
            vgg = losses.load_vgg_loss(path)
            if vgg is None:
                self.print(
                    f"no VGG term: its weights are not in {path}, and nothing is downloaded. Put torchvision's "
                    "vgg19-dcbb9e9d.pth there (https://download.pytorch.org/models), or name a file by vgg_weights"
                )
            else:
                self.vgg = [vgg]

    def on_fit_start(self) -> None:
        for vgg in self.vgg:
            vgg.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def configure_optimizers(self) -> Any:
        optimizers = [self.generator_optimizer(self.network.parameters())]
        if self.discriminator is not None:
            optimizers.append(self.discriminator_optimizer(self.discriminator.parameters()))
        if self.lr_scheduler is None:
            return optimizers
        return optimizers, [self.lr_scheduler(optimizer) for optimizer in optimizers]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Between two steps of accumulated gradients a checkpoint holds the gradients, too."""
        checkpoint["batches"] = self.batches
        if self.batches % self.accumulate:
            checkpoint["gradients"] = {n: p.grad.cpu() for n, p in self.named_parameters() if p.grad is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches = checkpoint["batches"]
        self.pending_gradients = checkpoint.get("gradients", {})

    def on_train_start(self) -> None:
        for name, parameter in self.named_parameters():
            if name in self.pending_gradients:
                parameter.grad = self.pending_gradients[name].to(parameter)
        self.pending_gradients = {}
