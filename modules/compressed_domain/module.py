"""Stage 1 as a LightningModule: the codec, trained for a rate."""

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor
from torch.nn import functional

from modules.components.autoencoder import STRIDE
from modules.components.coding.checked_file import file_of
from modules.components.mean import Mean
from modules.components.options import at_least
from modules.compressed_domain.codec import Codec
from modules.compressed_domain.losses import excess, rate, symbol_counts
from modules.compressed_domain.metrics import CodecFigures, psnr_db, to_8_bits
from modules.compressed_domain.nets import Compressed, CompressionNet

Batch = dict[str, Any]
LrInterval = Literal["step", "epoch"]


def with_schedule(optimizer: torch.optim.Optimizer, schedule: LRSchedulerCallable | None, interval: LrInterval) -> Any:
    """What ``configure_optimizers`` returns."""
    if schedule is None:
        return optimizer
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule(optimizer), "interval": interval}}


def padded(image: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> float32, sides made multiples of 8 by repeating the border."""
    x = image.float().contiguous(memory_format=torch.channels_last)
    rows, columns = -x.shape[-2] % STRIDE, -x.shape[-1] % STRIDE
    return functional.pad(x, (0, columns, 0, rows), mode="replicate") if rows or columns else x


class RateDistortion(LightningModule):
    """Mean squared error on 0..255 + beta max(H - H_t, 0), and the figures of a codec; parent of stages 1 and 4.

    Args:
        network: the codec.
        target_entropy: H_t in bits per symbol; 64 bpp / C. It is 1.265 at 0.635 bpp (C = 32), 1.32 at 0.330 (C = 16)
            and 0.79 at 0.0983 (C = 8).
        beta: of the hinge.

    Raises:
        ValueError: for a target below 0 or a negative beta.
    """

    instead_of_predict = "`python codec.py compress <images> --checkpoint <best.ckpt> --output <folder>` writes files"

    def __init__(self, network: CompressionNet, target_entropy: float, beta: float) -> None:
        super().__init__()
        at_least(0, target_entropy=target_entropy, beta=beta)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.target_entropy, self.beta = target_entropy, beta
        self.val_figures, self.test_figures = (CodecFigures(network.num_centers) for _ in range(2))
        self.test_file_bpp = Mean()

    def rate_distortion(self, x: Tensor, out: Compressed) -> Tensor:
        """The loss of images [N, 3, H, W] in 0..255; MSE, entropy and PSNR are logged."""
        counts = symbol_counts(out.code.symbols, self.network.num_centers)
        counts = self.trainer.strategy.reduce(counts, reduce_op="sum")  # of the whole batch, see losses.rate
        bits = rate(self.network.quantizer.assignments(out.code.z), counts)
        mse = (out.x_hat - x).square().mean()
        self.log("train/mse", mse.detach(), prog_bar=True)
        self.log("train/entropy", bits.detach(), prog_bar=True)
        self.log("train/psnr_db", psnr_db(out.x_hat.detach(), x).mean())
        return mse + self.beta * excess(bits, self.target_entropy)

    def log_figures(self, split: str, image: Tensor) -> Compressed:
        """Compress images uint8 of any size and take in the result; the rate is that of their own pixels."""
        height, width = image.shape[-2:]
        out: Compressed = self.network(padded(image))
        figures = self.val_figures if split == "val" else self.test_figures
        logged = figures.update(image.float(), to_8_bits(out.x_hat[..., :height, :width]), out.code.symbols)
        for name, metric in logged.items():
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True, prog_bar=True)
        return out

    def log_files(self, image: Tensor) -> None:
        """Write the file of each image, read it again and take in its size, container included."""
        for pixels in image.permute(0, 2, 3, 1).contiguous().cpu().numpy():
            self.test_file_bpp.update(8 * len(file_of(self.test_codec, pixels)) / pixels[..., 0].size)
        self.log("test/file_bpp", self.test_file_bpp, on_step=False, on_epoch=True)

    def on_test_start(self) -> None:
        self.test_codec = self.codec()

    def codec(self) -> Codec:
        """A codec with the current weights, on this module's device."""
        return Codec(self.network, device=str(self.device))

    def draws(self, image: Tensor, count: int) -> Tensor:
        """For reports: uint8 [count, N, 3, H, W], the reconstruction of images uint8, ``count`` times the same."""
        height, width = image.shape[-2:]
        x_hat = to_8_bits(self.network(padded(image.to(self.device))).x_hat)[..., :height, :width]
        return x_hat.to(torch.uint8).expand(count, *x_hat.shape)


class CompressionModel(RateDistortion):
    """Train the codec.

    ``val/bpp`` is C/64 times the entropy of the histogram of all symbols of the set, ``val/psnr_db`` of 8-bit images;
    ``val/ms_ssim`` is there for sides from 176 on. ``test`` also writes and reads real files: ``test/file_bpp``.

    Args:
        network, target_entropy, beta: as for ``RateDistortion``.
        optimizer: called with the parameters.
        lr_scheduler: called with the optimizer.
        lr_interval: what the schedule counts.
    """

    def __init__(
        self,
        network: CompressionNet,
        target_entropy: float = 1.265,
        beta: float = 150.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: LrInterval = "step",
    ) -> None:
        super().__init__(network, target_entropy, beta)
        self.save_hyperparameters()
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x = padded(batch["image"])
        loss = self.rate_distortion(x, self.network(x))
        self.log("train/loss", loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.log_figures("val", batch["image"])

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.log_figures("test", batch["image"])
        self.log_files(batch["image"])

    def configure_optimizers(self) -> Any:
        return with_schedule(self.optimizer(self.parameters()), self.lr_scheduler, self.lr_interval)
