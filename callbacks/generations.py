"""Born-again training: one ``fit`` trains a network, then fresh ones of which each is taught by the one before."""

import copy
import itertools
import json
import math
import zlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytorch_lightning
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import WandbLogger
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from callbacks.reports.generation_curves import curves_figure
from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.frozen import Frozen

Weights = dict[str, Tensor]
BornAgain = Any
"""A LightningModule with ``student`` and ``teacher``: see ``Generations``."""


class Kept(NamedTuple):
    """What is known of a generation's weights, in checkpoints and in generations.json."""

    generation: int
    epoch: int
    """Of the whole run, counted from 0."""
    score: float
    """The monitored metric there."""
    checksum: int
    """CRC-32 of the weights."""


def reset(network: nn.Module) -> None:
    """Draw all weights anew with the ``reset_parameters`` of the network or, if it has none, of its parts.

    Raises:
        ValueError: for a part with weights or buffers that cannot be drawn anew.
    """
    method = getattr(network, "reset_parameters", None)
    if callable(method):
        method()
        return
    own = [*network.parameters(recurse=False), *network.buffers(recurse=False)]
    if own:
        raise ValueError(f"a {type(network).__name__} has weights but no reset_parameters() to start a generation with")
    for part in network.children():
        reset(part)


def start_anew(network: nn.Module, seed: int) -> None:
    """Put fresh weights into the parameters that are there; the same for a seed on every device and rank."""
    fresh = copy.deepcopy(network).cpu()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reset(fresh)
    network.load_state_dict(fresh.state_dict())


def checksum(weights: Weights) -> int:
    crc = 0
    for name in sorted(weights):
        crc = zlib.crc32(weights[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data, crc)
    return crc


def is_plain(value: Any) -> bool:
    """Whether a file with it can be read by ``weights_only``: values, tensors, and lists and dicts of these."""
    if type(value) in (list, tuple):
        return all(is_plain(item) for item in value)
    if type(value) is dict:
        return all(is_plain(item) for pair in value.items() for item in pair)
    return value is None or type(value) in (bool, int, float, str, Tensor)


def read(path: Path) -> tuple[Kept, Weights]:
    """What a generation's file says of itself, and the module's weights, mapped, not read.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: for a damaged file, or another one.
    """
    content = read_checkpoint(path, mmap=True)
    try:
        return Kept(*content["generation"]), content["state_dict"]
    except (KeyError, TypeError):
        raise CheckpointError(f"{path} is not a generation's file; put the right one there") from None


def ensembles(generations: list[int]) -> dict[str, list[int]]:
    """Each generation alone, and the paper's Ens*m: the first m that had a teacher."""
    taught = [g for g in generations if g > 0]
    groups = {f"gen{g}": [g] for g in generations}
    return groups | {f"ens{m}": taught[:m] for m in range(2, len(taught) + 1)}


class Generations(Callback):
    """Run a chain of ``1 + generations`` networks through the trainer's epochs, one after the other.

    The trainer's ``max_epochs`` is the length of one generation; the run has ``1 + generations`` times as many.
    At the start of a generation's first epoch the weights that were kept of the generation before become the teacher,
    the student's parameters are drawn anew (seeded by ``seed`` and the generation), optimizers, schedules, gradient
    scaler and weight average start empty, and the order of the data goes on to new epochs. Nothing else is touched, so
    it works with any strategy, precision and accumulation.

    Of ``pl_module`` it needs ``student``, an ``nn.Module`` whose ``reset_parameters`` (or those of its parts) draw it
    anew, and ``teacher``, None or a ``Frozen``. It sets ``teacher`` and, if there is one, ``generation``. A module that
    is given a teacher from the start begins with generation 1. A student with a method ``inherit`` is handed
    the teacher's network after its weights were drawn.

    The weights kept are those that a validation ran on (the average, under weight averaging): the best, or the last
    (as published). They are in ``<dirpath>/generation_<g>.ckpt``, checkpoints for test, predict and
    ``load_from_checkpoint``; generations.json and generations.png beside the folder show their scores. A run resumes
    anywhere from a checkpoint and the file of the generation before.

    With ``pl_module.evaluate(networks, groups, batches)``, which gives ``{<name of group>/<metric>: value}`` for
    ``networks`` {generation: Frozen} and ``groups`` {name: generations whose probabilities are averaged},
    every generation and the ensembles are evaluated at the end of the fit and by test: ``gen2/test/error``,
    ``ens3/test/error``. Each validation's metrics are also logged as ``gen2/val/error``.

    Args:
        generations: taught by another network, after the first one, which learns from labels.
        dirpath: where checkpoints go.
        monitor: logged by validation.
        mode: ``min`` or ``max``: which of its values is best.
        keep: ``last`` or ``best`` weights of a generation.
        seed: of the students' first weights.

    Raises:
        ValueError: for a trainer without a number of epochs or validation at a generation's end, or a student that
            cannot be drawn anew.
        FileNotFoundError: if a resumed run misses its teacher's file.
    """

    def __init__(
        self,
        generations: int,
        dirpath: str,
        monitor: str = "val/error",
        mode: Literal["min", "max"] = "min",
        keep: Literal["last", "best"] = "last",
        seed: int = 0,
    ) -> None:
        if generations < 0:
            raise ValueError(f"generations must be at least 0, got {generations}")
        if mode not in ("min", "max") or keep not in ("last", "best"):
            raise ValueError(f"mode must be min or max and keep last or best, got {mode!r} and {keep!r}")
        self.count, self.dirpath, self.monitor = generations, Path(dirpath), monitor
        self.sign, self.keep, self.seed = 1.0 if mode == "max" else -1.0, keep, seed
        self.epochs = 0
        self.generation, self.first = 0, 0
        self.kept: dict[int, Kept] = {}
        self.history: list[tuple[int, int, float]] = []
        """(generation, its epoch, monitored value) of every validation."""
        self.evaluated: Weights = {}
        self.scaler: torch.amp.GradScaler | None = None

    def path(self, generation: int) -> Path:
        return self.dirpath / f"generation_{generation}.ckpt"

    def state_dict(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "generation": self.generation,
            "first": self.first,
            "kept": [list(kept) for kept in self.kept.values()],
            "history": [list(point) for point in self.history],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        epochs = state_dict.get("epochs", self.epochs)  # older checkpoints do not say
        if self.epochs not in (0, epochs):  # 0 outside of a fit
            raise ValueError(
                f"the run's generations have {epochs} epochs: it cannot go on with max_epochs={self.epochs}"
            )
        self.generation, self.first = state_dict["generation"], state_dict["first"]
        self.kept = {entry[0]: Kept(*entry) for entry in state_dict["kept"]}
        self.history = [(generation, epoch, value) for generation, epoch, value in state_dict["history"]]

    def setup(self, trainer: Trainer, pl_module: BornAgain, stage: str) -> None:
        if stage != "fit" or self.epochs:
            return
        # Frozen now, what a student inherits is unknown to optimizers and DDP; the weights may be read only later.
        self._hand_down(pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.epochs = 1
            return
        epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
        if epochs is None or epochs < 1 or trainer.max_steps != -1:
            raise ValueError("a generation's length is trainer.max_epochs, so it must be set, and max_steps must not")
        if every is None or epochs % every or not trainer.enable_validation:
            raise ValueError("a generation must end with a validation: let check_val_every_n_epoch divide max_epochs")
        self.epochs = epochs
        self.scaler = copy.deepcopy(getattr(trainer.precision_plugin, "scaler", None))  # unused, with its settings
        start_anew(copy.deepcopy(pl_module.student), 0)  # a student that cannot be is told now, not hours later
        self.first = self.generation = 0 if pl_module.teacher is None else 1
        trainer.fit_loop.max_epochs = epochs * (1 + self.count - self.first)

    def on_fit_start(self, trainer: Trainer, pl_module: BornAgain) -> None:
        if trainer.ckpt_path is None:
            self._hand_down(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: BornAgain) -> None:
        """Give a resumed run its teacher back."""
        batches, every = trainer.num_training_batches, trainer.val_check_batch
        if every is None or (math.isfinite(every) and batches % every):
            raise ValueError(
                f"a generation must end with a validation: let val_check_interval divide {batches} batches"
            )
        if self.generation > self.first:
            pl_module.teacher = self._frozen(pl_module, self.generation - 1)
        pl_module.generation = self.generation

    def on_train_epoch_start(self, trainer: Trainer, pl_module: BornAgain) -> None:
        if trainer.current_epoch // self.epochs > self.generation - self.first:
            self._next_generation(trainer, pl_module)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: BornAgain, *args: Any) -> None:
        if not self.evaluated and trainer.state.fn == "fit" and not trainer.sanity_checking:
            weights = pl_module.student.state_dict()
            self.evaluated = {name: value.detach().to("cpu", copy=True) for name, value in weights.items()}

    def on_validation_end(self, trainer: Trainer, pl_module: BornAgain) -> None:
        weights, self.evaluated = self.evaluated, {}
        if not weights:
            return
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise ValueError(f"Generations monitors {self.monitor}, but validation logged {known}")
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # it leaves no files, and above all keeps those that are there
        epoch = trainer.current_epoch - self.epochs * (self.generation - self.first)
        self.history.append((self.generation, epoch, float(value)))
        kept: Any = None
        if trainer.is_global_zero:
            kept = self._keep(pl_module, float(value), weights)
        # Ranks differ in the statistics of their batch norms: the weights that count are those of the file.
        self.kept[self.generation] = trainer.strategy.broadcast(kept)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: BornAgain) -> None:
        metrics = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        pl_module.log_dict({f"gen{self.generation}/{name}": value for name, value in metrics.items()})
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: BornAgain) -> None:
        found = (read(path)[0] for path in self.dirpath.glob("generation_*.ckpt") if path.stem[11:].isdigit())
        self.kept = {kept.generation: kept for kept in found}
        self._evaluate(trainer, pl_module, "test")

    def _next_generation(self, trainer: Trainer, pl_module: BornAgain) -> None:
        pl_module.teacher = self._frozen(pl_module, self.generation)
        self.generation += 1
        pl_module.generation = self.generation
        start_anew(pl_module.student, self.seed + self.generation)
        self._hand_down(pl_module)
        trainer.strategy.setup_optimizers(trainer)
        if self.scaler is not None:
            trainer.precision_plugin.scaler = copy.deepcopy(self.scaler)  # type: ignore[attr-defined]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            average = getattr(callback, "_average_model", None)
            if average is not None:
                average.n_averaged.zero_()  # the next update copies the weights
                average.module.load_state_dict(pl_module.state_dict())  # a validation may come before it

    def _hand_down(self, pl_module: BornAgain) -> None:
        inherit = getattr(pl_module.student, "inherit", None)
        if pl_module.teacher is not None and callable(inherit):
            inherit(pl_module.teacher.network)  # type: ignore[union-attr]

    def _keep(self, pl_module: BornAgain, score: float, weights: Weights) -> Kept:
        """Write the weights, unless better ones of this generation are to stay; what the file then holds."""
        before = self.kept.get(self.generation)
        if self.keep == "best" and before is not None and not math.isnan(before.score):
            is_better = self.sign * score >= self.sign * before.score  # equal scores count as better, NaN does not
            if not is_better and self._holds(before):
                return before
        kept = Kept(self.generation, pl_module.current_epoch, score, checksum(weights))
        self._write(pl_module, kept, weights)
        return kept

    def _holds(self, kept: Kept) -> bool:
        """False where a run that was killed, or went on elsewhere, after the checkpoint has left other weights."""
        try:
            return read(self.path(kept.generation))[0].checksum == kept.checksum
        except (FileNotFoundError, ValueError):
            return False

    def _write(self, pl_module: BornAgain, kept: Kept, weights: Weights) -> None:
        content: dict[str, Any] = {
            "state_dict": pl_module.state_dict() | {f"student.{name}": value for name, value in weights.items()},
            "generation": list(kept),
            "epoch": kept.epoch,
            "global_step": pl_module.global_step,
            "pytorch-lightning_version": pytorch_lightning.__version__,
            # A network that python code gave is no plain value; it is to be given again to load_from_checkpoint.
            pl_module.CHECKPOINT_HYPER_PARAMS_KEY: {k: v for k, v in pl_module.hparams.items() if is_plain(v)},
        }
        if hasattr(pl_module, "_hparams_name"):
            content[pl_module.CHECKPOINT_HYPER_PARAMS_NAME] = pl_module._hparams_name
        self.dirpath.mkdir(parents=True, exist_ok=True)
        unfinished = self.path(kept.generation).with_suffix(".tmp")
        torch.save(content, unfinished)
        unfinished.replace(self.path(kept.generation))

    def _frozen(self, pl_module: BornAgain, generation: int) -> Frozen:
        """The kept weights of a generation in a network of their own, on the module's device."""
        path = self.path(generation)
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}, the weights of generation {generation}: the next one needs them")
        state = read(path)[1]
        weights = {name.removeprefix("student."): v for name, v in state.items() if name.startswith("student.")}
        kept = self.kept.get(generation)
        if kept is not None and kept.checksum != checksum(weights):
            raise ValueError(f"{path} is not the file that this run left: its weights are others")
        frozen = Frozen(pl_module.student)
        frozen.network.load_state_dict(weights)
        return frozen.to(pl_module.device)

    def _evaluate(self, trainer: Trainer, pl_module: BornAgain, split: str) -> None:
        evaluate = getattr(pl_module, "evaluate", None)
        if not callable(evaluate) or not self.kept:
            return
        networks = {g: self._frozen(pl_module, g) for g in sorted(self.kept)}
        loader: Any = trainer.val_dataloaders if split == "val" else trainer.test_dataloaders
        limit = (trainer.num_val_batches if split == "val" else trainer.num_test_batches)[0]
        count = None if math.isinf(limit) else int(limit)
        batches = (trainer.strategy.batch_to_device(b, dataloader_idx=0) for b in itertools.islice(loader, count))
        with trainer.precision_plugin.val_step_context():
            scores = evaluate(networks, ensembles(list(networks)), batches)
        pl_module.log_dict({name.replace("/", f"/{split}/", 1): value for name, value in scores.items()})
        if trainer.is_global_zero:
            named = {name: float(value) for name, value in scores.items()}
            self._report(split, named)
            if split == "val":
                self._draw(trainer, named)

    def _draw(self, trainer: Trainer, scores: dict[str, float]) -> None:
        file = self.dirpath.parent / "generations.png"
        curves_figure(self.history, scores, self.monitor).savefig(file, dpi=100)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("generations", [str(file)])

    def _report(self, split: str, scores: dict[str, float]) -> None:
        """Print the table and add it to generations.json."""
        groups = list(dict.fromkeys(name.split("/", 1)[0] for name in scores))
        metrics = list(dict.fromkeys(name.split("/", 1)[1] for name in scores))
        table = Table("", *(f"{split}/{metric}" for metric in metrics))
        for group in groups:
            table.add_row(group, *(f"{scores[f'{group}/{metric}']:.4g}" for metric in metrics))
        Console().print(table)
        file = self.dirpath.parent / "generations.json"
        content = json.loads(file.read_text()) if file.exists() else {}
        content[split] = scores
        if split == "val":
            content["kept"] = [kept._asdict() for kept in self.kept.values()]
        file.write_text(json.dumps(content, indent=2) + "\n")
