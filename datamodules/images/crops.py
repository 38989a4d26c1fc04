"""Datasets of photographs: seeded random crops for training, named images for evaluation.

A photograph is a path or an image of a packed set, decoded when it is drawn, or a uint8 tensor [3, H, W]. Caching means
replacing files by tensors, in memory or on an accelerator; a crop is cut where the tensor lives. All give equal crops.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from datamodules.images.reading import TOO_SMALL, SkippedImageError, decode, map_in_threads
from datamodules.images.sharded_images import ShardImage, fetch_ahead, source_of
from datamodules.loading.reporting import MAX_NAMES

log = logging.getLogger(__name__)
Photo = Path | ShardImage | Tensor


def read_tensor(image: Photo, gray_to_rgb: bool = False) -> Tensor:
    """The photograph as uint8 [3, H, W].

    Raises:
        SkippedImageError: if it is a file that cannot be used.
    """
    return image if isinstance(image, Tensor) else to_tensor(decode(source_of(image), gray_to_rgb))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 [H, W, 3] -> uint8 [3, H, W]."""
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def centre_crop(image: Tensor, size: int) -> Tensor:
    """The square crop [3, size, size] in the middle.

    Raises:
        SkippedImageError: if the image is smaller.
    """
    if min(image.shape[1:]) < size:
        raise SkippedImageError(TOO_SMALL)
    top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
    return image[:, top : top + size, left : left + size].clone()


def random_crop(image: Tensor, size: int, key: tuple[int, int, int]) -> Tensor:
    """A square crop at a uniform position, mirrored with probability 1/2; a function of ``key`` alone."""
    generator = np.random.default_rng(key)
    top = int(generator.integers(image.shape[1] - size + 1))
    left = int(generator.integers(image.shape[2] - size + 1))
    crop = image[:, top : top + size, left : left + size]
    return crop.flip(2) if generator.integers(2) else crop.clone()


class RandomCrops(Dataset):
    """Random crops of photographs at least ``crop_size`` in height and width.

    A draw is (epoch, index) with index < len(images) * crops_per_image, or only an index (epoch 0). A file that turns
    out to be unreadable is named once and replaced by the next readable one, the same in every process.

    Args:
        images: paths, images of a packed set or uint8 tensors [3, H, W].
        crop_size: side of the crop.
        crops_per_image: crops that each photograph gives per epoch.
        seed: of positions and flips.
    """

    def __init__(self, images: Sequence[Photo], crop_size: int, crops_per_image: int = 1, seed: int = 0) -> None:
        self.images = images
        self.crop_size = crop_size
        self.crops_per_image = crops_per_image
        self.seed = seed
        # Shared, so that worker processes know what another one has named already.
        self.unreadable = torch.zeros(len(self.images), dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        return len(self.images) * self.crops_per_image

    def __getitem__(self, draw: tuple[int, int] | int) -> dict[str, Tensor]:
        epoch, index = draw if isinstance(draw, tuple) else (0, draw)
        image = self._readable_image(index % len(self.images))
        return {"image": random_crop(image, self.crop_size, (self.seed, epoch, index))}

    def __getitems__(self, draws: Sequence[tuple[int, int] | int]) -> list[dict[str, Tensor]]:
        indices = (draw[1] if isinstance(draw, tuple) else draw for draw in draws)
        fetch_ahead(self.images, (index % len(self.images) for index in indices))
        return [self[draw] for draw in draws]

    def load(self, device: torch.device, quiet: bool = False) -> None:
        """Decode all photographs onto ``device``. Unreadable ones stay paths."""
        self.images = loaded = list(self.images)

        def load_one(position: int) -> None:
            try:
                loaded[position] = read_tensor(loaded[position]).to(device)
            except SkippedImageError as error:
                self._skip(position, error)

        for _ in map_in_threads(load_one, list(range(len(loaded))), "decoding photos", quiet):
            pass

    def _readable_image(self, position: int) -> Tensor:
        for step in range(len(self.images)):
            candidate = (position + step) % len(self.images)
            if not self.unreadable[candidate]:
                try:
                    return read_tensor(self.images[candidate])
                except SkippedImageError as error:
                    self._skip(candidate, error)
        raise ValueError(f"none of the {len(self.images)} photographs can be read")

    def _skip(self, position: int, error: SkippedImageError) -> None:
        self.unreadable[position] = True
        count = int(self.unreadable.sum())
        if count <= MAX_NAMES:
            log.warning("skipping %s: %s (%d so far)", self.images[position], error.reason, count)
        elif count == MAX_NAMES + 1:
            log.warning("more than %d photographs were skipped; further ones are not named", MAX_NAMES)


class NamedImages(Dataset):
    """Whole photographs with their names, for evaluation: ``image`` uint8 [3, H, W] and ``name``."""

    def __init__(self, images: Sequence[Photo], names: Sequence[str], gray_to_rgb: bool = False) -> None:
        self.images = images
        self.names = names
        self.gray_to_rgb = gray_to_rgb

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        return {"image": read_tensor(self.images[index], self.gray_to_rgb), "name": self.names[index]}
