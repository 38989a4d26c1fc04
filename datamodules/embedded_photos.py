"""Photographs that need no download: the two that scikit-learn ships, beside generated dead leaves."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule
from sklearn.datasets import load_sample_image  # type: ignore[import-untyped]
from torch.utils.data import DataLoader

from datamodules.images.crops import NamedImages, RandomCrops, to_tensor
from datamodules.images.dead_leaves import dead_leaves
from datamodules.loading.loaders import ResumableDataLoader, evaluation_loader, training_loader
from modules.components.options import at_least, within

PHOTOS = ("china", "flower")
SCALE = 0.6
HELD_OUT_COLUMNS = 160
"""Width of the held-out right part after scaling, of 384 columns."""
HELD_OUT_SEED = 1_000_000
"""Dead leaves for validation are seeded from here on, those for training below."""


@lru_cache(maxsize=1)
def photo_regions() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Training and held-out regions of the photographs, 256x224 and 256x160, uint8 [H, W, 3].

    A photograph is cut first and each part scaled (Lanczos, 0.6, which removes the JPEG artefacts) alone, so that
    no pixel of one part is seen in the other.
    """
    training, held_out = {}, {}
    for name in PHOTOS:
        photo = load_sample_image(f"{name}.jpg")
        cut = photo.shape[1] - round(HELD_OUT_COLUMNS / SCALE)
        training[f"{name}_left"] = scale_down(photo[:, :cut])
        held_out[f"{name}_right"] = scale_down(photo[:, cut:])
    return training, held_out


def scale_down(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = (round(width * SCALE), round(height * SCALE))
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def tiles(pixels: np.ndarray, size: int) -> list[np.ndarray]:
    """All whole ``size`` x ``size`` tiles, without overlap."""
    return [
        pixels[top : top + size, left : left + size]
        for top in range(0, pixels.shape[0] - size + 1, size)
        for left in range(0, pixels.shape[1] - size + 1, size)
    ]


class EmbeddedPhotos(LightningDataModule):
    """Crops of two real photographs and of generated dead leaves, made at setup; reads no file of the user.

    Half of the training crops come from the left parts of scikit-learn's china and flower, half from dead leaves.
    Held out are the right parts of the photographs, which no training crop touches, and dead leaves of other seeds.

    Batches are dicts. Training: ``image`` uint8 [batch_size, 3, crop_size, crop_size] in 0..255, random positions and
    flips. Validation: the tiles of the held-out photographs and as many of unseen dead leaves, with ``name``. Test
    and predict: the held-out photographs whole (256x160), one a batch, with ``name``.

    Args:
        crop_size: side of training crops, at most 160.
        val_crop_size: side of the tiles that are validated, at most 160; ``crop_size`` if not given.
        batch_size: crops a batch.
        num_dead_leaves: generated training images of 160x160; 0 leaves the photographs alone.
        crops_per_epoch: training crops per epoch, rounded to a multiple of the number of images.
        num_workers: loader processes; the images are in memory, so 0 is best.
        seed: of the dead leaves and of order, positions and flips.

    Raises:
        ValueError: for a crop size outside 1..160 or another non-positive size.
    """

    def __init__(
        self,
        crop_size: int = 64,
        val_crop_size: int | None = None,
        batch_size: int = 16,
        num_dead_leaves: int = 16,
        crops_per_epoch: int = 640,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        for name, size in (("crop_size", crop_size), ("val_crop_size", val_crop_size)):
            if size is not None and not 1 <= size <= HELD_OUT_COLUMNS:
                raise ValueError(f"{name} must be within 1..{HELD_OUT_COLUMNS}, got {size}")
        at_least(1, batch_size=batch_size, crops_per_epoch=crops_per_epoch)
        within(0, HELD_OUT_SEED - 1, num_dead_leaves=num_dead_leaves)
        at_least(0, num_workers=num_workers)
        self.crop_size = crop_size
        self.val_crop_size = val_crop_size or crop_size
        self.batch_size = batch_size
        self.num_dead_leaves = num_dead_leaves
        self.crops_per_epoch = crops_per_epoch
        self.num_workers = num_workers
        self.seed = seed
        self.train_set: RandomCrops | None = None
        self.val_set: NamedImages | None = None

    def held_out_images(self) -> dict[str, np.ndarray]:
        """The held-out photographs, uint8 [256, 160, 3] each, by name; available before setup."""
        return {name: pixels.copy() for name, pixels in photo_regions()[1].items()}

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.train_set is None:
            self.train_set = self._random_crops()
        if stage in ("fit", "validate") and self.val_set is None:
            self.val_set = self._held_out_tiles()

    def train_dataloader(self) -> ResumableDataLoader:
        assert self.train_set is not None, "setup comes first"
        return training_loader(self.train_set, self.batch_size, self.seed, self.num_workers, self.trainer)

    def val_dataloader(self) -> DataLoader:
        assert self.val_set is not None, "setup comes first"
        return evaluation_loader(self.val_set, self.batch_size, 0, self.trainer)

    def test_dataloader(self) -> DataLoader:
        images = self.held_out_images()
        return evaluation_loader(
            NamedImages([to_tensor(pixels) for pixels in images.values()], list(images)), 1, 0, self.trainer
        )

    predict_dataloader = test_dataloader

    def _random_crops(self) -> RandomCrops:
        photos = [to_tensor(pixels) for pixels in photo_regions()[0].values()]
        leaves = [to_tensor(dead_leaves(160, 160, self._leaf_seed(i))) for i in range(self.num_dead_leaves)]
        images: list[torch.Tensor] = leaves + photos * max(1, len(leaves) // len(photos))
        return RandomCrops(images, self.crop_size, max(1, round(self.crops_per_epoch / len(images))), self.seed)

    def _held_out_tiles(self) -> NamedImages:
        crops, names = [], []
        for name, pixels in photo_regions()[1].items():
            for i, tile in enumerate(tiles(pixels, self.val_crop_size)):
                crops.append(to_tensor(tile))
                names.append(f"{name}_{i}")
        for i in range(len(crops)):
            pixels = dead_leaves(self.val_crop_size, self.val_crop_size, HELD_OUT_SEED + i)
            crops.append(to_tensor(pixels))
            names.append(f"dead_leaves_{i}")
        return NamedImages(crops, names)

    def _leaf_seed(self, index: int) -> int:
        return (self.seed * self.num_dead_leaves + index) % HELD_OUT_SEED
