"""Points near a union of subspaces, as in every synthetic experiment of SSC-OMP and SSC-MP (section 5 of the sheet).

Letters: m ambient dimension, L subspaces of dimensions d_l, N points, t shared directions.
"""

from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.arrays.point_sets import GatheredPoints, gathering_loader, unit_norm


class Setting(NamedTuple):
    """One cell of an experiment."""

    ambient: int  # m
    dims: tuple[int, ...]  # d_l
    shared: int  # t, directions that all subspaces contain
    density: float  # rho, points per dimension: n_l = round(rho d_l)
    noise: float  # sigma: noise N(0, sigma^2 / m I), clean points have norm 1
    joint_basis: bool  # True: all directions orthonormal together; False: shared and own ones from separate draws
    normalize: bool  # scale the noisy points to norm 1


def orthonormal(rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    return np.linalg.qr(random.standard_normal((rows, columns)))[0]


def draw_bases(setting: Setting, random: np.random.Generator) -> list[np.ndarray]:
    """Bases [m, d_l], the shared directions first.

    With a joint basis, aff(S_k, S_l) is exactly sqrt(t / min(d_k, d_l)); without, the own directions of a subspace
    are orthonormal among themselves only (the authors' sensitivity and stopping experiments).
    """
    m, t = setting.ambient, setting.shared
    own = [dim - t for dim in setting.dims]
    if setting.joint_basis:
        together = orthonormal(m, t + sum(own), random)
        starts = t + np.cumsum([0, *own])
        return [np.hstack((together[:, :t], together[:, a : a + k])) for a, k in zip(starts, own, strict=False)]
    common = orthonormal(m, t, random)
    return [np.hstack((common, orthonormal(m, k, random))) for k in own]


def num_points(density: float, dim: int) -> int:
    """n_l, rounded half up."""
    return int(np.floor(density * dim + 0.5))


def draw_union(setting: Setting, key: list[int]) -> tuple[Tensor, Tensor]:
    """Points [N, m] and labels [N], ordered by subspace; a function of the setting and ``key`` alone.

    Coefficients are uniform on the unit sphere of R^d_l.
    """
    random = np.random.default_rng(key)
    points, labels = [], []
    for index, basis in enumerate(draw_bases(setting, random)):
        number = num_points(setting.density, basis.shape[1])
        coefficients = random.standard_normal((number, basis.shape[1]))
        coefficients /= np.linalg.norm(coefficients, axis=1, keepdims=True)
        points.append(coefficients @ basis.T)
        labels.append(np.full(number, index))
    clean = np.concatenate(points)
    noisy = clean + random.standard_normal(clean.shape) * (setting.noise / np.sqrt(setting.ambient))
    together = torch.from_numpy(noisy)
    return unit_norm(together) if setting.normalize else together, torch.from_numpy(np.concatenate(labels))


def check(setting: Setting) -> Setting:
    """``setting`` itself.

    Raises:
        ValueError: if no such union exists.
    """
    m, t = setting.ambient, setting.shared
    if not setting.dims or min(setting.dims) < 1 or not 0 <= t <= min(setting.dims):
        raise ValueError(f"shared must lie between 0 and the smallest of dims {list(setting.dims)}, not {t}")
    needed = t + sum(dim - t for dim in setting.dims) if setting.joint_basis else max(setting.dims)
    if needed > m:
        raise ValueError(f"{len(setting.dims)} such subspaces need {needed} dimensions, ambient is {m}")
    if not 0 < setting.density < np.inf or not 0 <= setting.noise < np.inf:
        raise ValueError(f"density must be positive and noise not negative: {setting.density}, {setting.noise}")
    if num_points(setting.density, min(setting.dims)) < 1:
        raise ValueError(f"density {setting.density} gives no point of {min(setting.dims)} dimensions; raise it")
    return setting


class UnionOfSubspaces(GatheredPoints):
    """One draw, handed out in batches of points; see ``Setting`` for the arguments."""

    def __init__(
        self,
        ambient: int = 200,
        dims: list[int] | None = None,
        shared: int = 4,
        density: float = 3.0,
        noise: float = 0.5,
        joint_basis: bool = True,
        normalize: bool = False,
        seed: int = 1,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        dims = [20, 20, 20] if dims is None else dims
        self.setting = check(Setting(ambient, tuple(dims), shared, density, noise, joint_basis, normalize))
        self.seed = seed

    def load(self) -> tuple[Tensor, Tensor]:
        return draw_union(self.setting, [self.seed])


class UnionDraws(Dataset):
    """All repeats of all settings, the first repeat of every setting first; a half-finished study covers them all."""

    def __init__(self, settings: list[Setting], repeats: int, seed: int) -> None:
        self.settings, self.repeats, self.seed = settings, repeats, seed

    def __len__(self) -> int:
        return len(self.settings) * self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        repeat, position = divmod(index, len(self.settings))
        setting = self.settings[position]
        cell = [setting.shared, round(1000 * setting.density), round(1000 * setting.noise)]
        points, label = draw_union(setting, [self.seed, *cell, repeat])
        named = {"shared": setting.shared, "density": setting.density, "noise": setting.noise}
        return {"points": points, "label": label, "index": index, "setting": named}


class UnionGrid(LightningDataModule):
    """Draws of every combination of ``shared``, ``density`` and ``noise``, for a study; items as in point_sets.py.

    Args:
        ambient, dims, joint_basis, normalize: as in ``Setting``.
        shared, density, noise: values of the grid's axes.
        repeats: draws of each setting.
        seed: together with the setting and the repeat it determines a draw, whatever else is in the grid.
    """

    def __init__(
        self,
        ambient: int,
        dims: list[int],
        shared: list[int],
        density: list[float],
        noise: list[float],
        repeats: int = 20,
        joint_basis: bool = True,
        normalize: bool = False,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {repeats}")
        grid = list(product(shared, density, noise))
        if not grid:
            raise ValueError(f"shared, density and noise need a value each, not {shared}, {density}, {noise}")
        settings = [check(Setting(ambient, tuple(dims), t, r, s, joint_basis, normalize)) for t, r, s in grid]
        self.draws = UnionDraws(settings, repeats, seed)

    def train_dataloader(self) -> DataLoader:
        return gathering_loader(self.draws, None, self.trainer)
