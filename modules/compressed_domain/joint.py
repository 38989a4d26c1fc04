"""Stage 4: codec and classifier trained together."""

from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from modules.components.coding.model_file import take_weights
from modules.components.options import at_least
from modules.compressed_domain.checkpoints import codebook_entry, load_classifier
from modules.compressed_domain.losses import check_labels, missed
from modules.compressed_domain.metrics import TopErrors
from modules.compressed_domain.module import LrInterval, RateDistortion, padded, with_schedule
from modules.compressed_domain.nets import CompressionNet, check_channels

Batch = dict[str, Any]


class JointModel(RateDistortion):
    """gamma (MSE + beta max(H - H_t, 0)) + cross-entropy (sheet 4), all weights trained.

    The gradient of the cross-entropy reaches the encoder through the quantiser's soft assignment. Logged are the
    figures of the codec, of which codec.py takes the checkpoints, and of the classifier.

    Args:
        network: the codec.
        classifier: ``CodeResNet`` on its codes.
        codec_weights, start_weights: checkpoints of stages 1 and 2 to start from.
        gamma: of the codec's loss, whose MSE is on 0..255.
        target_entropy, beta: as for ``RateDistortion``.
        optimizer: called with all parameters.
        lr_scheduler: called with the optimizer.
        lr_interval: what the schedule counts.

    Raises:
        ValueError: for a classifier that does not work on codes, or on codes of other channels; for a negative gamma;
            at the start of a fit for missing weights; for a label that is no class.
        FileNotFoundError, CheckpointError: at the start of a fit, for weights that are missing or of other sizes.
    """

    def __init__(
        self,
        network: CompressionNet,
        classifier: nn.Module,
        codec_weights: str | None = None,
        start_weights: str | None = None,
        gamma: float = 0.001,
        target_entropy: float = 1.265,
        beta: float = 150.0,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        lr_interval: LrInterval = "epoch",
    ) -> None:
        super().__init__(network, target_entropy, beta)
        if not classifier.on_code:
            raise ValueError(f"joint training needs a classifier on codes, not {type(classifier).__name__}")
        check_channels(classifier, network.channels)
        at_least(0, gamma=gamma)
        self.save_hyperparameters()
        self.classifier = classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.codec_weights, self.start_weights, self.gamma = codec_weights, start_weights, gamma
        self.optimizer, self.lr_scheduler, self.lr_interval = optimizer, lr_scheduler, lr_interval
        self.val_errors, self.test_errors = TopErrors(), TopErrors()

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        if self.codec_weights is None or self.start_weights is None:
            raise ValueError(
                "joint training needs codec_weights, a run of stage 1, and start_weights, a run of stage 2"
            )
        take_weights(self.network, self.codec_weights)
        load_classifier(self.classifier, self.start_weights, self.network)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["codebook"] = codebook_entry(self.network)

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        check_labels(batch["label"], self.classifier.num_classes)  # type: ignore[arg-type]
        return batch

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x = padded(batch["image"])
        out = self.network(x)
        logits = self.classifier(out.code.values)
        cross_entropy = functional.cross_entropy(logits.float(), batch["label"])
        loss = self.gamma * self.rate_distortion(x, out) + cross_entropy
        self.log("train/loss", loss.detach())
        self.log("train/cross_entropy", cross_entropy.detach(), prog_bar=True)
        self.log("train/error", missed(logits.detach(), batch["label"]).mean())
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate("test", batch)
        self.log_files(batch["image"])

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Class probabilities [N, K]."""
        logits: Tensor = self.classifier(self.network.encode(padded(batch["image"])).values)
        return logits.float().softmax(1)

    def _evaluate(self, split: str, batch: Batch) -> None:
        logits = self.classifier(self.log_figures(split, batch["image"]).code.values)
        errors = self.val_errors if split == "val" else self.test_errors
        for name, metric in errors.update(logits, batch["label"]).items():
            self.log(f"{split}/{name}", metric, on_step=False, on_epoch=True, prog_bar=name == "error")

    def configure_optimizers(self) -> Any:
        return with_schedule(self.optimizer(self.parameters()), self.lr_scheduler, self.lr_interval)
