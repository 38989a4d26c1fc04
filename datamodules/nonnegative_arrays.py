"""Non-negative matrices and tensors to be factorised: files, handwritten digits, generated low-rank tensors.

Batches: ``points`` float64 [B, ...], the slices of the array along its first axis, ``label`` and ``index`` as in
point_sets.py.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from datamodules.arrays.array_files import read_npy
from datamodules.arrays.mat_files import read_mat
from datamodules.arrays.point_sets import GatheredPoints
from datamodules.loading.loaders import data_root


def read_array(path: Path, variable: str) -> np.ndarray:
    """float64 array of two or more axes from a .npy file or from ``variable`` of a .mat file, as in array_files.py.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or holds anything but real numbers.
    """
    array = read_npy(path) if path.suffix == ".npy" else read_mat(path, [variable])[0]
    if array.ndim < 2:
        raise ValueError(f"{path} holds an array of shape {array.shape}, not a real array of two or more axes")
    return np.require(array, np.float64, "W")


class ArrayFile(GatheredPoints):
    """An array from a file.

    Args:
        file: .npy or .mat, below the root or absolute.
        variable: of a .mat file.
        axis: along which the items lie.
        scale: divide by the mean of the array, as the paper does for KNIX, or by its largest entry.
        root: PARSIMONY_DATA or ``data`` if not given.
        batch_size: items handed out at a time.
    """

    def __init__(
        self,
        file: str,
        variable: str = "V",
        axis: int = 0,
        scale: Literal["mean", "max"] | None = None,
        root: str | None = None,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        self.path, self.variable, self.axis, self.scale = data_root(root) / file, variable, axis, scale

    def load(self) -> tuple[Tensor, None]:
        array = read_array(self.path, self.variable)
        if not -array.ndim <= self.axis < array.ndim:
            raise ValueError(f"{self.path} has {array.ndim} axes; axis {self.axis} is none of them")
        if self.scale is not None:
            size = float(array.mean() if self.scale == "mean" else array.max())
            if not np.isfinite(size) or size <= 0:
                raise ValueError(f"{self.path}: its {self.scale} {size} is no scale; are there only zeros or NaN?")
            array /= size
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, self.axis, 0))), None


class Digits(GatheredPoints):
    """The 1,797 handwritten digits of 8x8 pixels that come with scikit-learn: points [B, 64] in [0, 1]."""

    def __init__(self, batch_size: int = 4096) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()

    def load(self) -> tuple[Tensor, Tensor]:
        digits = load_digits()
        return torch.from_numpy(digits.data / 16), torch.from_numpy(digits.target)


class LowRankTensor(GatheredPoints):
    """A sum of ``rank`` outer products of vectors from U(0, 1), of which a share is zero, plus noise.

    Args:
        shape: sizes of two or more modes.
        rank: number of terms.
        zeros: share of the factors' entries that is zero.
        noise: |half-normal noise|_F as a share of the sum's norm; the array stays non-negative.
        seed: of everything.
    """

    def __init__(
        self,
        shape: list[int] | None = None,
        rank: int = 8,
        zeros: float = 0.5,
        noise: float = 0.01,
        seed: int = 0,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        self.shape = [60, 50, 24] if shape is None else shape
        if len(self.shape) < 2 or min(*self.shape, rank) < 1 or not 0 <= zeros < 1 or not 0 <= noise < np.inf:
            raise ValueError(f"two or more sizes, rank >= 1, 0 <= zeros < 1, noise >= 0: {shape, rank, zeros, noise}")
        self.rank, self.zeros, self.noise, self.seed = rank, zeros, noise, seed

    def load(self) -> tuple[Tensor, None]:
        random = np.random.default_rng(self.seed)
        whole = np.zeros(self.shape)
        for _ in range(self.rank):
            term = np.ones(())
            for size in self.shape:
                term = np.multiply.outer(term, random.random(size) * (random.random(size) >= self.zeros))
            whole += term
        noise = np.abs(random.standard_normal(whole.shape))
        whole += noise * (self.noise * np.linalg.norm(whole) / np.linalg.norm(noise))
        return torch.from_numpy(whole), None
