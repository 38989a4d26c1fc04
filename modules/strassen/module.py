"""StrassenNets as a LightningModule: image classification under a multiplication budget."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn import functional

from modules.components.frozen import Frozen
from modules.components.image_normalization import ImageNormalization
from modules.components.mean import Mean
from modules.components.teachers import check_teacher, load_teacher
from modules.strassen.counting import Cost, count
from modules.strassen.losses import check_weights, distillation

Batch = dict[str, Tensor]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def missed(logits: Tensor, label: Tensor, top: int = 1) -> Tensor:
    """Percentage [N], 0 or 100: the label is not among the ``top`` best."""
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return 100.0 * (best != label.unsqueeze(1)).all(1).float()


def check_labels(label: Tensor, logits: Tensor) -> None:
    """Raise a ValueError for labels that the network has no logit for; on a GPU, which would wait, nothing is done."""
    if label.device.type == "cpu" and int(label.max()) >= logits.shape[1]:
        raise ValueError(
            f"the data have a class {int(label.max())}, the network has {logits.shape[1]} classes: set num_classes"
        )


class StrassenClassifier(LightningModule):
    """Train ``network``, an ordinary one or one with SPN layers, on labels and, with a teacher, on its logits.

    ``callbacks.training_phases`` leads an SPN network through its stages. ``val/error`` and ``test/error`` are
    percentages of misclassified images, ``.../error_top5`` of images whose label is not among the best five.

    Args:
        network: normalised images [N, 3, H, W] -> logits [N, K].
        optimizer: called with the parameters.
        lr_scheduler: called with the optimizer and stepped after every epoch.
        teacher: the full-precision network, with
        teacher_weights: a checkpoint of this module that holds it.
        lmbda, temperature: of ``losses.distillation``.
        mean, std: of the three channels, in 0..1.

    Raises:
        ValueError: for a teacher without weights or the other way round, weights of another network, or ``lmbda`` or
            ``temperature`` without a teacher; in training, for a teacher or labels with other classes than the network.
        FileNotFoundError: at the start of a fit, if ``teacher_weights`` does not exist.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable = torch.optim.SGD,
        lr_scheduler: LRSchedulerCallable | None = None,
        teacher: nn.Module | None = None,
        teacher_weights: str | None = None,
        lmbda: float = 0.5,
        temperature: float = 1.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_teacher(teacher, teacher_weights)
        check_weights(lmbda, temperature)
        if teacher is None and (lmbda, temperature) != (0.5, 1.0):
            raise ValueError(f"lmbda {lmbda} and temperature {temperature} act with a teacher only: give one")
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.teacher = None if teacher is None else Frozen(teacher.to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.teacher_weights, self.lmbda, self.temperature = teacher_weights, lmbda, temperature
        self.normalized = ImageNormalization(mean, std)
        names = ("train/error", "val/error", "val/error_top5", "test/error", "test/error_top5")
        self.errors = nn.ModuleDict({name.replace("/", "_"): Mean() for name in names})

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.teacher is not None and self.teacher_weights is not None:
            load_teacher(self.teacher, self.teacher_weights, "network")

    def on_train_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> logits [N, K]."""
        return self.network(self.normalized(image))

    def costs(self, batch: Batch) -> list[Cost]:
        """Multiplications, additions and bits of each layer for one image of the batch's size."""
        return count(self.network, self.normalized(batch["image"][:1]))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x, label = self.normalized(batch["image"]), batch["label"]
        logits = self.network(x)
        check_labels(label, logits)
        if self.teacher is None:
            loss = functional.cross_entropy(logits, label)
        else:
            known = self.teacher(x)
            if known.shape != logits.shape:
                raise ValueError(f"the teacher has {known.shape[1]} classes, the network {logits.shape[1]}: give one")
            loss = distillation(logits, known, label, self.lmbda, self.temperature)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(label))
        self.log_error("train/error", logits.detach(), label)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self.evaluation_step("val", batch)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.evaluation_step("test", batch)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Class probabilities [N, K]."""
        return self(batch["image"]).float().softmax(1)

    def evaluation_step(self, split: str, batch: Batch) -> None:
        logits, label = self(batch["image"]), batch["label"]
        check_labels(label, logits)
        self.log_error(f"{split}/error", logits, label)
        self.log_error(f"{split}/error_top5", logits, label, 5)
        loss = functional.cross_entropy(logits, label)
        self.log(f"{split}/loss", loss, batch_size=len(label), sync_dist=True)

    def log_error(self, name: str, logits: Tensor, label: Tensor, top: int = 1) -> None:
        metric = self.errors[name.replace("/", "_")]
        assert isinstance(metric, Mean)
        metric.update(missed(logits, label, top))
        self.log(name, metric, on_step=False, on_epoch=True, prog_bar=name == "val/error")

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.network.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "epoch"},
        }
