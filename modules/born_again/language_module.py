"""Born-again language models as a LightningModule: as for images, with a state carried from window to window."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from modules.born_again.losses import ban_with_labels, labels_only
from modules.born_again.module import Loss
from modules.born_again.perplexity import Perplexity
from modules.components.frozen import Frozen
from modules.components.language import State
from modules.components.teachers import check_teacher, load_teacher

Batch = dict[str, Any]
Network = Callable[[Tensor, State | None], tuple[Tensor, State]]


class Reader:
    """A network and the state it reads on with."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.state: State | None = None

    def __call__(self, inputs: Tensor, reset: bool) -> Tensor:
        """Inputs [T, N] or [T, N, L] -> logits [T, N, V]; ``reset`` forgets what was read before."""
        logits, (hidden, cell) = self.network(inputs, None if reset else self.state)
        self.state = (hidden.detach(), cell.detach())  # gradients end at the window
        return logits


class BornAgainLanguageModel(LightningModule):
    """Train ``student`` on the next word, and on what ``teacher`` expects; see ``BornAgainClassifier``.

    The teacher reads the same windows with a state of its own. ``val/perplexity`` and ``test/perplexity`` are those of
    the whole text.

    Args:
        student: makes a network of tokens [T, N] (or ``chars`` [T, N, L]) and a state -> logits [T, N, V] and the
            state, with first weights of its own.
        inputs: which of the batch's entries the networks read.
        loss: of student's logits, teacher's logits and targets. The paper found that only BAN+L works here.
        sum_steps: the loss is a mean over streams but a sum over the steps of a window, as in Zaremba et al., whose
            learning rates near 1 it fits; otherwise the mean over both.
        optimizer: called with the student's trainable parameters.
        lr_scheduler: called with the optimizer and stepped after every epoch, with ``val/perplexity`` where it asks.
        teacher: makes that of the first generation, where there is one already.
        teacher_weights: a checkpoint of this module whose student has ``teacher``'s form.
    """

    teacher: Frozen | None

    def __init__(
        self,
        student: Callable[[], nn.Module],
        inputs: Literal["tokens", "chars"] = "tokens",
        loss: Loss = ban_with_labels,
        sum_steps: bool = True,
        optimizer: OptimizerCallable = torch.optim.SGD,
        lr_scheduler: LRSchedulerCallable | None = None,
        teacher: Callable[[], nn.Module] | None = None,
        teacher_weights: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if inputs not in ("tokens", "chars"):
            raise ValueError(f"inputs must be tokens or chars, got {inputs!r}")
        self.make_student, self.student = student, student()
        self.inputs, self.loss, self.sum_steps = inputs, loss, sum_steps
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        check_teacher(teacher, teacher_weights)
        self.teacher = None if teacher is None else Frozen(teacher())
        self.teacher_weights = teacher_weights
        self.readers: dict[str, Reader] = {}
        self.resumed: dict[str, State] = {}
        self.val_perplexity, self.test_perplexity = Perplexity(), Perplexity()

    def setup(self, stage: str) -> None:
        if stage == "predict":
            raise ValueError("a language model has a number for a whole text, its perplexity: test prints it")
        if stage == "fit" and self.teacher is not None and self.teacher_weights is not None:
            load_teacher(self.teacher, self.teacher_weights, "student")

    def on_train_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device)

    def forward(self, inputs: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """One window and the state before it -> logits [T, N, V] and the state behind it."""
        return self.student(inputs, state)

    def read(self, use: str, network: Network, batch: Batch, batch_index: int = 0) -> Tensor:
        """Logits [T, N, V] of a window; training and evaluation, student and teacher keep their states apart."""
        reader = self.readers.get(use)
        if reader is None or reader.network is not network:
            reader = self.readers[use] = Reader(network)
        resumed, reset = self.resumed.pop(use, None), batch["reset"]
        if resumed is not None and batch_index > 0 and resumed[0].shape[1] == batch["targets"].shape[1]:
            reader.state, reset = (resumed[0].to(self.device), resumed[1].to(self.device)), False
        return reader(batch[self.inputs], reset)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """The states of training on all ranks: a run goes on in the middle of a text. Called on all ranks at once."""
        kept = {use: self.readers[use].state for use in ("train", "teacher") if use in self.readers}
        own = {use: [part.cpu() for part in state] for use, state in kept.items() if state is not None}
        ranks: list[Any] = [own]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            ranks *= torch.distributed.get_world_size()
            torch.distributed.all_gather_object(ranks, own)
        checkpoint["states"] = ranks

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ranks = checkpoint.get("states", [])
        if self.global_rank < len(ranks):
            self.resumed = dict(ranks[self.global_rank])

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        targets = batch["targets"]
        logits = self.read("train", self.student, batch, batch_index)
        if self.teacher is None:
            loss = labels_only(logits, targets)
        else:
            loss = self.loss(logits, self.read("teacher", self.teacher, batch, batch_index), targets)
        self.log("train/loss", loss, prog_bar=True, batch_size=targets.numel())
        return loss * len(targets) if self.sum_steps else loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        log_probabilities = self.read("val", self.student, batch).float().log_softmax(-1)
        self.val_perplexity.update(log_probabilities, batch["targets"])
        self.log("val/perplexity", self.val_perplexity, prog_bar=True, batch_size=1)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        log_probabilities = self.read("test", self.student, batch).float().log_softmax(-1)
        self.test_perplexity.update(log_probabilities, batch["targets"])
        self.log("test/perplexity", self.test_perplexity, batch_size=1)

    def evaluate(
        self, networks: Mapping[int, Frozen], groups: Mapping[str, Sequence[int]], batches: Iterable[Batch]
    ) -> dict[str, Tensor]:
        """Perplexity of the mean of each group's probabilities, over all ranks."""
        readers = {g: Reader(network) for g, network in networks.items()}
        perplexities = {name: Perplexity().to(self.device) for name in groups}
        for batch in batches:
            logits = {g: reader(batch[self.inputs], batch["reset"]) for g, reader in readers.items()}
            logs = {g: value.float().log_softmax(-1) for g, value in logits.items()}
            for name, members in groups.items():
                mean = torch.stack([logs[g] for g in members]).logsumexp(0) - math.log(len(members))
                perplexities[name].update(mean, batch["targets"])
        return {f"{name}/perplexity": metric.compute() for name, metric in perplexities.items()}

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([p for p in self.student.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        scheduler = {"scheduler": self.lr_scheduler(optimizer), "interval": "epoch", "monitor": "val/perplexity"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
