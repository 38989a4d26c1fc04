"""Random splits of small sets with two classes, for a study: sonar from its file, two sets that come with scikit-learn.

Items: ``points`` float64 [N, p], every sample scaled to norm 1 as in the garrote experiment of the cone paper,
``label`` int64 [N] of 0 and 1, ``is_train`` bool [N], ``index`` (the draw) and an empty ``setting``.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.arrays.point_sets import gathering_loader, unit_norm
from datamodules.loading.loaders import data_root
from modules.components.files.arrays import read_csv

Name = Literal["sonar", "diabetes", "breast_cancer"]
SONAR = (
    "sonar.csv (60 numbers and a class of 1 and -1, 0 or R and M a line) or sonar.all-data of the UCI Machine Learning "
    "Repository, Connectionist Bench (Sonar, Mines vs. Rocks)"
)

CLASS_NAMES = {"M": np.inf, "R": -np.inf}
"""As numbers that none of the 60 may be."""
CLASSES = (set(CLASS_NAMES.values()), {1.0, -1.0}, {1.0, 0.0})


def read_sonar(root: Path) -> tuple[Tensor, Tensor]:
    """Points [N, 60] and labels: 1 for class 1 or M (mine).

    Raises:
        FileNotFoundError: naming what is expected where.
        ValueError: if a line is not 60 finite numbers and a class, or the classes are not exactly two of one kind.
    """
    paths = [root / name for name in ("sonar.csv", "sonar.all-data") if (root / name).is_file()]
    if not paths:
        raise FileNotFoundError(f"nothing of sonar in {root}. Expected is {SONAR}. Set the root by PARSIMONY_DATA.")
    try:
        table = read_csv(paths[0], CLASS_NAMES)
    except ValueError as error:
        raise ValueError(f"{error}. Expected is {SONAR}.") from None
    points, classes = table[:, :-1], table[:, -1]
    if points.shape[1] != 60 or not np.isfinite(points).all():
        raise ValueError(f"{paths[0]} holds {points.shape} numbers, not 60 finite ones a line. Expected is {SONAR}.")
    if set(classes.tolist()) not in CLASSES:
        names = {number: name for name, number in CLASS_NAMES.items()}
        found = ", ".join(sorted(str(names.get(c, c)) for c in set(classes.tolist())))
        raise ValueError(f"{paths[0]} has the classes {found}. Expected is {SONAR}.")
    return torch.from_numpy(points), torch.from_numpy(classes >= 1).long()


def read_classes(name: str, root: Path) -> tuple[Tensor, Tensor]:
    """Points [N, p] and labels [N]. Diabetes: is its progression above the median? Breast cancer: is it benign?

    Raises:
        ValueError: for an unknown name or a damaged file.
        FileNotFoundError: if sonar is not there.
    """
    if name == "sonar":
        return read_sonar(root)
    if name not in ("diabetes", "breast_cancer"):
        raise ValueError(f"unknown set {name}: choose sonar, diabetes or breast_cancer")
    content = load_diabetes() if name == "diabetes" else load_breast_cancer()
    target = content.target > np.median(content.target) if name == "diabetes" else content.target
    return torch.from_numpy(content.data), torch.from_numpy(target).long()


class SplitDraws(Dataset):
    """``repeats`` splits of points [N, p] with label [N]. Raises ValueError if ``share`` leaves one part empty."""

    def __init__(self, points: Tensor, label: Tensor, share: float, repeats: int, seed: int) -> None:
        self.points, self.label = unit_norm(points), label
        self.num_train, self.repeats, self.seed = round(share * len(points)), repeats, seed
        if not 0 < self.num_train < len(points):
            raise ValueError(f"share {share} of {len(points)} samples leaves none to train on or none to test on")

    def __len__(self) -> int:
        return self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        order = np.random.default_rng([self.seed, index]).permutation(len(self.points))
        is_train = torch.zeros(len(self.points), dtype=torch.bool)
        is_train[order[: self.num_train]] = True
        return {"points": self.points, "label": self.label, "is_train": is_train, "index": index, "setting": {}}


class BinarySplits(LightningDataModule):
    """Splits into training and test samples; the paper's are 100 of 70 % and 30 %.

    Args:
        name: which set.
        share: of the training samples.
        repeats: splits.
        seed: together with the repeat it determines a split.
        root: PARSIMONY_DATA or ``data`` if not given.
    """

    def __init__(
        self,
        name: Name = "diabetes",
        share: float = 0.7,
        repeats: int = 100,
        seed: int = 0,
        root: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if not 0 < share < 1 or repeats < 1:
            raise ValueError(f"0 < share < 1 and repeats >= 1, not {share}, {repeats}")
        self.source, self.share, self.repeats, self.seed = name, share, repeats, seed
        self.root = data_root(root)
        self.draws: SplitDraws | None = None

    def setup(self, stage: str) -> None:
        if self.draws is None:
            self.draws = SplitDraws(*read_classes(self.source, self.root), self.share, self.repeats, self.seed)

    def train_dataloader(self) -> DataLoader:
        assert self.draws is not None, "setup comes first"
        return gathering_loader(self.draws, None, self.trainer)
