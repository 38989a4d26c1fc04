"""Vectors to be coded by a cone of non-negative atoms: the synthetic experiment of NNMP, AMP, PWMP and FCMP."""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.arrays.point_sets import gathering_loader
from modules.components.options import above, at_least


def draw_problem(
    dim: int, num_atoms: int, num_flips: int, scale: float, key: list[int] | np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Atoms [dim, num_atoms] of norm 1 with entries from U(0, 1), and y [dim] = atoms a with a from U(0, scale), some
    of whose signs are flipped: y lies outside of the cone. Flips are drawn with replacement (section 5, no. 1).

    As in the authors' code a coefficient is drawn for the atom 0, too; it has no effect. ``key`` is a seed or a
    generator that goes on.
    """
    random = np.random.default_rng(key)
    atoms = random.random((dim, num_atoms))
    atoms /= np.linalg.norm(atoms, axis=0)
    y = atoms @ (scale * random.random(num_atoms + 1))[1:]
    y[random.integers(0, dim, num_flips)] *= -1
    return torch.from_numpy(atoms), torch.from_numpy(y)


class ConeDraws(Dataset):
    """Items: ``points`` [1, dim], ``atoms`` [dim, num_atoms], ``index`` and an empty ``setting``.

    All problems are drawn in a row by one generator, as the sheet's were.
    """

    def __init__(self, dim: int, num_atoms: int, num_flips: int, scale: float, repeats: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.problems = [draw_problem(dim, num_atoms, num_flips, scale, random) for _ in range(repeats)]

    def __len__(self) -> int:
        return len(self.problems)

    def __getitem__(self, index: int) -> dict[str, Any]:
        atoms, y = self.problems[index]
        return {"points": y[None], "atoms": atoms, "index": index, "setting": {}}


class ConeProblems(LightningDataModule):
    """Independent problems for a convergence study.

    Args:
        dim, num_atoms, num_flips, scale: of ``draw_problem``; the paper's by default.
        repeats: problems.
        seed: of all of them; 0 with the paper's sizes are the problems of the sheet's table.
    """

    def __init__(
        self,
        dim: int = 50,
        num_atoms: int = 100,
        num_flips: int = 10,
        scale: float = 5.0,
        repeats: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, dim=dim, num_atoms=num_atoms, repeats=repeats)
        at_least(0, num_flips=num_flips)
        above(0, scale=scale)
        self.draws = ConeDraws(dim, num_atoms, num_flips, scale, repeats, seed)

    def train_dataloader(self) -> DataLoader:
        return gathering_loader(self.draws, None, self.trainer)
