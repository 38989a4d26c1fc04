"""A matrix of points from a file that the user names, with labels where they are known."""

from pathlib import Path

import torch
from torch import Tensor

from datamodules.arrays.array_files import whole_numbers
from datamodules.arrays.point_sets import GatheredPoints, read_matrix, read_numbers, unit_norm
from datamodules.loading.loaders import data_root


class PointFiles(GatheredPoints):
    """A matrix of points from one file: rows are points.

    Args:
        points: .npy or .csv below the root, or absolute.
        labels: .npy or .csv of one whole number a point, if known.
        normalize: scale every point to norm 1.
        root: PARSIMONY_DATA or ``data`` if not given.
        batch_size: rows handed out at a time.

    Raises:
        FileNotFoundError, ValueError: at setup, for missing, unreadable or unequally long files.
    """

    def __init__(
        self,
        points: str,
        labels: str | None = None,
        normalize: bool = False,
        root: str | None = None,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        folder = data_root(root)
        self.points_path = folder / points
        self.labels_path = None if labels is None else folder / labels
        self.normalize = normalize

    def load(self) -> tuple[Tensor, Tensor | None]:
        points = torch.from_numpy(read_matrix(self.points_path))
        if self.normalize:
            points = unit_norm(points)
        return points, None if self.labels_path is None else self._labels(self.labels_path, len(points))

    @staticmethod
    def _labels(path: Path, number: int) -> Tensor:
        values = whole_numbers(read_numbers(path), path)
        if len(values) != number:
            raise ValueError(f"{path} holds {len(values)} labels for {number} points")
        return torch.from_numpy(values)
