"""What the picture of a clustering is made of, and that it is written."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from callbacks.reports.cluster_picture import MOST_CELLS, ClusterPicture, embedding, ordered_cells

LABELS = np.array([1, 0, 1, 0, 0, 1])


def graph(labels: np.ndarray) -> csr_array:
    """All pairs within a cluster, and one weak edge between the first two points."""
    weights = (labels[:, None] == labels).astype(float)
    np.fill_diagonal(weights, 0)
    weights[0, 1] = weights[1, 0] = 0.01
    return csr_array(weights)


def test_cells_are_sorted_by_label_and_keep_the_sum() -> None:
    order = np.argsort(LABELS, kind="stable")
    assert np.array_equal(ordered_cells(graph(LABELS), LABELS), graph(LABELS).toarray()[order][:, order])
    labels = np.random.default_rng(0).integers(0, 3, MOST_CELLS * 2 + 7)
    cells = ordered_cells(graph(labels), labels)
    assert cells.shape == (MOST_CELLS, MOST_CELLS)
    assert cells.sum() == pytest.approx(graph(labels).sum())


def test_the_embedding_separates_the_clusters() -> None:
    first = embedding(graph(LABELS), 2)[:, 0]
    assert max(first[LABELS == 0]) < 0 < min(first[LABELS == 1]) or max(first[LABELS == 1]) < 0 < min(
        first[LABELS == 0]
    )


@pytest.mark.parametrize(("matrix", "is_written"), [(graph(LABELS), True), (None, False)])
def test_a_fit_leaves_its_picture(tmp_path: Path, matrix: csr_array | None, is_written: bool) -> None:
    trainer = SimpleNamespace(
        is_global_zero=True, fast_dev_run=False, default_root_dir=str(tmp_path / "run"), loggers=[]
    )
    outputs = (torch.arange(6), torch.from_numpy(LABELS))
    module = SimpleNamespace(graph=matrix, fitted_outputs=lambda: outputs)
    ClusterPicture().on_fit_end(trainer, module)  # type: ignore[arg-type]
    assert (tmp_path / "run" / "clusters.png").is_file() == is_written
