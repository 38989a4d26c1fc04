"""Subspace clustering as a LightningModule: gather the points in an epoch, solve at its end, label new ones after."""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from scipy.sparse import csr_array
from torch import Tensor, nn

from modules.subspace import metrics
from modules.subspace.blocks import check_points
from modules.subspace.solvers import merge_shards, shard, solver
from modules.subspace.spectral import affinity, spectral_clustering

Batch = dict[str, Any]


class SubspaceClustering(LightningModule):
    """One pass over the points, then self-expression, affinity and spectral clustering (section 3 of the sheet).

    Under DDP every rank codes its share of the points against all of them; rank zero cuts the graph. The points and
    their labels are kept in the checkpoint, and ``predict`` labels new points by the cluster that carries most of
    the weight of their coefficients. A point that no other one correlates with gets label -1 there.

    Logged at the end of the epoch: ``train/num_clusters``, ``train/neighbors`` (non-zeros a point), and, where labels
    are known, ``train/error`` (Hungarian assignment), ``train/nmi``, ``train/ari`` and ``train/fde``.

    Args:
        algorithm: omp, mp, tsc, nsn or lasso.
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
        self.solve = solver(algorithm, options or {})
        self.num_clusters, self.max_clusters, self.kmeans_seed = num_clusters, max_clusters, kmeans_seed
        self.automatic_optimization = False
        self.idle = nn.Parameter(torch.zeros(()))  # an optimizer's step is what Lightning counts and saves by
        self.gathered: list[Batch] = []
        self.fitted: dict[str, Tensor] = {}  # points [N, D] and clusters int64 [N]

    def training_step(self, batch: Batch, batch_index: int) -> None:
        self.gathered.append({name: batch[name].cpu() for name in ("points", "label", "index")})
        self.optimizers().step()  # type: ignore[union-attr]

    def on_train_epoch_end(self) -> None:
        points, label = together(gather(self.gathered))
        self.gathered = []
        points = check_points(points).to(self.device)
        rows = shard(len(points), self.global_rank, self.trainer.world_size)
        coefficients = merge_shards(gather([self.solve(points, rows=rows)]))
        found = None
        if self.global_rank == 0:
            found = spectral_clustering(
                affinity(coefficients), self.num_clusters, self.kmeans_seed, max_clusters=self.max_clusters
            )
        found = next(result for result in gather([found]) if result is not None)
        self.fitted = {"points": points.cpu(), "clusters": torch.from_numpy(found.labels)}
        outcome = describe(coefficients, found.labels, found.num_clusters, label.numpy())
        self.log_dict({f"train/{name}": value for name, value in outcome.items()}, prog_bar=True, sync_dist=True)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Clusters int64 [B] of new points."""
        if not self.fitted:
            raise ValueError("no points to compare with: fit first, or give --ckpt_path of a fitted model")
        points = self.fitted["points"].to(self.device)
        clusters = self.fitted["clusters"].numpy()
        coefficients = abs(self.solve(points, queries=batch["points"].to(points)))
        membership = csr_array(np.eye(clusters.max() + 1)[clusters])
        weight = (coefficients @ membership).toarray()
        best = np.where(weight.max(1) > 0, weight.argmax(1), -1)
        return torch.from_numpy(best).to(self.device)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """``test/error`` of a batch whose points have labels."""
        clusters = self.predict_step(batch, batch_index).cpu().numpy()
        error = metrics.clustering_error(clusters, batch["label"].cpu().numpy())
        self.log("test/error", error, batch_size=len(clusters), sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["fitted"] = self.fitted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.fitted = checkpoint["fitted"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.idle], lr=1.0)


def gather(items: list[Any]) -> list[Any]:
    """The items of all ranks, in the order of the ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return items
    parts: list[list[Any]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def together(batches: list[Batch]) -> tuple[Tensor, Tensor]:
    """Points [N, D] and labels [N] by their index, each once."""
    index = torch.cat([batch["index"] for batch in batches])
    order = torch.from_numpy(np.unique(index.numpy(), return_index=True)[1])
    points, label = (torch.cat([batch[name] for batch in batches])[order] for name in ("points", "label"))
    return points, label


def describe(coefficients: csr_array, clusters: np.ndarray, number: int, label: np.ndarray) -> dict[str, float]:
    """What is logged; the truth-based numbers only if every point has a label (not negative)."""
    outcome = {"num_clusters": float(number), "neighbors": coefficients.nnz / len(clusters)}
    if (label >= 0).all():
        outcome |= metrics.labelling_metrics(clusters, label)
        outcome["fde"] = metrics.feature_detection_error(coefficients, label)
    return outcome
