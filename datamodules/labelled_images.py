"""Extended Yale B and COIL-20 from .mat files, and Extended Yale B in its official layout, as points."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.arrays.point_sets import GatheredPoints, gathering_loader, unit_norm
from datamodules.loading.loaders import data_root
from modules.components.files.arrays import read_array, read_labels
from modules.components.files.images import open_image

HOW_TO_GET = {
    "extended_yale_b_32x32": "extended_yale_b_32x32.mat with `fea` [2414, 1024] and `gnd` (32x32 crops, 38 subjects)",
    "coil20": "coil20.mat with `X` [1440, 1024] and `Y` (20 objects, 72 views)",
    "extended_yale_b": "CroppedYale/yaleB01 .. yaleB39/*.pgm, 168x192 pixels, of the cropped Extended Yale Face "
    "Database B, http://vision.ucsd.edu/~leekc/ExtYaleDatabase/ExtYaleB.html",
}
OFFICIAL_SIZE = (168, 192)
SIZE = (42, 48)
"""Width and height to which the paper shrinks the official 168x192 crops, a factor of 4."""
Name = Literal["extended_yale_b_32x32", "coil20", "extended_yale_b"]


def read_points(path: Path, points_key: str, label_key: str) -> tuple[Tensor, Tensor]:
    """Points float64 [N, D] of a .mat file, in [0, 1] (bytes are divided by 255), and labels [N].

    Raises:
        ValueError: if the file is not a MATLAB file, lacks the arrays or has others than these.
    """
    points = read_array(path, points_key)
    if points.ndim != 2:
        raise ValueError(f"{path}: {points_key} of shape {points.shape} is not a matrix [N, D]")
    scale = 255.0 if points.dtype == np.uint8 else 1.0
    label = read_labels(path, len(points), label_key)
    return torch.from_numpy(points.astype(np.float64) / scale), torch.from_numpy(label)


def read_pgm(path: Path) -> np.ndarray:
    """One image of the official layout, area-averaged to 48x42: float64 [2016] in [0, 1].

    Raises:
        ValueError: if it is damaged or anything but 8-bit gray of 168x192 pixels.
    """
    try:
        with open_image(path, ("PPM",)) as image:
            if image.mode != "L" or image.size != OFFICIAL_SIZE:
                raise ValueError(f"mode {image.mode} and size {image.size} are not 8-bit gray of {OFFICIAL_SIZE}")
            return np.asarray(image.resize(SIZE, Image.Resampling.BOX)).reshape(-1) / 255
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise ValueError(f"{path} cannot be read: {error}") from None


def read_cropped_yale(folder: Path) -> tuple[Tensor, Tensor]:
    """The official layout: points [N, 2016] in [0, 1] and the subjects [N]; ambient-light images are left out."""
    paths = [path for path in sorted(folder.glob("yaleB*/*.pgm")) if "Ambient" not in path.name]
    if not paths:
        raise ValueError(f"no yaleB*/*.pgm in {folder}. Expected is {HOW_TO_GET['extended_yale_b']}")
    labels = [int("".join(c for c in path.parent.name if c.isdecimal()) or 0) for path in paths]
    return torch.from_numpy(np.stack([read_pgm(path) for path in paths])), torch.tensor(labels)


def read_images(name: str, root: Path) -> tuple[Tensor, Tensor]:
    """Points and labels of one of the sets.

    Raises:
        FileNotFoundError: naming what is expected where.
        ValueError: for an unknown name or a damaged file.
    """
    readers: dict[str, tuple[str, Callable[[Path], tuple[Tensor, Tensor]]]] = {
        "extended_yale_b_32x32": ("extended_yale_b_32x32.mat", lambda path: read_points(path, "fea", "gnd")),
        "coil20": ("coil20.mat", lambda path: read_points(path, "X", "Y")),
        "extended_yale_b": ("CroppedYale", read_cropped_yale),
    }
    if name not in readers:
        raise ValueError(f"unknown image set {name}: choose one of {', '.join(readers)}")
    file, read = readers[name]
    if not (root / file).exists():
        raise FileNotFoundError(f"no {root / file}. Expected is {HOW_TO_GET[name]}. Set the root by PARSIMONY_DATA.")
    return read(root / file)


class LabelledImages(GatheredPoints):
    """All images of a set, each a point.

    Args:
        name: which set.
        classes: take only the first so many classes.
        normalize: scale every point to norm 1.
        root: PARSIMONY_DATA or ``data`` if not given.
        batch_size: points handed out at a time.
    """

    def __init__(
        self,
        name: Name = "extended_yale_b_32x32",
        classes: int | None = None,
        normalize: bool = True,
        root: str | None = None,
        batch_size: int = 4096,
    ) -> None:
        super().__init__(batch_size)
        self.save_hyperparameters()
        if classes is not None and classes < 1:
            raise ValueError(f"classes must be at least 1, or null for all, not {classes}")
        self.source, self.classes, self.normalize, self.root = name, classes, normalize, data_root(root)

    def load(self) -> tuple[Tensor, Tensor]:
        points, label = read_images(self.source, self.root)
        if self.classes is not None:
            present = label.unique()
            if self.classes > len(present):
                raise ValueError(f"{self.source} has {len(present)} classes; {self.classes} are asked for")
            kept = label <= present[self.classes - 1]
            points, label = points[kept], label[kept]
        return unit_norm(points) if self.normalize else points, label


class SubjectDraws(Dataset):
    """Random subsets of the classes, every size in ``numbers`` ``repeats`` times; points have norm 1."""

    def __init__(self, points: Tensor, label: Tensor, numbers: list[int], repeats: int, seed: int) -> None:
        self.points, self.label = unit_norm(points), label
        self.numbers, self.repeats, self.seed = numbers, repeats, seed
        self.classes = label.unique()

    def __len__(self) -> int:
        return len(self.numbers) * self.repeats

    def __getitem__(self, index: int) -> dict[str, Any]:
        repeat, position = divmod(index, len(self.numbers))
        number = self.numbers[position]
        random = np.random.default_rng([self.seed, number, repeat])
        chosen = self.classes[random.permutation(len(self.classes))[:number]]
        kept = torch.isin(self.label, chosen)
        setting = {"subjects": number}
        return {"points": self.points[kept], "label": self.label[kept], "index": index, "setting": setting}


class ImageSubsets(LightningDataModule):
    """Draws of L random subjects, for a study (Tables 1 and 2 of the paper: L in {2, 3, 5, 8, 10}, 100 draws).

    Args:
        name, root: as in ``LabelledImages``.
        numbers: sizes L of the subsets.
        repeats: draws of each size.
        seed: together with the size and the repeat it determines a draw.
    """

    def __init__(
        self,
        name: Name = "extended_yale_b_32x32",
        numbers: list[int] | None = None,
        repeats: int = 100,
        seed: int = 100,
        root: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.numbers = [2, 3, 5, 8, 10] if numbers is None else numbers
        if repeats < 1 or not self.numbers or min(self.numbers) < 1:
            raise ValueError(f"repeats and numbers must be positive: {repeats}, {self.numbers}")
        self.source, self.repeats, self.seed, self.root = name, repeats, seed, data_root(root)
        self.draws: SubjectDraws | None = None

    def setup(self, stage: str) -> None:
        if self.draws is None:
            points, label = read_images(self.source, self.root)
            if max(self.numbers) > len(label.unique()):
                raise ValueError(f"{self.source} has {len(label.unique())} classes; {max(self.numbers)} are asked for")
            self.draws = SubjectDraws(points, label, self.numbers, self.repeats, self.seed)

    def train_dataloader(self) -> DataLoader:
        assert self.draws is not None, "setup comes first"
        return gathering_loader(self.draws, None, self.trainer)
