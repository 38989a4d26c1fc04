"""PixelMLP as a LightningModule: minimise the code length of random pixels."""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from modules.components.coding.checked_file import file_of
from modules.components.coding.model_file import take_weights
from modules.components.mean import Mean
from modules.components.options import at_least
from modules.pixel_mlp.codec import Codec, estimated_bits
from modules.pixel_mlp.context import Tables, contexts, pad, tables_on
from modules.pixel_mlp.losses import mixtures_bits
from modules.pixel_mlp.nets import PixelMLP
from modules.pixel_mlp.wavefront import draw_tile

Batch = dict[str, Any]


class LosslessPixels(LightningModule):
    """Train a ``PixelMLP`` on small crops, most of whose pixels have all their neighbours in the crop.

    ``train/bpsp``, ``val/bpsp`` and ``test/bpsp`` are bits per sub-pixel under the mixtures; validation and test use
    the exact arithmetic. ``test/file_bpsp`` is measured on files that were written and decoded again.

    Args:
        network: a ``PixelMLP``.
        optimizer: called with the parameters.
        lr_scheduler: called with the optimizer and stepped after every batch.
        border_every: one crop in so many is taken for a whole image, borders included.
        gray_every: one crop in so many is made gray, so that grayscale images are coded as well.
        start_weights: weights or a checkpoint of such a network, where ``fit`` begins; one to resume from goes before.

    Raises:
        ValueError: for numbers below 1.
        FileNotFoundError, CheckpointError: when ``fit`` begins, if ``start_weights`` does not hold such a network.
    """

    instead_of_predict = "`python codec.py compress <images> --checkpoint <best.ckpt> --output <folder>` writes files"

    compressed: Tensor
    half_log_activity: Tensor

    def __init__(
        self,
        network: PixelMLP,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        lr_scheduler: LRSchedulerCallable | None = None,
        border_every: int = 16,
        gray_every: int = 16,
        start_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, border_every=border_every, gray_every=gray_every)
        self.network, self.optimizer, self.lr_scheduler = network, optimizer, lr_scheduler
        self.border_every, self.gray_every, self.start_weights = border_every, gray_every, start_weights
        for name, table in tables_on(torch.device("cpu"))._asdict().items():
            self.register_buffer(name, table, persistent=False)
        self.val_bpsp = Mean()
        self.test_bpsp = Mean()
        self.test_file_bpsp = Mean()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.start_weights is not None:
            take_weights(self.network, self.start_weights)

    def tables(self) -> Tables:
        """On the module's device, where a training step may not copy anything."""
        return Tables(self.compressed, self.half_log_activity)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        image = batch["image"].clone()
        image[:: self.gray_every] = image[:: self.gray_every, 1:2]
        parts = (image.to(torch.int16), pad(image[1 :: self.border_every]))
        known = (contexts(part, self.tables()) for part in parts)
        bits = torch.cat([mixtures_bits(self.network, each, exact=False) for each in known], dim=1)
        bpsp = bits.mean()
        self.log("train/bpsp", bpsp, prog_bar=True)
        return bpsp

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        image = batch["image"]
        self.val_bpsp.update(estimated_bits(self.network, image) / image.numel(), weight=len(image))
        self.log("val/bpsp", self.val_bpsp, prog_bar=True)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """One whole image [1, 3, H, W] of any size."""
        image = batch["image"]
        self.test_bpsp.update(estimated_bits(self.network, image) / image.numel())
        pixels = image[0].permute(1, 2, 0).contiguous().cpu().numpy()
        self.test_file_bpsp.update(8 * len(file_of(self.codec(), pixels)) / image.numel())
        self.log_dict({"test/bpsp": self.test_bpsp, "test/file_bpsp": self.test_file_bpsp})

    def codec(self) -> Codec:
        """A codec with the current weights."""
        return Codec(self.network)

    def sample(self, image: Tensor, seed: int = 0) -> Tensor:
        """Images uint8 [1, N, 3, H, W] of the size of ``image`` [N, 3, H, W], every pixel drawn from the model."""
        codec, random = self.codec(), np.random.default_rng(seed)
        number, _, height, width = image.shape
        drawn = [draw_tile((height, width, 3), codec.predictors, random) for _ in range(number)]
        return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2)[None]

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}
