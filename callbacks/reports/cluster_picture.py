"""A picture of a clustering: the affinity of the points, ordered by label, beside their spectral embedding."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import WandbLogger
from scipy.linalg import eigh
from scipy.sparse import csr_array

from callbacks.predictions import is_writer

MOST_CELLS = 200
"""Rows and columns of the affinity's picture; a cell sums over several points where there are more."""
MOST_POINTS = 2000
"""Points of the embedding; of more every second, third, ... by label is taken, and the graph between these alone."""


def ordered_cells(graph: csr_array, labels: np.ndarray) -> np.ndarray:
    """Sums [K, K] of weights between runs of points that follow each other by label, K = min(N, MOST_CELLS)."""
    number = len(labels)
    cells = min(number, MOST_CELLS)
    cell = np.empty(number, np.int64)
    cell[np.argsort(labels, kind="stable")] = np.arange(number) * cells // number
    rows, columns = graph.nonzero()
    weights = np.asarray(csr_array(graph)[rows, columns]).ravel()
    return np.bincount(cell[rows] * cells + cell[columns], weights, cells**2).reshape(cells, cells)


def embedding(graph: csr_array, number: int) -> np.ndarray:
    """Two coordinates [N, 2]: the principal components of what k-means clusters, the rows, scaled to norm 1, of the
    ``number`` (at least 2) smallest eigenvectors of the normalised Laplacian."""
    size = graph.shape[0]
    scale = 1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel() + np.finfo(float).eps)
    vectors = eigh(scale[:, None] * graph.toarray() * scale, subset_by_index=(max(0, size - number), size - 1))[1]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = vectors / np.where(norms > 0, norms, 1.0)
    rows -= rows.mean(0)
    return rows @ np.linalg.svd(rows, full_matrices=False)[2][:2].T


def draw_clusters(graph: csr_array, labels: np.ndarray, path: Path) -> None:
    """PNG of an affinity [N, N] and labels int64 [N] of N >= 2 points."""
    order = np.argsort(labels, kind="stable")
    chosen = order[:: -(-len(order) // MOST_POINTS)]
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(8.4, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_affinity(left, ordered_cells(graph, labels), np.bincount(labels))
        coordinates = embedding(graph[chosen][:, chosen], max(2, labels.max() + 1))
        right.scatter(*coordinates.T, c=labels[chosen], cmap="turbo", s=8, alpha=0.7, linewidths=0)
        right.set(title="spectral embedding, coloured by label", xlabel="1st component", ylabel="2nd component")
        right.locator_params(nbins=5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=110)


def draw_affinity(axes: Axes, cells: np.ndarray, sizes: np.ndarray) -> None:
    """``cells`` over the points' positions 0..N, with a tick where a cluster ends."""
    number = sizes.sum()
    axes.imshow(cells, cmap="Greys", norm=PowerNorm(0.4), extent=(0, number, number, 0), interpolation="nearest")
    ends = np.cumsum(sizes)
    axes.set(title=f"affinity of {number} points in {len(sizes)} clusters", xlabel="points by label", yticks=ends)
    axes.tick_params(axis="y", labelleft=len(ends) <= 10)


class ClusterPicture(Callback):
    """``clusters.png`` in the run's folder at the end of fit, and in wandb.

    The module holds its last fit's ``graph``, a sparse affinity [N, N] or None, and gives ``fitted_outputs()``, the
    (index, label) of the N points.
    """

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Unlike the end of training this comes, too, where a run that was stopped behind its last step goes on."""
        graph: Any = pl_module.graph
        if graph is None or not is_writer(trainer):
            return
        path = Path(trainer.default_root_dir) / "clusters.png"
        draw_clusters(graph, pl_module.fitted_outputs()[1].numpy(), path)  # type: ignore[operator,arg-type]
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("train/clusters", [str(path)], trainer.global_step)
