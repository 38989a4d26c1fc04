"""Small images of one size held whole in memory, on the host or an accelerator; batches are cut there."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.images.flip_crop import draw_codes, flip_crop
from datamodules.loading.loaders import (
    ResumableDataLoader,
    as_it_is,
    data_root,
    evaluation_loader,
    training_device,
    training_loader,
)
from modules.components.options import at_least

PADDING = 4
"""Of the random crops, by reflection (the augmentation of Wide-ResNets)."""
Batch = dict[str, Tensor]


class ImagesInMemory(Dataset):
    """Labelled images; a draw is (epoch, index) or an index (epoch 0).

    Whole batches are made at once (``__getitems__``), on the device of the images.

    Args:
        images: uint8 [N, H, W, 3].
        labels: int64 [N], on the same device.
        padding: of the random crops (see datamodules/images/flip_crop.py); None hands the images out as they are.
        seed: of the crops.
    """

    def __init__(self, images: Tensor, labels: Tensor, padding: int | None = None, seed: int = 0) -> None:
        self.images, self.labels, self.padding, self.seed = images, labels, padding, seed

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, draw: tuple[int, int] | int) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: Sequence[tuple[int, int] | int]) -> Batch:
        """``image`` uint8 [B, 3, H, W] in channels_last format, ``label`` and ``index`` in the set int64 [B]."""
        keys = np.asarray([draw if isinstance(draw, tuple) else (0, draw) for draw in draws], np.int64)
        epoch, index = int(keys[0, 0]), keys[:, 1]  # a sampler's draws are all of one epoch
        chosen = torch.from_numpy(index).to(self.images.device)
        if self.padding is None:
            images = self.images[chosen]
        else:
            images = flip_crop(self.images, index, draw_codes(self.seed, epoch, index, self.padding), self.padding)
        return {"image": images.permute(0, 3, 1, 2), "label": self.labels[chosen], "index": chosen}


class SmallImages(LightningDataModule):
    """Training and test images in memory, on the accelerator if there is one; a set says how to ``read`` them.

    Batches: ``image`` uint8 [B, 3, S, S] in 0..255, channels_last, on the device that holds the images; ``label``
    int64 [B]; ``index`` int64 [B], the image's place in its set. Training images are padded by 4 with reflection,
    cropped at a random position and mirrored with probability 1/2, all of a batch at once; what is drawn follows from
    (seed, epoch, index) alone. ``mean`` and ``std`` are those of the training pixels on the scale 0..1, by channel,
    for the module to normalise with.

    Validation takes the test images, as the papers report them, unless ``validation_images`` are held out of the
    training set to tune on. Every image is evaluated exactly once.

    Args:
        root: holds the set's folder; PARSIMONY_DATA or ``data`` if not given.
        batch_size: training images a batch, on each device.
        val_batch_size: the same for validation and test.
        augment: whether training images are cropped and mirrored.
        validation_images: so many training images, of all classes in proportion, are validated instead of trained on.
        training_images: train on so many of the others, of all classes in proportion; 0 takes them all.
        cache: ``memory`` holds the images in RAM, in each process, ``device`` on the accelerator, where crops
            are then cut; ``auto`` on a GPU if the trainer uses one, else in RAM. Same batches in all.
        num_workers: loader processes; hardly of use, and unused when the images are on a device.
        seed: of the images held out and kept, of order, crops and mirroring.

    Raises:
        FileNotFoundError: if the files are missing.
        ValueError: for a bad argument or damaged files.
    """

    num_classes: ClassVar[int]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 128,
        val_batch_size: int = 500,
        augment: bool = True,
        validation_images: int = 0,
        training_images: int = 0,
        cache: Literal["auto", "memory", "device"] = "auto",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, batch_size=batch_size, val_batch_size=val_batch_size)
        if cache not in ("auto", "memory", "device"):
            raise ValueError(f"cache must be auto, memory or device, got {cache!r}")
        self.root = data_root(root)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.augment = augment
        self.validation_images, self.training_images = validation_images, training_images
        self.cache, self.num_workers, self.seed = cache, num_workers, seed
        self.sets: dict[str, ImagesInMemory] = {}

    def read(self, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [N, S, S, 3] and labels int64 [N]."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        fits, holds_out = stage == "fit", self.validation_images != 0
        if "train" not in self.sets and (fits or (stage == "validate" and holds_out)):
            self._set_up_training()
        if "test" not in self.sets and (stage in ("test", "predict") or not holds_out):
            self.sets["test"] = self._in_memory(*self.read("test"))
        if not holds_out and "test" in self.sets:
            self.sets["val"] = self.sets["test"]

    def train_dataloader(self) -> ResumableDataLoader:
        train = self.sets["train"]
        on_host = train.images.device.type == "cpu"
        return training_loader(
            train,
            self.batch_size,
            self.seed,
            self.num_workers if on_host else 0,
            self.trainer,
            pin_memory=on_host,
            collate_fn=as_it_is,
        )

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.sets["val"])

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader(self.sets["test"])

    predict_dataloader = test_dataloader

    def _evaluation_loader(self, images: ImagesInMemory) -> DataLoader:
        on_host = images.images.device.type == "cpu"
        return evaluation_loader(images, self.val_batch_size, 0, self.trainer, pin_memory=on_host, collate_fn=as_it_is)

    def _set_up_training(self) -> None:
        images, labels = self.read("train")
        rows = np.arange(len(images))
        if self.validation_images:
            rows, held_out = self._part(rows, labels, "validation_images")
            self.sets["val"] = self._in_memory(images[held_out], labels[held_out])
        if self.training_images:
            _, rows = self._part(rows, labels, "training_images")
        self.sets["train"] = self._in_memory(images[rows], labels[rows], PADDING if self.augment else None)

    def _part(self, rows: np.ndarray, labels: np.ndarray, option: str) -> tuple[np.ndarray, np.ndarray]:
        """The others of ``rows`` and as many as ``option`` says, both in order, of all classes in proportion."""
        count, most = getattr(self, option), len(rows) - self.num_classes
        if not self.num_classes <= count <= most:
            raise ValueError(
                f"{option} must be 0 or {self.num_classes} to {most}, so that all classes are in both parts, "
                f"got {count}"
            )
        parts = train_test_split(rows, test_size=count, random_state=self.seed, stratify=labels[rows])
        return np.sort(parts[0]), np.sort(parts[1])

    def _in_memory(self, images: np.ndarray, labels: np.ndarray, padding: int | None = None) -> ImagesInMemory:
        device = training_device(self.trainer)
        if self.cache == "memory" or (self.cache == "auto" and device.type != "cuda"):
            device = torch.device("cpu")
        on_device = [torch.from_numpy(array).to(device) for array in (images, labels)]
        return ImagesInMemory(on_device[0], on_device[1], padding, self.seed)
