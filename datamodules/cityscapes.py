"""Cityscapes in its official layout: images with label and instance maps, for adversarial codecs and segmentation."""

from typing import Any, Literal

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.images.scenes import Scenes, find_scenes
from datamodules.images.whole_images import warn_of_skipped
from datamodules.loading.loaders import (
    ResumableDataLoader,
    data_root,
    evaluation_loader,
    is_rank_zero,
    training_loader,
)
from datamodules.loading.reporting import describe_skipped
from modules.components.options import at_least


class Cityscapes(LightningDataModule):
    """Street scenes; see datamodules/images/scenes.py for the layout below ``<root>/<folder>``.

    Batches are dicts: ``image`` uint8 [N, 3, H, W] in 0..255, ``mask`` int64 [N, H, W] of label ids with 255 to be
    ignored, ``instance`` int64 [N, H, W] (label * 1000 + n, or the label alone), ``name`` a list. Training scenes are
    mirrored with probability 1/2, and cropped if ``crop`` is given; the others are whole and one a batch.

    Scenes with damaged, missing or mismatching files are skipped, counted and named: at setup those of evaluation and,
    with ``cache: memory``, of training, otherwise when they are drawn.

    Args:
        root: the data root; PARSIMONY_DATA or ``data`` if not given.
        folder: below the root, or absolute; any set in this layout will do.
        size: height and width that scenes are resized to, multiples of 16.
        crop: height and width of random training crops, multiples of 8; whole scenes if not given.
        labels: ``ids`` 0..33, or ``train_ids`` 0..18, the classes that segmentation is judged by.
        batch_size: training scenes a batch, on each device.
        cache: ``none`` reads files for every draw, in the workers; ``memory`` keeps all resized training scenes.
        val_split, test_split: the official test split has no labels, so ``test`` is ``val`` by default.
        num_workers: loader processes.
        seed: of order, positions and flips.

    Raises:
        FileNotFoundError: at setup, if a folder is missing.
        ValueError: for a bad argument, or if no scene of a split is usable.
    """

    def __init__(
        self,
        root: str | None = None,
        folder: str = "cityscapes",
        size: tuple[int, int] = (512, 1024),
        crop: tuple[int, int] | None = None,
        labels: Literal["ids", "train_ids"] = "ids",
        batch_size: int = 1,
        cache: Literal["none", "memory"] = "none",
        val_split: str = "val",
        test_split: str = "val",
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if min(size) < 16 or any(side % 16 for side in size):
            raise ValueError(f"height and width must be multiples of 16, got {tuple(size)}")
        if crop and (min(crop) < 8 or any(side % 8 for side in crop) or crop[0] > size[0] or crop[1] > size[1]):
            raise ValueError(f"crop must be multiples of 8 and fit into {tuple(size)}, got {tuple(crop)}")
        if labels not in ("ids", "train_ids") or cache not in ("none", "memory"):
            raise ValueError(f"labels are ids or train_ids, cache none or memory; got {labels!r}, {cache!r}")
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        self.folder = data_root(root) / folder
        self.size, self.crop = tuple(size), tuple(crop) if crop else None
        self.train_ids = labels == "train_ids"
        self.batch_size, self.cache = batch_size, cache
        self.splits = {"train": "train", "val": val_split, "test": test_split}
        self.num_workers, self.seed = num_workers, seed
        self.sets: dict[str, Scenes] = {}

    def setup(self, stage: str) -> None:
        roles = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for role in roles[stage]:
            if role not in self.sets:
                self.sets[role] = self._scenes(role)

    def _scenes(self, role: str) -> Scenes:
        crop = self.crop if role == "train" else None
        found = find_scenes(self.folder, self.splits[role])
        scenes = Scenes(found, self.size, crop, self.train_ids, self.seed)  # type: ignore[arg-type]
        keep = role == "train" and self.cache == "memory"
        if keep or role != "train":
            skipped = scenes.drop_unusable(keep, quiet=not is_rank_zero())
            warn_of_skipped(self.folder, skipped)
            if not len(scenes):
                raise ValueError(f"no usable scene in {self.folder}: {describe_skipped(skipped)}")
        return scenes

    def held_out_scenes(self, count: int) -> list[dict[str, Any]]:
        """``count`` validation scenes, spread over the split: neighbours are frames of one drive.

        Each a dict of arrays: ``image`` uint8 [H, W, 3], ``mask`` and ``instance`` int64 [H, W], and ``name``.
        """
        if "val" not in self.sets:
            self.sets["val"] = self._scenes("val")
        scenes = []
        last = len(self.sets["val"]) - 1
        for index in np.linspace(0, last, min(count, last + 1)).round().astype(int).tolist():
            item = self.sets["val"][index]
            pixels = np.ascontiguousarray(item["image"].permute(1, 2, 0).numpy())
            maps = {name: item[name].numpy() for name in ("mask", "instance")}
            scenes.append({"image": pixels, **maps, "name": item["name"]})
        return scenes

    def train_dataloader(self) -> ResumableDataLoader:
        return training_loader(self.sets["train"], self.batch_size, self.seed, self.num_workers, self.trainer)

    def val_dataloader(self) -> DataLoader:
        return evaluation_loader(self.sets["val"], 1, self.num_workers, self.trainer)

    def test_dataloader(self) -> DataLoader:
        return evaluation_loader(self.sets["test"], 1, self.num_workers, self.trainer)

    predict_dataloader = test_dataloader
