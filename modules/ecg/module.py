"""ECG classification as a LightningModule: signal, augmentation, log-spectrogram, network, weighted loss."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor

from modules.ecg.augmentation import Augmentation
from modules.ecg.inference import CLASSES
from modules.ecg.losses import published_weights, weighted_cross_entropy
from modules.ecg.metrics import ChallengeF1
from modules.ecg.nets import CNN, CRNN, Classification
from modules.ecg.spectrogram import LogSpectrogram, num_frames
from modules.ecg.views import AS_IT_IS, check_views, log_mean_probabilities, outputs_of_views

Batch = dict[str, Any]


class ECG(LightningModule):
    """Classify padded records into N, A, O and ~ (noisy).

    ``val/f1`` and ``test/f1`` are the challenge's score, in 0..1; ``matrices`` gives the counts behind them. Under DDP
    a CRNN needs the strategy ``ddp_find_unused_parameters_true``.

    Args:
        network: ``CNN`` or ``CRNN``.
        augmentation: of training batches; None trains on the records as they are.
        truncate_spectrogram: the whole-number logarithms of the authors' code.
        class_weights: of the loss: ``published``, one number per class, or None.
        reduction: of the loss over the batch; the code takes the sum.
        optimizer: called with the trainable parameters.
        lr_scheduler: called with the optimizer and stepped after every batch.
        augmentation_seed: of its random numbers, with rank, epoch and batch.
        views: stretches of a record over which validation, test and predict average its probabilities.

    Raises:
        ValueError: for another number of class weights than classes or impossible views; at the start of a fit of a
            CRNN under DDP that does not look for unused parameters.
    """

    def __init__(
        self,
        network: CNN | CRNN,
        augmentation: Augmentation | None = None,
        truncate_spectrogram: bool = False,
        class_weights: Literal["published"] | Sequence[float] | None = "published",
        reduction: Literal["sum", "mean"] = "sum",
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        augmentation_seed: int = 0,
        views: Sequence[float] = AS_IT_IS,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spectrogram = LogSpectrogram(truncate_spectrogram)
        self.augmentation = augmentation
        weights = published_weights() if class_weights == "published" else class_weights
        weights = None if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        num_classes = network.classifier.out_features
        if weights is not None and weights.shape != (num_classes,):
            raise ValueError(f"class_weights must be one number for each of {num_classes} classes, got {class_weights}")
        self.register_buffer("class_weights", weights, persistent=False)
        self.reduction = reduction
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.augmentation_seed = augmentation_seed
        self.views = check_views(views, network)
        self.train_f1, self.val_f1, self.test_f1 = ChallengeF1(), ChallengeF1(), ChallengeF1()

    class_weights: Tensor | None

    def setup(self, stage: str) -> None:
        strategy = self.trainer.strategy
        if stage != "fit" or not isinstance(self.network, CRNN) or not isinstance(strategy, DDPStrategy):
            return
        if not strategy._ddp_kwargs.get("find_unused_parameters"):
            raise ValueError(
                "a CRNN never trains all of its parameters at once, which DDP must know: "
                "add --trainer.strategy ddp_find_unused_parameters_true"
            )

    def forward(self, signal: Tensor, length: Tensor) -> Classification:
        """Signal [N, T] in 1/1000 mV at 300 Hz and its samples [N] -> logits and their course over time."""
        return self.network(self.spectrogram(signal), num_frames(length))

    def log_probabilities(self, batch: Batch) -> Tensor:
        """[N, K], of the mean over the views."""
        return log_mean_probabilities(outputs_of_views(self, batch["signal"], batch["length"], self.views))

    def loss(self, output: Classification, label: Tensor) -> Tensor:
        return weighted_cross_entropy(output.logits, label, self.class_weights, self.reduction)

    def batch_generator(self, batch_index: int) -> torch.Generator:
        """Random numbers that follow from seed, rank, epoch and batch alone, so that a resumed run draws the same."""
        key = (self.augmentation_seed, self.global_rank, self.current_epoch, batch_index)
        return torch.Generator(self.device).manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        signal, length, label = batch["signal"], batch["length"], batch["label"]
        if self.augmentation is not None:
            signal, length = self.augmentation(signal, length, self.batch_generator(batch_index))
        output = self(signal, length)
        loss = self.loss(output, label)
        self.train_f1.update(output.logits.detach(), label)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(label))
        self.log("train/f1", self.train_f1, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        output = self.log_probabilities(batch)
        self.val_f1.update(output, batch["label"])
        self.log("val/f1", self.val_f1, prog_bar=True)
        loss = weighted_cross_entropy(output, batch["label"], self.class_weights, "mean")
        self.log("val/loss", loss, batch_size=len(batch["label"]), sync_dist=True)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.test_f1.update(self.log_probabilities(batch), batch["label"])
        self.log("test/f1", self.test_f1)

    def predict_step(self, batch: Batch, batch_index: int) -> dict[str, Any]:
        """Names of the batch's records and their probabilities [N] of each class."""
        probabilities = self.log_probabilities(batch).exp()
        return {"name": batch["name"], **dict(zip(CLASSES, probabilities.unbind(1), strict=True))}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the counts of an epoch that is under way, of all ranks, so that its score is that of the whole."""
        counts = self.train_f1.matrix().cpu()
        is_over = self.trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        checkpoint["train_confusion"] = torch.zeros_like(counts) if is_over else counts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.global_rank == 0 and "train_confusion" in checkpoint:
            self.train_f1.confusion = checkpoint["train_confusion"].to(self.train_f1.confusion)

    def matrices(self) -> dict[str, Tensor]:
        """Confusion matrices [K, K] counted so far, rows the true class; a collective."""
        return {"val": self.val_f1.matrix(), "test": self.test_f1.matrix()}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}
