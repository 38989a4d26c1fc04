"""Born-again training: one ``fit`` trains a network, then fresh ones of which each is taught by the one before."""

import copy
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy

from callbacks.generation_files import GenerationFiles
from callbacks.reports.generation_curves import CurveLog, draw_curves
from callbacks.reports.generation_scores import (
    complete,
    evaluate_generations,
    papers_ensembles,
    print_scores,
    save_scores,
)
from modules.components.frozen import Frozen
from modules.components.students import BornAgain, Weights, born_again, on_cpu, start_anew
from modules.components.teachers import load_teacher


class Kept(NamedTuple):
    """Where a generation's weights come from."""

    generation: int
    epoch: int
    """Of the whole run, counted from 0."""
    score: float
    """The monitored metric there."""


class Generations(Callback):
    """Run a chain of ``1 + generations`` networks through the trainer's epochs, one after the other.

    The trainer's ``max_epochs`` is the length of one generation; the run has ``1 + generations`` times as many.
    At the start of a generation's first epoch the weights that were kept of the generation before become the teacher,
    a new student is made (seeded by ``seed`` and the generation), optimizers, schedules, gradient scaler and weight
    average start empty, and the order of the data goes on to new epochs. It works on one device and with DDP, in any
    precision and with accumulation.

    The module is a ``BornAgain`` and is told its ``generation``. One that is given a teacher from the start begins with
    generation 1. A student with a method ``inherit`` is handed the teacher's network when it was made.

    The weights kept are those that a validation ran on (the average, under weight averaging): the best, or the last
    (as published). They and the teacher's are in the run's checkpoints, so a run resumes anywhere from one of these
    alone. When a generation ends they become ``<dirpath>/generation_<g>.ckpt``, a checkpoint for test, predict and
    ``load_from_checkpoint``.

    With ``pl_module.evaluate(networks, groups, batches)``, which gives ``{<name of group>/<metric>: value}`` for
    ``networks`` {generation: Frozen} and ``groups`` {name: generations whose probabilities are averaged},
    every generation and the ensembles are evaluated at the end of the fit and by test: ``gen2/test/error``,
    ``ens3/test/error``. Beside the folder generations.json and generations.png show the scores. While training, all
    that is logged as ``train/...`` and ``val/...`` is also logged as ``gen2/train/...`` and ``gen2/val/...``.

    Args:
        generations: taught by another network, after the first one, which learns from labels.
        dirpath: where checkpoints go.
        monitor: logged by validation.
        mode: ``min`` or ``max``: which of its values is best.
        keep: ``last`` or ``best`` weights of a generation.
        seed: of the students' first weights.
        ensembles: name -> generations; by default the paper's, ``ens2`` = [1, 2], ``ens3`` = [1, 2, 3], ...

    Raises:
        ValueError: for a trainer without a number of epochs or validation at a generation's end, another strategy, a
            module that is no ``BornAgain``, ensembles of generations that there are not, or a ``fast_dev_run`` that
            should go on with a run.
    """

    def __init__(
        self,
        generations: int,
        dirpath: str,
        monitor: str = "val/error",
        mode: Literal["min", "max"] = "min",
        keep: Literal["last", "best"] = "last",
        seed: int = 0,
        ensembles: dict[str, list[int]] | None = None,
    ) -> None:
        if generations < 0:
            raise ValueError(f"generations must be at least 0, got {generations}")
        if mode not in ("min", "max") or keep not in ("last", "best"):
            raise ValueError(f"mode must be min or max and keep last or best, got {mode!r} and {keep!r}")
        for name, members in (ensembles or {}).items():
            if not name.isidentifier() or name.startswith("gen") or not members:
                raise ValueError(f"an ensemble is a word that is not gen... and its generations, got {name}: {members}")
        self.count, self.files, self.monitor = generations, GenerationFiles(Path(dirpath)), monitor
        self.sign, self.keep, self.seed, self.ensembles = 1.0 if mode == "max" else -1.0, keep, seed, ensembles
        self.epochs, self.is_trial = 0, False
        self.generation, self.first = 0, 0
        self.kept: dict[int, Kept] = {}
        self.history: list[tuple[int, int, float]] = []
        """(generation, its epoch, monitored value) of every validation."""
        self.evaluated: Weights = {}
        self.weights: Weights = {}
        """Kept of this generation."""
        self.teacher: Weights = {}
        """Kept of the one before."""
        self.scaler: torch.amp.GradScaler | None = None
        self.curves = CurveLog()

    def state_dict(self) -> dict[str, Any]:
        return {
            "epochs": self.epochs,
            "generation": self.generation,
            "first": self.first,
            "kept": [list(kept) for kept in self.kept.values()],
            "history": [list(point) for point in self.history],
            "weights": self.weights,
            "teacher": self.teacher,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.is_trial:  # it would train nothing: the few batches that it has are behind the checkpoint
            raise ValueError("fast_dev_run tries a chain of generations from its start: leave out --ckpt_path")
        if "teacher" not in state_dict:
            raise ValueError(
                "the checkpoint is of an older version, whose chains cannot go on: begin with its last "
                "generation_<g>.ckpt as teacher_weights"
            )
        epochs = state_dict["epochs"]
        if self.epochs not in (0, epochs):  # 0 outside of a fit
            raise ValueError(
                f"the run's generations have {epochs} epochs: it cannot go on with max_epochs={self.epochs}"
            )
        self.generation, self.first = state_dict["generation"], state_dict["first"]
        self.kept = {entry[0]: Kept(*entry) for entry in state_dict["kept"]}
        self.history = [(generation, epoch, value) for generation, epoch, value in state_dict["history"]]
        self.weights, self.teacher = state_dict["weights"], state_dict["teacher"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or self.epochs:
            return
        strategy, chain = trainer.strategy, born_again(pl_module)
        if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise ValueError(f"Generations needs one device or trainer.strategy ddp, not {type(strategy).__name__}")
        # Frozen now, what a student inherits is unknown to optimizers and DDP; the weights may be read only later.
        self._hand_down(chain)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.epochs, self.is_trial = 1, True
            return
        epochs, every = trainer.max_epochs, trainer.check_val_every_n_epoch
        if epochs is None or epochs < 1 or trainer.max_steps != -1:
            raise ValueError("a generation's length is trainer.max_epochs, so it must be set, and max_steps must not")
        if every is None or epochs % every or not trainer.enable_validation:
            raise ValueError("a generation must end with a validation: let check_val_every_n_epoch divide max_epochs")
        self.epochs = epochs
        self.scaler = copy.deepcopy(getattr(trainer.precision_plugin, "scaler", None))  # unused, with its settings
        self.first = self.generation = 0 if chain.teacher is None else 1
        trainer.fit_loop.max_epochs = epochs * (1 + self.count - self.first)
        for name, members in (self.ensembles or {}).items():
            if not set(members) <= set(range(self.first, self.count + 1)):
                raise ValueError(f"ensemble {name} is of {members}: the chain has {self.first} to {self.count}")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.ckpt_path is None:
            self._hand_down(born_again(pl_module))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give a resumed run its teacher back."""
        batches, every = trainer.num_training_batches, trainer.val_check_batch
        if every is None or (math.isfinite(every) and batches % every):
            raise ValueError(
                f"a generation must end with a validation: let val_check_interval divide {batches} batches"
            )
        self._teach(pl_module)
        self.curves.start(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch // self.epochs > self.generation - self.first:
            self._next_generation(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._epoch(trainer) >= self.epochs:  # Lightning goes on behind what was left of that epoch
            raise ValueError(
                f"the checkpoint is of the moment between the last batch of generation {self.generation} and its "
                "validation, which Lightning does not make up for: resume from one before or behind it"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done = self._epoch(trainer) + (batch_idx + 1) / trainer.num_training_batches
        self.curves.after_batch(trainer, self.generation, done)

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        may_be_kept = self.keep == "best" or self._epoch(trainer) == self.epochs - 1
        if may_be_kept and not self.evaluated and trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.evaluated = on_cpu(born_again(pl_module).student)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        weights, self.evaluated = self.evaluated, {}
        value = trainer.callback_metrics.get(self.monitor)
        if value is None:
            known = ", ".join(sorted(trainer.callback_metrics)) or "nothing"
            raise ValueError(f"Generations monitors {self.monitor}, but validation logged {known}")
        self.curves.validated = True
        self.history.append((self.generation, self._epoch(trainer), float(value)))
        if weights and self._is_best(float(value)):
            self.kept[self.generation] = Kept(self.generation, trainer.current_epoch, float(value))
            self.weights = weights

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.curves.after_epoch(trainer, self.generation, self._epoch(trainer) + 1)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # it leaves no files, and above all keeps those that are there
        if self._epoch(trainer) == self.epochs - 1:
            self._end_generation(trainer, pl_module)
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._evaluate(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._evaluate(trainer, pl_module, "test")

    def _epoch(self, trainer: Trainer) -> int:
        """Of the generation, from 0."""
        return trainer.current_epoch - self.epochs * (self.generation - self.first)

    def _is_best(self, score: float) -> bool:
        """Equal scores count as better, NaN does not."""
        before = self.kept.get(self.generation)
        if self.keep == "last" or before is None or math.isnan(before.score):
            return True
        return self.sign * score >= self.sign * before.score

    def _hand_down(self, chain: BornAgain) -> None:
        inherit = getattr(chain.student, "inherit", None)
        if chain.teacher is not None and callable(inherit):
            inherit(chain.teacher.network)

    def _teach(self, pl_module: LightningModule) -> None:
        chain = born_again(pl_module)
        if self.teacher:
            chain.teacher = Frozen(chain.student, self.teacher).to(pl_module.device)
        pl_module.generation = self.generation  # type: ignore[assignment]

    def _end_generation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ranks differ in the statistics of their batch norms: the weights that count are those of rank 0."""
        kept, self.weights = trainer.strategy.broadcast((self.kept[self.generation], self.weights))
        self.kept[self.generation] = kept
        if trainer.is_global_zero:
            self.files.write(pl_module, kept.generation, kept.epoch, self.weights)
        trainer.strategy.barrier()

    def _next_generation(self, trainer: Trainer, pl_module: LightningModule) -> None:
        chain = born_again(pl_module)
        self.teacher, self.weights = self.weights, {}
        self.generation += 1
        self._teach(pl_module)
        start_anew(chain, self.seed + self.generation)
        self._hand_down(chain)
        trainer.strategy.setup_optimizers(trainer)
        if self.scaler is not None:
            trainer.precision_plugin.scaler = copy.deepcopy(self.scaler)  # type: ignore[attr-defined]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            average = getattr(callback, "_average_model", None)
            if average is not None:
                average.n_averaged.zero_()  # the next update copies the weights
                average.module.load_state_dict(pl_module.state_dict())  # a validation may come before it

    def _evaluate(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        student, found = born_again(pl_module).student, self.files.found()
        networks = {g: Frozen(student).to(pl_module.device) for g in found}
        for g, network in networks.items():
            load_teacher(network, self.files.path(g), "student")
        ensembles = complete(self.ensembles or papers_ensembles(max(found, default=0)), found)
        scores = evaluate_generations(trainer, pl_module, split, networks, ensembles)
        if not scores or not trainer.is_global_zero:
            return
        print_scores(split, scores)
        folder, content = self.files.folder.parent, {split: scores}
        if split == "val":
            content["kept"] = [kept._asdict() for kept in self.kept.values()]  # type: ignore[assignment]
            draw_curves(trainer, folder / "generations.png", self.history, scores, self.monitor)
        save_scores(folder / "generations.json", content)
