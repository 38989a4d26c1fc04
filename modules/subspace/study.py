"""The paper's experiments: many draws, each clustered by several algorithms, every outcome a record.

    draw (a batch) -> each run -> a record {setting, algorithm, options that vary, draw, metrics, seconds}

Records are plain dicts. They travel in the checkpoint, so that an interrupted study goes on where it stopped, and are
collected from all ranks at the end; study_table.py turns them into tables and pictures.
"""

import time
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules.components.gathering import gather_records
from modules.components.gathering_module import Study
from modules.components.options import at_least
from modules.subspace import metrics
from modules.subspace.pursuits import Pursuit
from modules.subspace.solvers import mp_path, omp_path, solver
from modules.subspace.spectral import RESTARTS, affinity, spectral_clustering

Record = dict[str, Any]


def expand(options: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(options with one value each, those among them that vary): a list stands for one run per value."""
    varied = [name for name, value in options.items() if isinstance(value, list)]
    for values in product(*(options[name] for name in varied)):
        chosen = dict(zip(varied, values, strict=True))
        yield {**options, **chosen}, chosen


class DrawStudy(Study):
    """Base of the two studies: what a draw leaves behind is ``examine``'s."""

    def examine(self, points: Tensor, label: np.ndarray) -> Iterator[Record]:
        raise NotImplementedError

    def training_step(self, batch: dict[str, Any], batch_index: int) -> None:
        draw = {**{name: float(value) for name, value in batch["setting"].items()}, "draw": int(batch["index"])}
        self.records += [draw | record for record in self.examine(batch["points"], batch["label"].cpu().numpy())]
        self.count_step()

    def on_train_epoch_end(self) -> None:
        self.records = gather_records(self.records)
        for name in sorted({record["algorithm"] for record in self.records}):
            own = [record for record in self.records if record["algorithm"] == name]
            for key in ("error", "fde", "true_positives", "no_false_connections", "seconds"):
                if values := [record[key] for record in own if key in record]:
                    self.log(f"train/{key}_{name}", float(np.mean(values)), sync_dist=True)


class ClusteringStudy(DrawStudy):
    """Clustering error, connections and seconds of several algorithms on the same draws (Figs. 2, 4, Tables 1, 2).

    Args:
        algorithms: name -> {solver: omp | mp | tsc | nsn | lasso, and its options}; an option given as a list is
            run once per value.
        true_number: give the algorithms the number of clusters; otherwise the eigengap finds it.
        kmeans_seed: the draws have their own.
        restarts: of k-means.

    Raises:
        ValueError: also for an entry without a solver, which an option given alone on the command line makes.
    """

    def __init__(
        self,
        algorithms: dict[str, dict[str, Any]],
        true_number: bool = True,
        kmeans_seed: int = 0,
        restarts: int = RESTARTS,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, restarts=restarts)
        self.true_number, self.kmeans_seed, self.restarts = true_number, kmeans_seed, restarts
        self.runs = []
        for name, options in algorithms.items():
            if "solver" not in options:
                raise ValueError(
                    f"algorithms.{name} names no solver, it holds {options} alone: give all of its options"
                )
            for chosen, varied in expand(options):
                self.runs.append(({"algorithm": name} | _named(varied), solver(chosen.pop("solver"), chosen)))

    def examine(self, points: Tensor, label: np.ndarray) -> Iterator[Record]:
        number = len(np.unique(label))
        for names, run in self.runs:
            start, cpu_start = time.perf_counter(), time.process_time()
            coefficients = run(points)
            coded = time.perf_counter()
            graph = affinity(coefficients)
            wanted = number if self.true_number else None
            found = spectral_clustering(graph, wanted, self.kmeans_seed, restarts=self.restarts)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            times = {"seconds": seconds, "cpu_seconds": cpu_seconds, "coding_seconds": coded - start}
            yield {
                **names,
                **metrics.labelling_metrics(found.labels, label),
                **metrics.connection_metrics(coefficients, label),
                "wrong_number": float(found.num_clusters != number),
                **times,
            }


def _named(varied: dict[str, Any]) -> dict[str, Any]:
    return {f"with_{name}": value for name, value in varied.items()}


class StoppingStudy(DrawStudy):
    """True and false neighbours of each cluster's points under a residual bound tau (Fig. 3); nothing is clustered.

    One pursuit down to the smallest bound serves all: a looser one stops at a prefix of its steps.

    Args:
        tolerances: bounds tau for ``omp`` and ``mp``.
    """

    def __init__(self, tolerances: dict[str, list[float]]) -> None:
        super().__init__()
        self.save_hyperparameters()
        if unknown := set(tolerances) - {"omp", "mp"}:
            raise ValueError(f"tolerances are for omp and mp, not {', '.join(sorted(unknown))}")
        self.tolerances = tolerances

    def examine(self, points: Tensor, label: np.ndarray) -> Iterator[Record]:
        number, classes = len(points), np.unique(label)
        for name, bounds in self.tolerances.items():
            path = omp_path if name == "omp" else mp_path
            counts = [neighbor_counts(block, number, bounds) for block in path(points, tolerance=min(bounds))]
            chosen = torch.cat(counts, 1).cpu().numpy()  # [tau, N, N]
            if name == "mp":  # tests its bound before the first step, too
                chosen &= (points.norm(dim=1).cpu() > torch.tensor(bounds)[:, None]).numpy()[:, :, None]
            for bound, graph in zip(bounds, chosen, strict=True):
                for index, cluster in enumerate(classes):
                    own = label == cluster
                    inside, outside = graph[own][:, own].sum(1).mean(), graph[own][:, ~own].sum(1).mean()
                    yield {
                        "algorithm": name,
                        "with_tolerance": bound,
                        "with_cluster": index,
                        "true_positives": float(inside),
                        "false_positives": float(outside),
                    }


def neighbor_counts(path: Pursuit, number: int, tolerances: list[float]) -> Tensor:
    """bool [tau, B, N]: which of ``number`` atoms each of B points has taken when its residual first met each bound."""
    shape = (len(tolerances), len(path.picks), number)
    graphs = torch.zeros(shape, dtype=torch.bool, device=path.picks.device)
    for graph, bound in zip(graphs, tolerances, strict=True):
        is_taken = path.picks >= 0
        is_taken[:, 1:] &= path.residuals[:, :-1] > bound
        rows, steps = is_taken.nonzero(as_tuple=True)
        graph[rows, path.picks[rows, steps]] = True
    return graphs
