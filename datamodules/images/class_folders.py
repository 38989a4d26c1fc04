"""Labelled photographs in one folder for each class, and the crops that classifiers see.

A photograph is a path or an image of a packed set, decoded when it is drawn, or a uint8 tensor [3, H, W], on the host
or an accelerator. Crops are cut and scaled where the tensor lives; all of them follow from (seed, epoch, index) alone.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from datamodules.images.crops import Photo, centre_crop, read_tensor
from datamodules.images.packed import class_folders
from datamodules.images.reading import SkippedImageError, find_photos, map_in_threads
from datamodules.images.remote import Folder
from datamodules.images.sharded_images import Images, ShardedImages, fetch_ahead, is_packed
from datamodules.images.shards import Shards
from datamodules.loading.loaders import warn
from datamodules.loading.reporting import MAX_NAMES

ASPECT = (3 / 4, 4 / 3)
"""Width over height of a random part."""
TRIES = 10


class ClassFolders(NamedTuple):
    """The files or packed images of a split, class after class."""

    paths: Images
    labels: Sequence[int] | np.ndarray
    classes: list[str]
    """Names of the folders, sorted; a label is a position in here."""


def find_classes(folder: Folder, how_to_get: str) -> ClassFolders:
    """List a split.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no class folder, or a class without a file named like a photograph.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}. {how_to_get}")
    if not isinstance(folder, Path) or is_packed(folder):
        return packed_classes(folder)
    paths: list[Path] = []
    labels: list[int] = []
    classes = class_folders(folder)
    for label, path in enumerate(classes):
        files = find_photos(path)
        if not files:
            raise ValueError(f"no PNG, JPEG or WebP file in {path}: the class is empty. {how_to_get}")
        paths.extend(files)
        labels.extend([label] * len(files))
    if not classes:
        raise ValueError(f"{folder} holds no class folders. {how_to_get}")
    return ClassFolders(paths, labels, [path.name for path in classes])


def packed_classes(folder: Folder) -> ClassFolders:
    """The same of a packed set; raises a ValueError if images were packed that are in no folder."""
    images = ShardedImages(Shards(folder))
    labels = images.column("label").astype(np.int64)
    if outside := int((labels < 0).sum()):
        raise ValueError(f"{outside} images packed in {folder} are in no class folder: pack a folder of class folders")
    return ClassFolders(images, labels, images.shards.classes)


class RandomPart(NamedTuple):
    """A random part of the image, scaled to ``size`` x ``size``, mirrored with probability 1/2.

    The part covers between ``smallest`` and all of the area and is between 3:4 and 4:3. After ten draws that do not
    fit, the largest central part of an allowed shape is taken (Szegedy et al. 2015, as torchvision has it).
    """

    size: int
    smallest: float
    seed: int

    def box(self, height: int, width: int, random: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of the part."""
        for _ in range(TRIES):
            area = height * width * random.uniform(self.smallest, 1.0)
            aspect = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(random.integers(height - h + 1)), int(random.integers(width - w + 1)), h, w
        w = min(width, max(1, round(height * ASPECT[1])))
        h = min(height, max(1, round(width / ASPECT[0])))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        random = np.random.default_rng((self.seed, epoch, index))
        box = self.box(image.shape[1], image.shape[2], random)
        part = functional.resized_crop(image, *box, [self.size, self.size], antialias=True)
        return part.flip(2) if random.integers(2) else part


class CentralPart(NamedTuple):
    """The shorter side scaled to ``shorter_side``, the central ``size`` x ``size`` cut out."""

    size: int
    shorter_side: int

    def __call__(self, image: Tensor, epoch: int, index: int) -> Tensor:
        if min(image.shape[1:]) != self.shorter_side:
            image = functional.resize(image, [self.shorter_side], antialias=True)
        return centre_crop(image, self.size)


class LabelledPhotos(Dataset):
    """``image`` uint8 [3, S, S], ``label`` and ``index``; a draw is (epoch, index) or an index (epoch 0).

    8-bit grayscale is replicated to three channels. A file that turns out to be unusable in training is named once and
    replaced by the next usable one with its label, the same in every process.

    Args:
        images: paths, images of a packed set or uint8 tensors [3, H, W].
        labels: one each.
        part: cuts what the network sees.
    """

    def __init__(
        self, images: Sequence[Photo], labels: Sequence[int] | np.ndarray, part: RandomPart | CentralPart
    ) -> None:
        self.images, self.labels, self.part = images, labels, part
        # Shared, so that worker processes know what another one has named already.
        self.unusable = torch.zeros(len(self.images), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: tuple[int, int] | int) -> dict[str, Tensor]:
        epoch, index = draw if isinstance(draw, tuple) else (0, draw)
        image, label = self._usable(index)
        return {"image": self.part(image, epoch, index), "label": torch.tensor(label), "index": torch.tensor(index)}

    def __getitems__(self, draws: Sequence[tuple[int, int] | int]) -> list[dict[str, Tensor]]:
        fetch_ahead(self.images, (draw[1] if isinstance(draw, tuple) else draw for draw in draws))
        return [self[draw] for draw in draws]

    def load(self, device: torch.device, quiet: bool = False) -> None:
        """Decode all onto ``device``; unusable ones stay paths."""
        self.images = loaded = list(self.images)

        def load_one(position: int) -> None:
            try:
                loaded[position] = read_tensor(loaded[position], gray_to_rgb=True).to(device)
            except SkippedImageError as error:
                self._skip(position, error)

        for _ in map_in_threads(load_one, list(range(len(loaded))), "decoding images", quiet):
            pass

    def _usable(self, index: int) -> tuple[Tensor, int]:
        for step in range(len(self.images)):
            position = (index + step) % len(self.images)
            if not self.unusable[position]:
                try:
                    return read_tensor(self.images[position], gray_to_rgb=True), int(self.labels[position])
                except SkippedImageError as error:
                    self._skip(position, error)
        raise ValueError(f"none of the {len(self.images)} images can be used")

    def _skip(self, position: int, error: SkippedImageError) -> None:
        self.unusable[position] = True
        count = int(self.unusable.sum())
        if count <= MAX_NAMES:
            warn(f"skipping {self.images[position]}: {error.reason} ({count} so far)")
        elif count == MAX_NAMES + 1:
            warn(f"more than {MAX_NAMES} images were skipped; further ones are not named")
