"""ImageNet (ILSVRC 2012) in the ImageFolder layout, and any folder like it, such as Tiny ImageNet."""

from typing import Literal

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.images.class_folders import CentralPart, ClassFolders, LabelledPhotos, RandomPart, find_classes
from datamodules.images.remote import Folder, image_root
from datamodules.images.sharded_images import scan_images, shard_sampler
from datamodules.images.whole_images import warn_of_skipped
from datamodules.loading.loaders import (
    ResumableDataLoader,
    evaluation_loader,
    is_rank_zero,
    training_device,
    training_loader,
)
from modules.components.options import above, at_least

HOW_TO_GET = (
    "Expected is <root>/<folder>/{train,val}/<class>/*.JPEG with the same classes in both, the layout that "
    "torchvision's ImageFolder reads, or each split packed by `python -m datamodules.images.pack_images`. ImageNet: "
    "https://www.image-net.org/download.php, validation images sorted into class folders. Set the root by root or "
    "PARSIMONY_DATA."
)


class ImageNet(LightningDataModule):
    """Labelled photographs of any size; the labels are the positions of the sorted class folders.

    Batches: ``image`` uint8 [B, 3, S, S] in 0..255 with S = ``crop_size``, ``label`` and ``index`` int64 [B];
    modules normalise with their own mean and standard deviation. Training takes random parts, scaled and mirrored (see
    ``RandomPart``); evaluation the central crop after the shorter side was scaled. Every usable validation image is
    evaluated once; the others (truncated, CMYK, 16 bit) are counted and named, see datamodules/images/reading.py.

    Args:
        root: PARSIMONY_DATA or ``data`` if not given. Packed splits may be behind a
            URL, such as s3://bucket/data.
        folder: below the root.
        train_split, val_split: folders of the splits; test and predict take ``val_split`` as well, since ImageNet's
            test set has no public labels.
        crop_size: S.
        shorter_side: of images before the central crop; None for crop_size * 256 / 224, rounded.
        smallest_part: share of an image's area that a training crop covers at least; 0.08 is usual for ImageNet.
        batch_size: training images a batch, on each device.
        val_batch_size: the same for evaluation.
        cache: ``none`` decodes an image for each draw, in the workers; ``memory`` decodes all once into RAM, in each
            process; ``device`` once onto the accelerator. Same batches in all.
        cache_limit_gib: of the decoded training images; a cache that needs more is refused.
        shards_at_once: of a packed training set, read it shard by shard, so many mixed at a time (see
            datamodules/loading/shard_order.py), instead of in an order over the whole set.
        shard_cache: folder of this machine for what is read of shards behind a URL, shared by its processes; without
            one every image is read from afar each time.
        shard_cache_limit_gib: size of that folder, at most, whatever sets are in it.
        num_workers: loader processes; unused by ``device``. ``none`` needs several, ``memory`` hardly any.
        seed: of order and crops.

    Raises:
        FileNotFoundError: at setup, if a folder is missing.
        ValueError: for a bad argument, other classes in the two splits, a cache over its limit, or no usable image.
    """

    def __init__(
        self,
        root: str | None = None,
        folder: str = "imagenet",
        train_split: str = "train",
        val_split: str = "val",
        crop_size: int = 224,
        shorter_side: int | None = None,
        smallest_part: float = 0.08,
        batch_size: int = 128,
        val_batch_size: int = 100,
        cache: Literal["none", "memory", "device"] = "none",
        cache_limit_gib: float = 16.0,
        shards_at_once: int | None = None,
        shard_cache: str | None = None,
        shard_cache_limit_gib: float = 64.0,
        num_workers: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.shorter_side = round(crop_size * 256 / 224) if shorter_side is None else shorter_side
        at_least(1, crop_size=crop_size, batch_size=batch_size, val_batch_size=val_batch_size)
        at_least(0, num_workers=num_workers)
        above(0, cache_limit_gib=cache_limit_gib, shard_cache_limit_gib=shard_cache_limit_gib)
        if self.shorter_side < crop_size:
            raise ValueError(f"shorter_side must be at least crop_size {crop_size}, got {shorter_side}")
        if not 0.0 < smallest_part <= 1.0:
            raise ValueError(f"smallest_part must be in 0..1 and above 0, got {smallest_part}")
        if cache not in ("none", "memory", "device"):
            raise ValueError(f"cache must be none, memory or device, got {cache!r}")
        self.folder = image_root(root, shard_cache, shard_cache_limit_gib) / folder
        self.train_split, self.val_split = train_split, val_split
        self.crop_size, self.smallest_part = crop_size, smallest_part
        self.batch_size, self.val_batch_size = batch_size, val_batch_size
        self.cache, self.cache_limit_gib, self.shards_at_once = cache, cache_limit_gib, shards_at_once
        self.num_workers, self.seed = 0 if cache == "device" else num_workers, seed
        self.train_set: LabelledPhotos | None = None
        self.val_set: LabelledPhotos | None = None

    def setup(self, stage: str) -> None:
        if self.val_set is None:
            self.val_set = self._evaluation_set()
        if stage == "fit" and self.train_set is None:
            self.train_set = self._training_set()

    def train_dataloader(self) -> ResumableDataLoader:
        assert self.train_set is not None, "setup comes first"
        return training_loader(
            self.train_set,
            self.batch_size,
            self.seed,
            self.num_workers,
            self.trainer,
            pin_memory=self.cache != "device",
            sampler=shard_sampler(self.train_set, self.shards_at_once, self.seed, self.trainer),
        )

    def val_dataloader(self) -> DataLoader:
        assert self.val_set is not None, "setup comes first"
        return evaluation_loader(self.val_set, self.val_batch_size, self.num_workers, self.trainer)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    def _training_set(self) -> LabelledPhotos:
        found = find_classes(self.folder / self.train_split, HOW_TO_GET)
        validated = find_classes(self.folder / self.val_split, HOW_TO_GET)
        if found.classes != validated.classes:
            odd = sorted(set(found.classes) ^ set(validated.classes))[:3]
            raise ValueError(f"{self.folder}: the splits have other classes, such as {', '.join(odd)}. {HOW_TO_GET}")
        images = LabelledPhotos(found.paths, found.labels, RandomPart(self.crop_size, self.smallest_part, self.seed))
        if self.cache != "none":
            self._check_size(found)
            device = training_device(self.trainer) if self.cache == "device" else "cpu"
            images.load(device, quiet=not is_rank_zero())  # type: ignore[arg-type]
            if images.unusable.all():
                raise ValueError(f"no usable image in {self.folder / self.train_split}: all {len(images)} are damaged")
        return images

    def _check_size(self, found: ClassFolders) -> None:
        gib = scan_images(found.paths, gray_to_rgb=True, quiet=not is_rank_zero()).num_bytes / 2**30
        if gib > self.cache_limit_gib:
            raise ValueError(
                f"{len(found.paths)} images of {self.folder} take {gib:.2f} GiB decoded, more than cache_limit_gib "
                f"{self.cache_limit_gib}: use cache: none with workers, or raise the limit"
            )

    def _evaluation_set(self) -> LabelledPhotos:
        """Every file is decoded once first, so that a damaged one is known before and counts nowhere."""
        folder: Folder = self.folder / self.val_split
        found = find_classes(folder, HOW_TO_GET)
        scan = scan_images(found.paths, gray_to_rgb=True, full=True, quiet=not is_rank_zero())
        warn_of_skipped(folder, scan.skipped)
        if not scan.paths:
            raise ValueError(f"no usable image in {folder}: all {len(found.paths)} are damaged or not 8-bit RGB")
        label_of = dict(zip(found.paths, found.labels, strict=True))
        labels = [label_of[path] for path in scan.paths]
        return LabelledPhotos(scan.paths, labels, CentralPart(self.crop_size, self.shorter_side))
