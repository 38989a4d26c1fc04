"""Open Images in its official layout, or any folder of photographs: random crops to train, centre crops to validate."""

from itertools import compress
from typing import Literal

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.images.crops import NamedImages, RandomCrops, centre_crop, read_tensor
from datamodules.images.reading import SkippedImageError, decode, read_image_list
from datamodules.images.remote import Folder, image_root
from datamodules.images.sharded_images import (
    Images,
    ShardedImages,
    find_images,
    relative_name,
    scan_images,
    shard_sampler,
    source_of,
)
from datamodules.images.whole_images import warn_of_skipped, whole_images
from datamodules.loading.loaders import (
    ResumableDataLoader,
    evaluation_loader,
    is_rank_zero,
    training_device,
    training_loader,
    warn,
)
from datamodules.loading.reporting import describe_skipped
from modules.components.options import above, at_least

HOW_TO_GET = (
    "Expected is <root>/<split>/**/<ImageID>.{png,jpg,webp}. Open Images: "
    "https://storage.googleapis.com/openimages/web/download_v7.html, then prepare it (or any folder of photographs) "
    "with `python -m datamodules.images.prepare_photos SOURCE DEST`. Set the root by root or PARSIMONY_DATA."
)


class OpenImages(LightningDataModule):
    """Photographs below one folder per split.

    Layout (what Open Images' archives unpack to; subfolders such as ``train/train_0`` are searched as well)::

        <root>/train/<ImageID>.jpg           <root>/validation/...          <root>/test/...
        <root>/train-images.csv              optional lists, first column ImageID

    Each split may be a folder that ``python -m datamodules.images.pack_images`` wrote, with the same batches.

    Batches are dicts. Training: ``image`` uint8 [batch_size, 3, crop_size, crop_size] in 0..255, crops at random
    positions, mirrored with probability 1/2. Validation: centre crops of the first val_batches * val_batch_size
    photographs (by name), with ``name``. Test and predict: whole images, one a batch, with ``name``, where 8-bit
    grayscale is replicated to RGB. Which files are skipped says datamodules/images/reading.py; all are counted and
    the first ten of each kind named.

    Args:
        root: the folder of the splits; PARSIMONY_DATA or ``data`` if not given. Packed splits may be behind a
            URL, such as s3://bucket/data.
        train_split: folder of the training photographs.
        val_split: folder of the validation photographs.
        test_split: folder of the test photographs.
        image_lists: ``train``, ``val`` or ``test`` -> CSV file whose first column ImageID names the files to use.
        crop_size: side of the crops; smaller photographs are left out.
        val_crop_size: side of the centre crops that are validated; ``crop_size`` if not given.
        batch_size: training crops a batch, on each device.
        crops_per_image: crops that each photograph gives per epoch; small sets need more for epochs of useful length.
        val_batches: at most so many batches are validated,
        val_batch_size: of so many centre crops.
        cache: ``none`` decodes a file for each crop, in the workers; ``memory`` decodes all training photographs once
            into RAM (per process); ``device`` once onto the accelerator, where crops are then cut. Same crops in all.
        cache_limit_gib: the cache is refused if the decoded photographs need more.
        shards_at_once: of a packed training set, read it shard by shard, so many mixed at a time (see
            datamodules/loading/shard_order.py), instead of in an order over the whole set.
        shard_cache: folder of this machine for what is read of shards behind a URL, shared by its processes; without
            one every image is read from afar each time.
        shard_cache_limit_gib: size of that folder, at most, whatever sets are in it.
        num_workers: loader processes; unused by ``device``. ``none`` needs several, ``memory`` hardly any.
        seed: of order, positions and flips.

    Raises:
        FileNotFoundError: at setup, if a split's folder or list is missing.
        ValueError: for a bad argument, a list without ImageID, a cache over its limit, or if no photograph is usable.
    """

    def __init__(
        self,
        root: str | None = None,
        train_split: str = "train",
        val_split: str = "validation",
        test_split: str = "test",
        image_lists: dict[str, str] | None = None,
        crop_size: int = 128,
        val_crop_size: int | None = None,
        batch_size: int = 30,
        crops_per_image: int = 1,
        val_batches: int = 5,
        val_batch_size: int = 30,
        cache: Literal["none", "memory", "device"] = "memory",
        cache_limit_gib: float = 16.0,
        shards_at_once: int | None = None,
        shard_cache: str | None = None,
        shard_cache_limit_gib: float = 64.0,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.root = image_root(root, shard_cache, shard_cache_limit_gib)
        self.splits = {"train": train_split, "val": val_split, "test": test_split}
        self.image_lists = image_lists or {}
        if unknown := set(self.image_lists) - set(self.splits):
            raise ValueError(f"image_lists knows train, val and test, not {', '.join(sorted(unknown))}")
        at_least(1, crop_size=crop_size, batch_size=batch_size, crops_per_image=crops_per_image)
        at_least(1, val_crop_size=val_crop_size, val_batches=val_batches, val_batch_size=val_batch_size)
        at_least(0, num_workers=num_workers)
        above(0, cache_limit_gib=cache_limit_gib, shard_cache_limit_gib=shard_cache_limit_gib)
        if cache not in ("none", "memory", "device"):
            raise ValueError(f"cache must be none, memory or device, got {cache!r}")
        self.crop_size = crop_size
        self.val_crop_size = val_crop_size or crop_size
        self.batch_size = batch_size
        self.crops_per_image = crops_per_image
        self.val_batch_size = val_batch_size
        self.num_val_images = val_batches * val_batch_size
        self.cache = cache
        self.cache_limit_gib = cache_limit_gib
        self.num_workers = 0 if cache == "device" else num_workers
        self.shards_at_once = shards_at_once
        self.seed = seed
        self.train_set: RandomCrops | None = None
        self.val_set: NamedImages | None = None
        self.test_set: NamedImages | None = None

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.train_set is None:
            self.train_set = self._random_crops()
        if stage in ("fit", "validate") and self.val_set is None:
            self.val_set = self._centre_crops()
        if stage in ("test", "predict") and self.test_set is None:
            self.test_set = whole_images(self._folder("test"), self._files("test"))

    def held_out_images(self) -> dict[str, np.ndarray]:
        """The first eight usable validation photographs, uint8 [H, W, 3] each, by name."""
        images: dict[str, np.ndarray] = {}
        for path in self._files("val"):
            try:
                images[path.name] = decode(source_of(path))
            except SkippedImageError:
                continue
            if len(images) == 8:
                break
        return images

    def train_dataloader(self) -> ResumableDataLoader:
        assert self.train_set is not None, "setup comes first"
        on_device = self.cache == "device"
        return training_loader(
            self.train_set,
            self.batch_size,
            self.seed,
            self.num_workers,
            self.trainer,
            pin_memory=not on_device,
            sampler=shard_sampler(self.train_set, self.shards_at_once, self.seed, self.trainer),
        )

    def val_dataloader(self) -> DataLoader:
        assert self.val_set is not None, "setup comes first"
        return evaluation_loader(self.val_set, self.val_batch_size, 0, self.trainer)

    def test_dataloader(self) -> DataLoader:
        assert self.test_set is not None, "setup comes first"
        return evaluation_loader(self.test_set, 1, self.num_workers, self.trainer)

    predict_dataloader = test_dataloader

    def _random_crops(self) -> RandomCrops:
        """The training set, in the cache if one is asked for."""
        folder = self._folder("train")
        quiet = not is_rank_zero()
        scan = scan_images(self._files("train"), min_side=self.crop_size, quiet=quiet)
        warn_of_skipped(folder, scan.skipped)
        if not scan.paths:
            raise ValueError(f"no usable photograph in {folder}: {describe_skipped(scan.skipped)}")
        crops = RandomCrops(scan.paths, self.crop_size, self.crops_per_image, self.seed)
        if self.cache != "none":
            gib = scan.num_bytes / 2**30
            if gib > self.cache_limit_gib:
                raise ValueError(
                    f"{len(scan.paths)} photographs of {folder} take {gib:.2f} GiB decoded, more than cache_limit_gib "
                    f"{self.cache_limit_gib}: use cache: none with workers, or raise the limit"
                )
            crops.load(torch.device("cpu") if self.cache == "memory" else training_device(self.trainer), quiet)
            if crops.unreadable.all():
                raise ValueError(f"no usable photograph in {folder}: all {len(scan.paths)} are unreadable")
        return crops

    def _centre_crops(self) -> NamedImages:
        """Centre crops of the first usable validation photographs, decoded once."""
        folder = self._folder("val")
        crops: dict[str, Tensor] = {}
        skipped: dict[str, list[str]] = {}
        for path in self._files("val"):
            if len(crops) == self.num_val_images:
                break
            try:
                crops[relative_name(path, folder)] = centre_crop(read_tensor(path), self.val_crop_size)
            except SkippedImageError as error:
                skipped.setdefault(error.reason, []).append(path.name)
        warn_of_skipped(folder, skipped)
        if not crops:
            raise ValueError(f"no usable photograph in {folder}: {describe_skipped(skipped)}")
        return NamedImages(list(crops.values()), list(crops))

    def _folder(self, role: str) -> Folder:
        folder = self.root / self.splits[role]
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}. {HOW_TO_GET}")
        return folder

    def _files(self, role: str) -> Images:
        """The split's files or packed images, those of its list only if it has one."""
        folder = self._folder(role)
        paths = find_images(folder)
        if role in self.image_lists:
            listed = read_image_list(self.root / self.image_lists[role])
            chosen = [path.stem in listed for path in paths]
            paths = paths.where(chosen) if isinstance(paths, ShardedImages) else [*compress(paths, chosen)]
            if missing := len(listed) - len({path.stem for path in paths}):
                warn(f"{folder}: {missing} of {len(listed)} listed images have no file")
        if not paths:
            raise ValueError(f"no PNG, JPEG or WebP file in {folder} (or none that the list names). {HOW_TO_GET}")
        return paths
