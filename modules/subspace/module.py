"""Subspace clustering as a LightningModule: gather the points in an epoch, solve at its end, label new ones after."""

from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from modules.components.checkpoint_file import entry
from modules.components.gathering import Batch, all_items, done_on_all_ranks
from modules.components.gathering_module import Gathering
from modules.components.options import at_least
from modules.subspace import metrics
from modules.subspace.blocks import check_points
from modules.subspace.labelling import UNCONNECTED, label_new
from modules.subspace.solvers import merge_shards, shard, solver
from modules.subspace.spectral import Clustering, affinity, spectral_clustering


class SubspaceClustering(Gathering):
    """One pass over the points, then self-expression, affinity and spectral clustering (section 3 of the sheet).

    Under DDP every rank codes its share of the points against all of them; rank zero cuts the graph. The points and
    their labels are kept in the checkpoint, and in the middle of an epoch what was gathered; ``predict`` labels new
    points by the cluster that carries most of the weight of their coefficients. A point whose correlation with all
    others is zero or round-off gets label -1 there.

    Batches hold ``points`` [B, D] and, where known, ``label`` int64 [B] (negative: unknown) and ``index`` int64 [B].

    Logged at the end of the epoch: ``train/num_clusters``, ``train/neighbors`` (non-zeros a point), and, where all
    labels are known, ``train/error`` (Hungarian assignment), ``train/nmi``, ``train/ari`` and ``train/fde``; after a
    test ``test/error``, under one assignment for all points with a known label.

    Args:
        algorithm: omp, mp, tsc, nsn, lasso or elastic_net.
        options: of the algorithm, see ``solvers``.
        num_clusters: found by the eigengap if not given.
        max_clusters: the eigengap's bound.
        kmeans_seed: of the last step.
    """

    def __init__(
        self,
        algorithm: str = "mp",
        options: dict[str, Any] | None = None,
        num_clusters: int | None = None,
        max_clusters: int | None = None,
        kmeans_seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, num_clusters=num_clusters, max_clusters=max_clusters)
        self.solve = solver(algorithm, options or {})
        self.num_clusters, self.max_clusters, self.kmeans_seed = num_clusters, max_clusters, kmeans_seed
        self.tested: list[Batch] = []
        self.fitted: dict[str, Tensor] = {}  # points [N, D], clusters and index int64 [N]
        self.graph: csr_array | None = None  # the affinity [N, N] of the last fit, for cluster_picture.py

    def training_step(self, batch: Batch, batch_index: int) -> None:
        super().training_step(on_cpu(batch, "points", "label", "index"), batch_index)

    def on_train_epoch_end(self) -> None:
        items = all_items(self.gathered)
        self.gathered = []
        points = check_points(items["points"]).to(self.device)
        coefficients = merge_shards(done_on_all_ranks(lambda: self.own_coefficients(points)))
        self.graph = affinity(coefficients)
        found = done_on_all_ranks(self.cut)[0]
        assert found is not None, "the first rank cuts"
        index = items.get("index", torch.arange(len(points)))
        self.fitted = {"points": points.cpu(), "clusters": torch.from_numpy(found.labels), "index": index}
        outcome = describe(coefficients, found, items.get("label"))
        self.log_dict({f"train/{name}": value for name, value in outcome.items()}, prog_bar=True, sync_dist=True)

    def own_coefficients(self, points: Tensor) -> csr_array:
        """Of this rank's share of the points, one row each."""
        rows = shard(len(points), self.global_rank, self.trainer.world_size)
        return self.solve(points, rows=rows) if len(rows) else csr_array((0, len(points)))

    def cut(self) -> Clustering | None:
        """The clusters of the graph, on rank zero."""
        if self.global_rank > 0:
            return None
        return spectral_clustering(self.graph, self.num_clusters, self.kmeans_seed, max_clusters=self.max_clusters)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Clusters int64 [B] of new points."""
        if not self.fitted:
            raise ValueError("no points to compare with: fit first, or give --ckpt_path of a fitted model")
        points, clusters = self.fitted["points"].to(self.device), self.fitted["clusters"].numpy()
        return torch.from_numpy(label_new(self.solve, points, clusters, batch["points"])).to(self.device)

    def on_test_epoch_start(self) -> None:
        self.tested = []

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Raises: ValueError, if the batch has no labels."""
        clusters = self.predict_step(batch, batch_index)
        self.tested.append(on_cpu(batch | {"clusters": clusters}, "clusters", "label", "index"))

    def on_test_epoch_end(self) -> None:
        """Raises: ValueError, if no label is known."""
        items = all_items(self.tested)
        if "label" not in items or not bool((items["label"] >= 0).any()):
            raise ValueError("no point to test has a label: give the data their labels, or use predict")
        error = assignment_error(items["clusters"].numpy(), items["label"].numpy())
        self.log("test/error", error, sync_dist=True)

    def fitted_outputs(self) -> tuple[Tensor, Tensor] | None:
        """Index and cluster, both int64 [N], of the points of the last fit, for callbacks/predictions.py."""
        return (self.fitted["index"], self.fitted["clusters"]) if self.fitted else None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["fitted"] = self.fitted
        checkpoint["graph"] = pack(self.graph)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.fitted = entry(checkpoint, "fitted", self)
        self.graph = unpack(checkpoint.get("graph", []))
        super().on_load_checkpoint({"gathered": []} | checkpoint)  # early versions kept nothing


def on_cpu(batch: Batch, needed: str, *optional: str) -> Batch:
    """Those entries of a batch.

    Raises:
        ValueError: if the ``needed`` one is missing.
    """
    if needed not in batch:
        raise ValueError(f"the batches hold {', '.join(batch)} but no {needed}: give data that yield {needed} [B, D]")
    return {name: batch[name].cpu() for name in (needed, *optional) if name in batch}


def pack(graph: csr_array | None) -> list[Tensor]:
    """A square matrix as values, columns and row starts; None as no tensors."""
    return [] if graph is None else [torch.from_numpy(part) for part in (graph.data, graph.indices, graph.indptr)]


def unpack(parts: list[Tensor]) -> csr_array | None:
    """Undoes ``pack``."""
    if not parts:
        return None
    size = len(parts[2]) - 1
    return csr_array(tuple(part.numpy() for part in parts), shape=(size, size))


def describe(coefficients: csr_array, found: Clustering, label: Tensor | None) -> dict[str, float]:
    """What is logged; the truth-based numbers only if every point has a label (not negative)."""
    outcome = {"num_clusters": float(found.num_clusters), "neighbors": coefficients.nnz / len(found.labels)}
    if label is not None and bool((label >= 0).all()):
        outcome |= metrics.labelling_metrics(found.labels, label.numpy())
        outcome["fde"] = metrics.feature_detection_error(coefficients, label.numpy())
    return outcome


def assignment_error(clusters: np.ndarray, label: np.ndarray) -> float:
    """Share of wrong points in [0, 1] among those whose label is known (not negative); one that is connected to no
    cluster is wrong."""
    known, named = label >= 0, (label >= 0) & (clusters != UNCONNECTED)
    if not named.any():
        return 1.0
    right = (1 - metrics.clustering_error(clusters[named], label[named])) * named.sum()
    return 1 - float(right / known.sum())
