"""Born-again image classification as a LightningModule: student, teacher, loss."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from modules.born_again.losses import ban, labels_only
from modules.components.frozen import Frozen
from modules.components.image_normalization import ImageNormalization
from modules.components.mean import Mean
from modules.components.teachers import check_teacher, load_teacher

Batch = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def wrong(logits: Tensor, label: Tensor) -> Tensor:
    """Percentage [N], 0 or 100, of misclassification."""
    return 100.0 * (logits.argmax(1) != label).float()


class BornAgainClassifier(LightningModule):
    """Train ``student`` on labels, or as ``teacher`` has it; ``callbacks.generations`` turns one into the other.

    ``val/error`` and ``test/error`` are percentages of misclassified images.

    Args:
        student: makes a network of normalised images [N, 3, H, W] -> logits [N, K], with first weights of its own.
        loss: of student's logits, teacher's logits and labels: one of ``modules.born_again.losses``.
        optimizer: called with the student's trainable parameters.
        lr_scheduler: called with the optimizer and stepped after every epoch.
        teacher: makes that of the first generation, where there is one already; may be another than the student.
        teacher_weights: a checkpoint of this module whose student has ``teacher``'s form, such as generation_0.ckpt;
            goes with ``teacher``.
        mean, std: of the three channels, in 0..1.

    Raises:
        ValueError: for a teacher without weights or the other way round, or weights of another network.
        FileNotFoundError: at the start of a fit, if ``teacher_weights`` does not exist.
    """

    teacher: Frozen | None

    def __init__(
        self,
        student: Callable[[], nn.Module],
        loss: Loss = ban,
        optimizer: OptimizerCallable = torch.optim.SGD,
        lr_scheduler: LRSchedulerCallable | None = None,
        teacher: Callable[[], nn.Module] | None = None,
        teacher_weights: str | None = None,
        mean: Sequence[float] = CIFAR10_MEAN,
        std: Sequence[float] = CIFAR10_STD,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.make_student = student
        self.student = student().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss, self.optimizer, self.lr_scheduler = loss, optimizer, lr_scheduler
        check_teacher(teacher, teacher_weights)
        self.teacher = None if teacher is None else Frozen(teacher().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
        self.teacher_weights = teacher_weights
        self.normalized = ImageNormalization(mean, std)
        self.train_error, self.val_error, self.test_error = Mean(), Mean(), Mean()

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.teacher is not None and self.teacher_weights is not None:
            load_teacher(self.teacher, self.teacher_weights, "student")

    def on_train_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device)

    def forward(self, image: Tensor) -> Tensor:
        """uint8 [N, 3, H, W] -> logits [N, K]."""
        return self.student(self.normalized(image))

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        x, label = self.normalized(batch["image"]), batch["label"]
        logits = self.student(x)
        loss = labels_only(logits, label) if self.teacher is None else self.loss(logits, self.teacher(x), label)
        self.train_error.update(wrong(logits.detach(), label))
        self.log("train/loss", loss, prog_bar=True, batch_size=len(label))
        self.log("train/error", self.train_error, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        logits = self(batch["image"])
        self.val_error.update(wrong(logits, batch["label"]))
        self.log("val/error", self.val_error, prog_bar=True)
        loss = labels_only(logits, batch["label"])
        self.log("val/loss", loss, batch_size=len(batch["label"]), sync_dist=True)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        self.test_error.update(wrong(self(batch["image"]), batch["label"]))
        self.log("test/error", self.test_error)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Class probabilities [N, K]."""
        return self(batch["image"]).float().softmax(1)

    def evaluate(
        self, networks: Mapping[int, Frozen], groups: Mapping[str, Sequence[int]], batches: Iterable[Batch]
    ) -> dict[str, Tensor]:
        """Error in percent and negative log-likelihood in nats of each group's mean probabilities, over all ranks."""
        scores = {f"{name}/{kind}": Mean().to(self.device) for name in groups for kind in ("error", "nll")}
        for batch in batches:
            x = self.normalized(batch["image"])
            log_probabilities = {g: network(x).float().log_softmax(1) for g, network in networks.items()}
            for name, members in groups.items():
                mean = torch.stack([log_probabilities[g] for g in members]).logsumexp(0) - math.log(len(members))
                scores[f"{name}/error"].update(wrong(mean, batch["label"]))
                scores[f"{name}/nll"].update(nll_loss(mean, batch["label"], reduction="none"))
        return {name: metric.compute() for name, metric in scores.items()}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.student.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "epoch"},
        }
