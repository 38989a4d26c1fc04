"""The picture of a chain: the monitored metric over the epochs of each generation, and where ensembles end."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure


def curves_figure(history: Sequence[tuple[int, int, float]], scores: Mapping[str, float], metric: str) -> Figure:
    """One curve a generation, one horizontal line an ensemble.

    Args:
        history: (generation, epoch of that generation from 0, value).
        scores: ``ens2/error`` and the like; other names, and other metrics than the curves', are left alone.
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
    lines = [item for item in scores.items() if item[0].startswith("ens") and item[0].endswith(ending)]
    for number, (name, value) in enumerate(lines):
        style = ("--", ":", "-.")[number % 3]
        axes.axhline(value, color="black", linewidth=1, linestyle=style, label=f"{name.split('/')[0]} {value:.4g}")
    axes.set(xlabel="epoch of the generation", ylabel=metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
