"""A non-negative matrix or tensor to be factorised, from a file that the user names.

Batches: ``points`` float64 [B, ...], the slices of the array along one of its axes, ``label`` and ``index`` as in
point_sets.py.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from datamodules.arrays.point_sets import GatheredPoints
from datamodules.loading.loaders import data_root
from modules.components.files.arrays import read_array


class ArrayFile(GatheredPoints):
    """An array of two or more axes from a file.

    Args:
        file: .npy, .csv or .mat, below the root or absolute.
        variable: of a .mat file; not needed where it holds one array.
        axis: along which the items lie.
        scale: divide by the mean of the array, as the paper does for KNIX, or by its largest entry.
        root: PARSIMONY_DATA or ``data`` if not given.
        batch_size: items handed out at a time.

    Raises:
        FileNotFoundError, ValueError: at setup, for a missing or unreadable file and one that cannot be scaled.
    """

    def __init__(
        self,
        file: str,
        variable: str | None = None,
        axis: int = 0,
        scale: Literal["mean", "max"] | None = None,
        root: str | None = None,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        self.path, self.variable, self.axis, self.scale = data_root(root) / file, variable, axis, scale

    def load(self) -> tuple[Tensor, None]:
        array = np.array(read_array(self.path, self.variable, self.axis), np.float64, order="C")
        if array.ndim < 2:
            raise ValueError(f"{self.path} holds an array of shape {array.shape}, not a real array of two or more axes")
        if self.scale is not None:
            size = float(array.mean() if self.scale == "mean" else array.max())
            if not np.isfinite(size) or size <= 0:
                raise ValueError(f"{self.path}: its {self.scale} {size} is no scale; are there only zeros or NaN?")
            array /= size
        return torch.from_numpy(array), None
