"""Pictures of a study's table: curves of means over an option, and phase diagrams, as PNG in the run's folder."""

from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer

from callbacks.predictions import is_writer
from callbacks.reports.study_table import group
from modules.components.options import at_least

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Record = dict[str, Any]


def draw_curves(table: list[Record], x: str, y: str, log: bool, path: Path) -> None:
    """One line for each algorithm; a logarithmic axis leaves out what is not positive."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name in dict.fromkeys(line["algorithm"] for line in table):
        own = sorted((line[x], line[y]) for line in table if line["algorithm"] == name)
        points = [(a, b) for a, b in own if b > 0 or not log]
        axes.plot(*zip(*points, strict=True), marker=".", label=name)
    axes.set(xlabel=x, ylabel=y, yscale="log" if log else "linear")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_phases(table: list[Record], x: str, y: str, value: str, path: Path) -> None:
    """One image for each algorithm, ``value`` in [0, 1] over ``x`` and ``y``; cells without a draw stay white."""
    names = list(dict.fromkeys(line["algorithm"] for line in table))
    figure, row = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.6), layout="constrained", squeeze=False)
    columns, rows = sorted({line[x] for line in table}), sorted({line[y] for line in table})
    for axes, name in zip(row[0], names, strict=True):
        cells = np.full((len(rows), len(columns)), np.nan)
        for line in table:
            if line["algorithm"] == name:
                cells[rows.index(line[y]), columns.index(line[x])] = line[value]
        image = axes.pcolormesh(columns, rows, cells, vmin=0, vmax=0.65, cmap="viridis", shading="nearest")
        axes.set(title=name, xlabel=x, ylabel=y)
    figure.colorbar(image, ax=row[0], label=value)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_rates(table: list[Record], dims: list[int], ambient: int, path: Path) -> None:
    """A panel for each noise and algorithm: #TP / d_l solid and #FP / (m - d_l) dashed over tau, a colour a cluster."""
    names, noises = (list(dict.fromkeys(line[key] for line in table)) for key in ("algorithm", "noise"))
    size = (4.2 * len(names), 3 * len(noises))
    figure, grid = plt.subplots(len(noises), len(names), figsize=size, layout="constrained", squeeze=False, sharex=True)
    for axes, (noise, name) in zip(grid.flat, product(noises, names), strict=True):
        for cluster, dim in enumerate(dims):
            here = {"algorithm": name, "noise": noise, "with_cluster": cluster}
            own = sorted(
                (line for line in table if here.items() <= line.items()), key=lambda one: one["with_tolerance"]
            )
            bounds = [line["with_tolerance"] for line in own]
            axes.plot(bounds, [line["true_positives"] / dim for line in own], f"C{cluster}", label=f"d = {dim}")
            axes.plot(bounds, [line["false_positives"] / (ambient - dim) for line in own], f"C{cluster}--")
        axes.set(title=f"{name}, sigma = {noise}", xlabel="tau", xscale="log", ylabel="true, false positive rate")
        axes.grid(alpha=0.3)
    grid[0, 0].legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


class CurvePicture(Callback):
    """``curves.png``: means of ``y`` over ``x``.

    Args:
        x: what varies, such as with_iteration; several names where the algorithms call it differently.
        y: a measured number of the records.
        log: logarithmic vertical axis.
    """

    def __init__(self, x: str | list[str], y: str, log: bool = False) -> None:
        self.names, self.y, self.log = [x] if isinstance(x, str) else x, y, log

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_writer(trainer):
            axis = ", ".join(name.removeprefix("with_") for name in self.names)
            kept = [
                {"draw": record["draw"], "algorithm": record["algorithm"], axis: record[name], self.y: record[self.y]}
                for record in pl_module.records  # type: ignore[union-attr]
                for name in self.names
                if name in record and self.y in record
            ]
            path = Path(trainer.default_root_dir) / "curves.png"
            draw_curves(group(kept, [self.y]), axis, self.y, self.log, path)


class PhasePicture(Callback):
    """``phases.png``: means of ``value`` over two numbers of the setting."""

    def __init__(self, x: str, y: str, value: str = "error") -> None:
        self.x, self.y, self.value = x, y, value

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_writer(trainer):
            keys = ("draw", "algorithm", self.x, self.y, self.value)
            kept = [{k: r[k] for k in keys} for r in pl_module.records]  # type: ignore[union-attr]
            path = Path(trainer.default_root_dir) / "phases.png"
            draw_phases(group(kept, [self.value]), self.x, self.y, self.value, path)


class StoppingPicture(Callback):
    """``stopping.png``: the neighbours that a bound tau on the residual finds, as rates (subspace clustering, Fig. 3).

    Args:
        dims: d_l of the subspaces.
        ambient: m.
    """

    def __init__(self, dims: list[int], ambient: int) -> None:
        at_least(1, ambient=ambient)
        self.dims, self.ambient = dims, ambient

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if is_writer(trainer):
            table = group(pl_module.records, ["true_positives", "false_positives"])  # type: ignore[arg-type]
            draw_rates(table, self.dims, self.ambient, Path(trainer.default_root_dir) / "stopping.png")
