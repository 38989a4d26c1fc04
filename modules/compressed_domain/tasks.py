"""Stages 2 and 3: classification and segmentation on the code, or on the decoded images, of a frozen codec."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from modules.components.checkpoint_file import CheckpointError, entry
from modules.components.coding.model_file import fingerprint, take_weights
from modules.components.frozen import Frozen
from modules.compressed_domain.checkpoints import codebook_entry, load_classifier
from modules.compressed_domain.losses import check_labels, missed, pixel_cross_entropy
from modules.compressed_domain.metrics import MeanIoU, TopErrors, to_8_bits
from modules.compressed_domain.module import LrInterval, padded, with_schedule
from modules.compressed_domain.nets import CompressionNet, check_channels

Batch = dict[str, Any]
HEAD_RATES = (1.0, 10.0, 20.0)
"""Learning rates of the body, of the new head's weights and of its biases, relative to each other."""


class OnFrozenCodec(LightningModule):
    """A network behind a codec that is neither trained nor in training mode; parent of the tasks.

    What the network sees is its own affair (``network.on_code``): the code's centre values, or the decoded image in 8
    bits. Images are cropped before they are encoded, in training and testing alike. The codec travels in the
    checkpoints, so that only the start of a fit needs ``codec_weights``.

    Args:
        network: ``CodeResNet``, ``RGBResNet`` or their -D forms.
        codec: of the sizes of the trained one; null for a network on original images.
        codec_weights: checkpoint of stage 1 or 4, or exported weights.
        start_weights: checkpoint of an earlier stage whose network this one starts from, all but the head.
        optimizer: called with the parameters.
        lr_scheduler: called with the optimizer.
        lr_interval: what the schedule counts.

    Raises:
        ValueError: for a network on codes without a codec or of other channels, or weights without one; for a label
            that is no class.
        FileNotFoundError, CheckpointError: at the start of a fit, for weights that are missing or of other sizes.
    """

    def __init__(
        self,
        network: nn.Module,
        codec: CompressionNet | None = None,
        codec_weights: str | None = None,
        start_weights: str | None = None,
        optimizer: OptimizerCallable = torch.optim.SGD,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: LrInterval = "epoch",
    ) -> None:
        super().__init__()
        if codec is None and (network.on_code or codec_weights is not None):
            raise ValueError("a network on codes, and codec_weights, need the codec: give its sizes as codec")
        if codec is not None:
            check_channels(network, codec.channels)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.codec = None if codec is None else Frozen(codec.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.codec_weights, self.start_weights = codec_weights, start_weights
        self.loaded: bytes | None = None
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        if self.codec is not None:
            if self.codec_weights is None:
                raise ValueError("the codec is not trained: give --model.init_args.codec_weights, a run of stage 1")
            take_weights(self.frozen_codec(), self.codec_weights)
            self.loaded = fingerprint(self.frozen_codec())
        if self.start_weights is not None:
            load_classifier(self.network, self.start_weights, self.frozen_codec() if self.codec else None)

    def frozen_codec(self) -> CompressionNet:
        assert self.codec is not None
        network = self.codec.network
        assert isinstance(network, CompressionNet)
        return network

    def on_train_start(self) -> None:
        if self.codec is not None:
            self.codec.to(self.device)

    on_validation_start = on_train_start
    on_test_start = on_train_start
    on_predict_start = on_train_start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.codec is not None:
            codec = self.frozen_codec()
            checkpoint["codebook"] = codebook_entry(codec)
            checkpoint["codec"] = {name: value.cpu() for name, value in codec.state_dict().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.codec is not None:
            codec = self.frozen_codec()
            try:
                codec.load_state_dict(entry(checkpoint, "codec", self))
            except RuntimeError as error:
                raise CheckpointError("the checkpoint's codec has other sizes than codec says") from error
            if self.loaded is not None and fingerprint(codec) != self.loaded:
                raise CheckpointError("the run was trained with another codec than codec_weights names")

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        for name in {"label", "mask"} & {*batch}:
            check_labels(batch[name], self.network.num_classes)  # type: ignore[arg-type]
        return batch

    @torch.no_grad()
    def seen(self, image: Tensor) -> Tensor:
        """What the network sees of images uint8 [N, 3, H, W]."""
        x = padded(image)
        if self.codec is None:
            return x
        codec = self.frozen_codec()
        code = codec.encode(x).values
        return code if self.network.on_code else to_8_bits(codec.decode(code))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of images uint8."""
        logits: Tensor = self.network(self.seen(image))
        return logits

    def configure_optimizers(self) -> Any:
        return with_schedule(self.optimizer(self.network.parameters()), self.lr_scheduler, self.lr_interval)


class Classifier(OnFrozenCodec):
    """Cross-entropy; ``error`` and ``top5_error`` are percentages of images.

    Args:
        options: as for ``OnFrozenCodec``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.val_errors, self.test_errors = TopErrors(), TopErrors()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logits, label = self(batch["image"]), batch["label"]
        loss = functional.cross_entropy(logits.float(), label)
        self.log("train/loss", loss.detach(), prog_bar=True)
        self.log("train/error", missed(logits.detach(), label).mean(), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate("val", batch, self.val_errors)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate("test", batch, self.test_errors)

    def _evaluate(self, split: str, batch: Batch, errors: TopErrors) -> None:
        for name, metric in errors.update(self(batch["image"]), batch["label"]).items():
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True, prog_bar=name == "error")

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Class probabilities [N, K]."""
        return self(batch["image"]).float().softmax(1)


class Segmenter(OnFrozenCodec):
    """Cross-entropy over pixels as DeepLab trains; ``miou`` is a percentage, 255 counts nowhere.

    The weights of the new head learn at 10 times, its biases at 20 times the optimizer's rate (sheet 5).

    Args:
        freeze_norm: batch norms keep statistics, weights and biases of ``start_weights``, as in DeepLab; without these
            a fit is refused.
        options: as for ``OnFrozenCodec``; its schedule counts steps in the paper's recipe.
    """

    instead_of_predict = "`python -m modules.compressed_domain.predict <files>` segments what codec.py wrote"

    def __init__(self, freeze_norm: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.save_hyperparameters()
        self.freeze_norm = freeze_norm
        self.norms = [layer for layer in self.network.modules() if isinstance(layer, nn.BatchNorm2d)]
        for layer in self.norms:
            layer.requires_grad_(not freeze_norm)
        self.val_miou, self.test_miou = (MeanIoU(self.network.num_classes) for _ in range(2))  # type: ignore[arg-type]

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.freeze_norm and self.start_weights is None:
            raise ValueError(
                "freeze_norm keeps the norms of start_weights: give a run of stage 2, or freeze_norm false"
            )
        super().setup(stage)
        if stage == "fit":
            self.train()  # Lightning keeps the modes that it finds

    def train(self, mode: bool = True) -> "Segmenter":
        super().train(mode)
        if self.freeze_norm:
            for layer in self.norms:
                layer.eval()
        return self

    def segment(self, image: Tensor) -> Tensor:
        """Classes int64 [N, H, W] of images uint8 [N, 3, H, W] of any size."""
        height, width = image.shape[-2:]
        return self(image)[..., :height, :width].argmax(1)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = pixel_cross_entropy(self(batch["image"]), batch["mask"])
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate("val", batch, self.val_miou)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate("test", batch, self.test_miou)

    def _evaluate(self, split: str, batch: Batch, miou: MeanIoU) -> None:
        miou.update(self.segment(batch["image"]), batch["mask"])
        self.log(f"{split}/miou", miou, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch["mask"]))

    def configure_optimizers(self) -> Any:
        named = [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]
        body = [p for name, p in named if not name.startswith("head.")]
        head = [p for name, p in named if name.startswith("head.")]
        groups = [body, [p for p in head if p.ndim > 1], [p for p in head if p.ndim == 1]]
        optimizer = self.optimizer([{"params": group} for group in groups])
        for group, factor in zip(optimizer.param_groups, HEAD_RATES, strict=True):
            group["lr"] *= factor
        return with_schedule(optimizer, self.lr_scheduler, self.lr_interval)
