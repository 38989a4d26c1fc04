"""L3C as a LightningModule: the training objective is the code length itself."""

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from modules.components.coding.checked_file import file_of
from modules.components.mean import Mean
from modules.l3c.codec import Codec, estimated_bits
from modules.l3c.losses import scale_bits, uniform_bits
from modules.l3c.nets import Pyramid
from modules.l3c.sampling import pad_to_multiple, sample_images

Batch = dict[str, Any]


class L3C(LightningModule):
    """Minimise the bits per sub-pixel (bpsp) of all scales together (section 3.4).

    ``val/bpsp`` and ``test/bpsp`` are estimates that include the uniform scale, as means over images;
    ``test/file_bpsp`` is measured on files that were written and decoded again.

    Args:
        network: ``L3CNet``, or a baseline ``RGBNet``, ``RGBSharedNet``.
        optimizer: called with the trainable parameters.
        lr_scheduler: called with the optimizer.
        lr_interval: what the schedule counts: ``step`` or ``epoch``, whose length follows from the data and the number
            of devices.
        write_files: whether ``test`` also compresses each image (slow for a large network).
    """

    instead_of_predict = "`python codec.py compress <images> --checkpoint <best.ckpt> --output <folder>` writes files"

    def __init__(
        self,
        network: Pyramid,
        optimizer: OptimizerCallable = torch.optim.RMSprop,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: Literal["step", "epoch"] = "step",
        write_files: bool = True,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer
        self.lr_scheduler, self.lr_interval = lr_scheduler, lr_interval
        self.write_files = write_files
        self.val_bpsp = Mean()
        self.test_bpsp = Mean()
        self.test_file_bpsp = Mean()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        image = batch["image"]
        bits = scale_bits(self.network(image), self.network.alphabets, self.network.num_mixtures)
        bpsp = bits.sum() / image.numel()
        self.log("train/bpsp", bpsp, prog_bar=True)
        self.log_dict({f"train/bpsp_scale{s}": b / image.numel() for s, b in enumerate(bits.detach())})
        return bpsp

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        image = batch["image"]
        output = self.network(image)
        bits = scale_bits(output, self.network.alphabets, self.network.num_mixtures).sum()
        bits = bits + uniform_bits(self.network.alphabets[len(output.targets)], output.last)
        self.val_bpsp.update(bits / image.numel(), weight=len(image))
        self.log("val/bpsp", self.val_bpsp, prog_bar=True)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """One whole image [1, 3, H, W] of any size, in the tiles of a file."""
        image = batch["image"]
        self.test_bpsp.update(estimated_bits(self.network, image).sum() / image.numel())
        self.log("test/bpsp", self.test_bpsp)
        if self.write_files:
            pixels = image[0].permute(1, 2, 0).contiguous().cpu().numpy()
            self.test_file_bpsp.update(8 * len(file_of(self.codec(), pixels)) / image.numel())
            self.log("test/file_bpsp", self.test_file_bpsp)

    def codec(self) -> Codec:
        """A codec with the current weights, on this module's device."""
        return Codec(self.network, device=str(self.device))

    def sample(self, image: Tensor, seed: int = 0) -> Tensor:
        """Samples [S, N, 3, H, W] uint8 with scales 0, 0..1, ..., 0..S-1 drawn; see ``sampling.sample_images``."""
        padded = pad_to_multiple(image.to(self.device), self.network.multiple)
        samples = sample_images(self.network.eval(), padded, torch.Generator().manual_seed(seed))
        return samples[..., : image.shape[-2], : image.shape[-1]]

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": self.lr_scheduler(optimizer), "interval": self.lr_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}
