"""The metrics of a chain over the epochs of each generation: logged as they come, and as a picture at the end."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import WandbLogger

AXIS = "epoch_in_generation"


class CurveLog:
    """Log ``train/...`` and ``val/...`` again as ``gen<g>/train/...``, with ``generation`` and ``epoch_in_generation``.

    wandb gets the latter as the axis of these metrics, so that the generations' curves lie on top of each other. What
    a module logs on a step comes with the trainer's ``log_every_n_steps``, what it logs on an epoch with the epoch, a
    validation's metrics with the epoch in which there was one.
    """

    def __init__(self) -> None:
        self.stepwise: set[str] | None = None
        self.validated = False
        self.known: set[str] = set()
        self.steps = 0

    def start(self, trainer: Trainer) -> None:
        """A process trains from here on."""
        self.steps = trainer.global_step

    def after_batch(self, trainer: Trainer, generation: int, epochs: float) -> None:
        """``epochs`` of the generation are done."""
        if self.stepwise is None:  # what stands there after a process's first batch was logged on a step
            self.stepwise = {name for name in trainer.callback_metrics if name.startswith("train/")}
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        has_stepped, self.steps = trainer.global_step != self.steps, trainer.global_step
        if every and has_stepped and trainer.global_step % every == 0:  # not where gradients are only accumulated
            self._log(trainer, generation, epochs, self.stepwise)

    def after_epoch(self, trainer: Trainer, generation: int, epochs: float) -> None:
        splits = ("train/", "val/") if self.validated else ("train/",)
        self.validated = False
        names = {name for name in trainer.callback_metrics if name.startswith(splits)}
        self._log(trainer, generation, epochs, names - (self.stepwise or set()))

    def _log(self, trainer: Trainer, generation: int, epochs: float, names: set[str]) -> None:
        metrics = {f"gen{generation}/{name}": float(trainer.callback_metrics[name]) for name in sorted(names)}
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                for name in metrics.keys() - self.known:
                    define_axis(logger, name)
            step = trainer.global_step - 1  # as Lightning counts its rows
            logger.log_metrics(metrics | {"generation": generation, AXIS: epochs}, step=step)
        self.known |= metrics.keys()


def define_axis(logger: Any, name: str) -> None:
    """Through the logger where it keeps such calls until wandb's run is open, as cli/wandb_session.py's does."""
    define = getattr(logger, "define_metric", None) or logger.experiment.define_metric
    define(name, step_metric=AXIS)


def curves_figure(history: Sequence[tuple[int, int, float]], scores: Mapping[str, float], metric: str) -> Figure:
    """One curve a generation, one horizontal line an ensemble.

    Args:
        history: (generation, epoch of that generation from 0, value).
        scores: ``ens2/error`` and the like; generations, and other metrics than the curves', are left alone.
        metric: of the curves, ``val/error``; the axis' label.
    """
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    generations = sorted({generation for generation, _, _ in history})
    for generation in generations:
        points = [(epoch + 1, value) for g, epoch, value in history if g == generation]
        label = "labels alone" if generation == 0 else f"generation {generation}"
        axes.plot(*zip(*points, strict=True), marker=".", color=f"C{generation % 10}", label=label)
    ending = "/" + metric.split("/", 1)[-1]
    lines = [item for item in scores.items() if item[0].endswith(ending) and not re.match(r"gen\d+/", item[0])]
    for number, (name, value) in enumerate(lines):
        style = ("--", ":", "-.")[number % 3]
        axes.axhline(value, color="black", linewidth=1, linestyle=style, label=f"{name.split('/')[0]} {value:.4g}")
    axes.set(xlabel="epoch of the generation", ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def draw_curves(trainer: Trainer, file: Path, *curves: Any) -> None:
    """``curves_figure`` as a file and on the run's wandb page."""
    curves_figure(*curves).savefig(file, dpi=100)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(file.stem, [str(file)])
