"""A matrix of points from a file that the user names, with labels where they are known."""

import torch
from torch import Tensor

from datamodules.arrays.point_sets import GatheredPoints, unit_norm
from datamodules.loading.loaders import data_root
from modules.components.files.arrays import read_labels, read_matrix


class PointFiles(GatheredPoints):
    """A matrix of points from one file: rows are points.

    Args:
        points: .npy, .csv or .mat below the root, or absolute.
        labels: such a file of one whole number a point, if known.
        variable: of a .mat file of points; not needed where it holds one array.
        label_variable: of a .mat file of labels, which is that of the points if ``labels`` is not given.
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
        variable: str | None = None,
        label_variable: str | None = None,
        normalize: bool = False,
        root: str | None = None,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        folder = data_root(root)
        self.points_path, self.variable = folder / points, variable
        has_labels = labels is not None or label_variable is not None
        self.labels_path = folder / (labels or points) if has_labels else None
        self.label_variable, self.normalize = label_variable, normalize

    def load(self) -> tuple[Tensor, Tensor | None]:
        points = torch.from_numpy(read_matrix(self.points_path, self.variable))
        if self.normalize:
            points = unit_norm(points)
        if self.labels_path is None:
            return points, None
        return points, torch.from_numpy(read_labels(self.labels_path, len(points), self.label_variable))
