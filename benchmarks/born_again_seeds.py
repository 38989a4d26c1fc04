"""Born-again chains over several seeds: means, standard errors, and differences to the teacher of the same seed.

    python benchmarks/born_again_seeds.py RUN... [--with-labels RUN...] [--control RUN...] [--picture FILE]

RUN is a run's folder, which has generations.json; the lists name the seeds in the same order. The first runs begin with
the teacher; those --with-labels (BAN+L) were given it, and so begin with generation 1; --control runs are a teacher
alone, at another learning rate. Scores are those of the validation set at the end of each generation. One line a
network or ensemble: error in percent and negative log-likelihood in nats, each with its standard error over the seeds,
and the paired difference of the error to the teacher.
"""

import argparse
import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

Scores = dict[str, tuple[np.ndarray, np.ndarray]]
"""By network or ensemble: errors [S] and likelihoods [S] of the seeds."""


def read_scores(runs: list[Path]) -> Scores:
    """Raises ValueError where the runs' chains differ."""
    contents = [json.loads((run / "generations.json").read_text())["val"] for run in runs]
    if any(content.keys() != contents[0].keys() for content in contents):
        raise ValueError("these runs have chains of different lengths")
    groups = dict.fromkeys(name.split("/")[0] for content in contents for name in content)
    both = [
        [np.array([content[f"{group}/{kind}"] for content in contents]) for kind in ("error", "nll")]
        for group in groups
    ]
    return {group: (error, nll) for group, (error, nll) in zip(groups, both, strict=True)}


def named(scores: Scores, chain: str) -> Scores:
    """``gen1`` becomes ``BAN-1``, ``ens2`` ``BAN Ens*2``."""
    return {
        name.replace("gen", f"{chain}-") if name.startswith("gen") else name.replace("ens", f"{chain} Ens*"): values
        for name, values in scores.items()
    }


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def draw(rows: Scores, file: Path) -> None:
    """Error of each network and ensemble: every seed a dot, and the mean with its standard error."""
    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for place, (error, _) in enumerate(rows.values()):
        mean, spread = mean_and_error(error)
        axes.errorbar(place, mean, spread, fmt="o", color="tab:blue", capsize=4)
        axes.plot(np.full(len(error), place + 0.15), error, ".", color="tab:gray")
    for seed in range(len(next(iter(rows.values()))[0])):
        axes.plot(np.arange(len(rows)) + 0.15, [error[seed] for error, _ in rows.values()], color="tab:gray", alpha=0.3)
    axes.set_xticks(range(len(rows)), list(rows))
    axes.set_ylabel("validation error, percent")
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--with-labels", nargs="+", type=Path, default=[])
    parser.add_argument("--control", nargs="+", type=Path, default=[])
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    if any(runs and len(runs) != len(arguments.runs) for runs in (arguments.with_labels, arguments.control)):
        parser.error("every list names the same seeds")
    rows = named(read_scores(arguments.runs), "BAN")
    teacher = rows.pop("BAN-0")
    rows = {"teacher": teacher} | rows
    if arguments.with_labels:
        rows |= named(read_scores(arguments.with_labels), "BAN+L")
    if arguments.control:
        rows["control"] = read_scores(arguments.control)["gen0"]
    print(f"{len(arguments.runs)} seeds          error            nll              error - teacher's")
    for name, (error, nll) in rows.items():
        cells = [mean_and_error(values) for values in (error, nll, error - teacher[0])]
        print(f"{name:14}" + "".join(f" {mean:8.3f} +- {spread:.3f}" for mean, spread in cells))
    if arguments.picture:
        draw(rows, arguments.picture)


if __name__ == "__main__":
    main()
