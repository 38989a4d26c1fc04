"""CPM as a LightningModule: auto-encoder, centres and context model learn together, in one backward pass."""

from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torchmetrics import MetricCollection

from modules.components.coding.checked_file import file_of
from modules.components.coding.container import unpack
from modules.components.coding.model_file import load_network
from modules.components.mean import Mean
from modules.components.ms_ssim import decibels, ms_ssim
from modules.components.options import at_least
from modules.cpm.codec import Codec
from modules.cpm.losses import Counted, rate_hinge, symbol_bits, weight_decay
from modules.cpm.nets import CPMNet, take_common_weights

Batch = dict[str, Any]


class Decibels(Mean):
    """-10 log10(1 - mean)."""

    def compute(self) -> Tensor:
        return decibels(super().compute())


def image_metrics(prefix: str) -> MetricCollection:
    """``psnr_db``, ``ms_ssim`` and ``ms_ssim_db``: means over images, the last in decibels of the mean."""
    metrics: dict[str, Any] = {"psnr_db": Mean(), "ms_ssim": Mean(), "ms_ssim_db": Decibels()}
    return MetricCollection(metrics, prefix=prefix, compute_groups=False)


def update_images(metrics: MetricCollection, x: Tensor, x_hat: Tensor) -> None:
    """Take in images [N, 3, H, W]; x_hat is rounded to 0..255 first, as in a file."""
    x, x_hat = x.float(), x_hat.float().round().clamp(0, 255)
    score = ms_ssim(x, x_hat)
    error = (x - x_hat).square().mean((1, 2, 3)).clamp(min=1e-10)
    metrics["psnr_db"].update(10 * torch.log10(255**2 / error))
    metrics["ms_ssim"].update(score)
    metrics["ms_ssim_db"].update(score)


class CPM(LightningModule):
    """Minimise distortion_weight (1 - MS-SSIM) + rate_weight max(bits a symbol - target_bits, 0) + weight decay.

    Logged: ``train/distortion`` (1 - MS-SSIM), ``train/bits_per_symbol``, ``train/hinge``; for ``val/`` and ``test/``
    ``bpp``, ``bits_per_symbol`` (estimates; bpp = bits a symbol * K / 64), ``ms_ssim``, ``ms_ssim_db``, ``psnr_db``;
    ``val/loss`` is the objective without weight decay.
    ``test`` writes files of whole images and decodes them: ``test/file_bpp``, ``test/payload_bpp`` without the header;
    its estimate is that of the exact context model.

    Args:
        network: a ``CPMNet``.
        optimizer: called with two groups of parameters: auto-encoder with centres, context model.
        lr_scheduler: called with the optimizer.
        lr_interval: what the schedule counts, ``step`` or ``epoch``.
        context_lr: rate of the context model; the optimizer's own is that of the others.
        target_bits: bits a symbol below which the rate costs nothing.
        distortion_weight, rate_weight: 5000 and 500 in the authors' code, 100 and 10 in the paper.
        kernel_decay, center_decay: see ``weight_decay``.
        counted: see ``rate_hinge``.
        start_weights: weights or a checkpoint of a network that differs in its channels at most, where ``fit``
            begins: another rate in less time. A checkpoint to resume from goes before.
        context_learns: ``always`` from all bits; or with the ``hinge`` (the authors' code), which leaves the context
            model without a gradient while the rate is below its target.

    Raises:
        ValueError: for an unknown ``counted`` or ``context_learns``, or a negative weight.
        FileNotFoundError, ValueError: when ``fit`` begins, if ``start_weights`` does not hold such a network.
    """

    instead_of_predict = "`python codec.py compress <images> --checkpoint <best.ckpt> --output <folder>` writes files"

    def __init__(
        self,
        network: CPMNet,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        context_lr: float = 1e-4,
        target_bits: float = 1.2,
        distortion_weight: float = 5000.0,
        rate_weight: float = 500.0,
        kernel_decay: float = 0.005,
        center_decay: float = 0.1,
        counted: Counted = "average",
        context_learns: Literal["always", "hinge"] = "always",
        start_weights: str | None = None,
    ) -> None:
        super().__init__()
        if counted not in ("average", "masked") or context_learns not in ("always", "hinge"):
            raise ValueError(
                f"counted is average or masked, context_learns always or hinge: {counted}, {context_learns}"
            )
        at_least(0, context_lr=context_lr, target_bits=target_bits, distortion_weight=distortion_weight)
        at_least(0, rate_weight=rate_weight, kernel_decay=kernel_decay, center_decay=center_decay)
        self.save_hyperparameters()
        self.network = network
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval
        self.context_lr, self.target_bits = context_lr, target_bits
        self.distortion_weight, self.rate_weight = distortion_weight, rate_weight
        self.kernel_decay, self.center_decay = kernel_decay, center_decay
        self.counted, self.context_learns, self.start_weights = counted, context_learns, start_weights
        self.val_rate, self.test_rate = (
            MetricCollection({name: Mean() for name in names}, prefix=prefix, compute_groups=False)
            for prefix, names in (
                ("val/", ("bpp", "bits_per_symbol")),
                ("test/", ("bpp", "bits_per_symbol", "file_bpp", "payload_bpp")),
            )
        )
        self.val_images, self.test_images = image_metrics("val/"), image_metrics("test/")
        self.val_loss = Mean()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.start_weights is not None:
            other = load_network(Path(self.start_weights)).network
            if not isinstance(other, CPMNet):
                raise ValueError(f"{self.start_weights} holds a {type(other).__name__}: give weights of a CPMNet")
            take_common_weights(self.network, other)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x = batch["image"].float().contiguous(memory_format=torch.channels_last)
        code, logits, x_hat = self.network(x)
        bits = symbol_bits(logits, code.symbols)
        distortion = 1 - ms_ssim(x, x_hat).mean()
        always = self.context_learns == "always"
        hinge = rate_hinge(bits.detach() if always else bits, code.mask, self.target_bits, self.counted)
        self.log("train/bits_per_symbol", bits.detach().mean(), prog_bar=True)
        self.log_dict({"train/distortion": distortion.detach(), "train/hinge": hinge.detach()})
        loss = self.distortion_weight * distortion + self.rate_weight * hinge
        loss = loss + weight_decay(self.network, self.kernel_decay, self.center_decay)
        self.log("train/loss", loss.detach())
        return loss + bits.mean() if always else loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        image = batch["image"]
        code, logits, x_hat = self.network(image.float().contiguous(memory_format=torch.channels_last))
        bits = symbol_bits(logits, code.symbols)
        pixels = image.shape[-2] * image.shape[-1]
        self.val_rate["bpp"].update(bits.sum((1, 2, 3)) / pixels)
        self.val_rate["bits_per_symbol"].update(bits.mean((1, 2, 3)))
        update_images(self.val_images, image, x_hat)
        hinge = rate_hinge(bits, code.mask, self.target_bits, self.counted)
        distortion = 1 - ms_ssim(image, x_hat.clamp(0, 255)).mean()
        self.val_loss.update(self.distortion_weight * distortion + self.rate_weight * hinge, weight=len(image))
        self.log_dict(self.val_rate, prog_bar=True)
        self.log_dict(self.val_images)
        self.log("val/loss", self.val_loss)

    def on_test_start(self) -> None:
        self.test_codec = self.codec()

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Real files of whole images, one a batch, decoded again."""
        image = batch["image"]
        pixels = image[0].permute(1, 2, 0).contiguous().cpu().numpy()
        file = file_of(self.test_codec, pixels)
        container = unpack(file)
        symbols = self.test_codec.read(container)
        bits, area = self.test_codec.symbol_bits(symbols), pixels.shape[0] * pixels.shape[1]
        self.test_rate["bpp"].update(bits / area)
        self.test_rate["bits_per_symbol"].update(bits / symbols.size)
        self.test_rate["file_bpp"].update(8 * len(file) / area)
        self.test_rate["payload_bpp"].update(8 * len(container.tiles[0].payload) / area)
        decoded = torch.from_numpy(self.test_codec.decompress(container)).permute(2, 0, 1)[None]
        update_images(self.test_images, image, decoded.to(image.device))
        self.log_dict(self.test_rate)
        self.log_dict(self.test_images)

    def codec(self) -> Codec:
        """A codec with the current weights, on this module's device."""
        return Codec(self.network, device=str(self.device))

    def configure_optimizers(self) -> Any:
        context = list(self.network.context.parameters())
        known = {id(parameter) for parameter in context}
        others = [parameter for parameter in self.parameters() if id(parameter) not in known]
        optimizer = self.optimizer([{"params": others}, {"params": context, "lr": self.context_lr}])
        if self.lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.lr_scheduler(optimizer), "interval": self.lr_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
