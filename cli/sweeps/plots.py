"""The metric against each parameter that a sweep varies, a panel each, in one picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cli.sweeps.ranking import Ranking, Row, short, shown
from cli.sweeps.sweep_file import is_number
from cli.sweeps.trial import FINISHED

COLUMNS, MOST_PANELS = 3, 12
FEW = 6
"""So many different numbers get a tick each, if they come back."""
WIDE = 20.0
"""Largest over smallest value from which on an axis is logarithmic."""


def is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) / min(values) >= WIDE


def position(values: list[Any], axes: Axes) -> list[float]:
    """Where values stand on the horizontal axis: numbers by their size, others side by side in order."""
    if all(is_number(value) for value in values):
        if is_wide(values):
            axes.set_xscale("log")
        if len(ticks := sorted(set(values))) <= FEW and len(ticks) < len(values):
            axes.set_xticks(ticks, [shown(value) for value in ticks])
            axes.minorticks_off()
        return [float(value) for value in values]
    labels = sorted({shown(value) for value in values})
    axes.set_xticks(range(len(labels)), [label.rpartition(".")[2][-24:] or label for label in labels], rotation=20)
    return [float(labels.index(shown(value))) for value in values]


def panel(axes: Axes, name: str, rows: Sequence[Row], ranking: Ranking) -> None:
    places = position([row.parameters.get(name) for row in rows], axes)
    scores = [row.score or 0.0 for row in rows]
    for is_finished, colour, label in ((True, "C0", "finished"), (False, "none", "stopped early")):
        chosen = [i for i, row in enumerate(rows) if (row.state == FINISHED) is is_finished]
        if chosen:
            spots = [places[i] for i in chosen], [scores[i] for i in chosen]
            axes.scatter(*spots, facecolor=colour, edgecolor="C0", label=label)
    axes.scatter(places[:1], scores[:1], s=160, facecolor="none", edgecolor="C3", label="best")
    if is_wide(scores):
        axes.set_yscale("log")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(short(name))
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)


def plot(ranking: Ranking, file: Path) -> bool:
    """Write the picture; False if there is nothing to draw: no two values of a parameter with a number each."""
    rows = [row for row in ranking.rows if row.is_ranked]
    names = Ranking(rows, ranking.metric, ranking.maximize).varied[:MOST_PANELS]
    if not names:
        return False
    columns = min(COLUMNS, len(names))
    lines = math.ceil(len(names) / columns)
    figure = Figure(figsize=(4 * columns, 3.2 * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharey=True).flat
    for axes, name in zip(panels, names, strict=False):
        panel(axes, name, rows, ranking)
    for axes in list(figure.axes)[len(names) :]:
        axes.remove()
    for axes in figure.axes[::columns]:
        axes.set_ylabel(ranking.metric)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(file, dpi=120)
    return True
