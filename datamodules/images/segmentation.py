"""Images with label maps that are one file each: reading, drawing scaled and mirrored crops, padding to a stride."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as nn_functional
from torch.utils.data import Dataset
from torchvision.transforms.v2 import InterpolationMode, functional

from datamodules.images.reading import UNREADABLE, SkippedImageError, decode, map_in_threads
from modules.components.files.images import MAX_PIXELS

log = logging.getLogger(__name__)

IGNORE = 255
FILL = (122, 114, 101)
"""ImageNet's mean colour, where an image has no pixels."""
NO_MASK, WRONG_MASK = "without label map", "with a label map of another size or type"


class Labelled(NamedTuple):
    name: str
    image: Path
    mask: Path


class View(NamedTuple):
    image: Tensor
    """uint8 [3, H, W]."""
    mask: Tensor
    """uint8 [H, W]; 255 is ignored."""


def read_mask(path: Path, num_classes: int) -> np.ndarray:
    """Labels uint8 [H, W] of a palette or grayscale PNG.

    Raises:
        SkippedImageError: for a missing or damaged file, another type, or labels that are neither classes nor 255.
    """
    if not path.is_file():
        raise SkippedImageError(NO_MASK)
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode not in ("L", "P") or image.width * image.height > MAX_PIXELS:
                raise SkippedImageError(WRONG_MASK)
            labels = np.array(image)
    except SkippedImageError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise SkippedImageError(UNREADABLE) from error
    if ((labels >= num_classes) & (labels != IGNORE)).any():
        raise SkippedImageError(WRONG_MASK)
    return labels


def read_view(item: Labelled, num_classes: int) -> View:
    """Image and mask as they are on disk; grayscale is replicated.

    Raises:
        SkippedImageError: for a damaged or missing file, or a mask that does not belong to the image.
    """
    pixels = decode(item.image, gray_to_rgb=True)
    labels = read_mask(item.mask, num_classes)
    if labels.shape != pixels.shape[:2]:
        raise SkippedImageError(WRONG_MASK)
    return View(torch.from_numpy(pixels).permute(2, 0, 1), torch.from_numpy(labels))


def pad(view: View, rows: int, columns: int) -> View:
    """At least this height and width, by the mean colour and 255 below and to the right."""
    height, width = view.mask.shape
    below, right = max(0, rows - height), max(0, columns - width)
    if not (below or right):
        return view
    channels = [nn_functional.pad(c, (0, right, 0, below), value=f) for c, f in zip(view.image, FILL, strict=True)]
    return View(torch.stack(channels), nn_functional.pad(view.mask, (0, right, 0, below), value=IGNORE))


def random_crop(view: View, crop: tuple[int, int], scales: tuple[float, float], key: tuple[int, int, int]) -> View:
    """Image and mask scaled by one factor, cropped at one place and mirrored together with probability 1/2.

    The mask is scaled by the nearest pixel. A function of ``key`` alone.
    """
    random = np.random.default_rng(key)
    factor = random.uniform(*scales)
    size = [max(1, round(side * factor)) for side in view.mask.shape]
    image = functional.resize(view.image, size, antialias=True)
    mask = functional.resize(view.mask[None], size, InterpolationMode.NEAREST_EXACT)[0]
    view = pad(View(image, mask), *crop)
    height, width = view.mask.shape
    top, left = int(random.integers(height - crop[0] + 1)), int(random.integers(width - crop[1] + 1))
    mirror = bool(random.integers(2))
    cut = [item[..., top : top + crop[0], left : left + crop[1]] for item in view]
    return View(*(item.flip(-1) if mirror else item for item in cut))


class SegmentationImages(Dataset):
    """``image`` uint8 [3, H, W], ``mask`` int64 [H, W] with 255 to be ignored, ``name``.

    A draw is (epoch, index), a random crop, or only an index, the whole image padded to multiples of ``multiple``. An
    item whose files turn out to be unusable in training is named once and replaced by the next usable one.

    Args:
        items: image and mask files.
        num_classes: labels are below, or 255.
        crop: height and width of random crops.
        scales: smallest and largest factor that they are scaled by.
        multiple: of the sides of whole images.
        seed: of scales, positions and flips.
    """

    def __init__(
        self,
        items: list[Labelled],
        num_classes: int,
        crop: tuple[int, int],
        scales: tuple[float, float],
        multiple: int,
        seed: int,
    ) -> None:
        self.items, self.num_classes = items, num_classes
        self.crop, self.scales, self.multiple, self.seed = crop, scales, multiple, seed
        self.unusable = torch.zeros(len(items), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, draw: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = draw if isinstance(draw, tuple) else (None, draw)
        position, view = self._usable(index)
        if epoch is None:
            view = pad(view, *(-(-side // self.multiple) * self.multiple for side in view.mask.shape))
        else:
            view = random_crop(view, self.crop, self.scales, (self.seed, epoch, index))
        return {
            "image": view.image.contiguous(),
            "mask": view.mask.long(),
            "name": self.items[position].name,
        }

    def drop_unusable(self, quiet: bool) -> dict[str, list[str]]:
        """Read every item once and leave out what cannot be used; the names of those, by reason."""

        def complaint(item: Labelled) -> str:
            try:
                read_view(item, self.num_classes)
            except SkippedImageError as error:
                return error.reason
            return ""

        reasons = list(map_in_threads(complaint, self.items, "reading images", quiet))
        skipped: dict[str, list[str]] = {}
        for item, reason in zip(self.items, reasons, strict=True):
            if reason:
                skipped.setdefault(reason, []).append(item.name)
        self.items = [item for item, reason in zip(self.items, reasons, strict=True) if not reason]
        self.unusable = self.unusable[: len(self.items)]
        return skipped

    def _usable(self, index: int) -> tuple[int, View]:
        for step in range(len(self.items)):
            position = (index + step) % len(self.items)
            if not self.unusable[position]:
                try:
                    return position, read_view(self.items[position], self.num_classes)
                except SkippedImageError as error:
                    self.unusable[position] = True
                    count = int(self.unusable.sum())
                    log.warning("skipping %s: %s (%d so far)", self.items[position].image, error.reason, count)
        raise ValueError(f"none of the {len(self.items)} images can be used")
