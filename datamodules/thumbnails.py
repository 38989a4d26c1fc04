"""Unlabelled 64x64 images for generative models: CelebA, LSUN bedrooms, any folder of images."""

import hashlib
import random
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.images.reading import decode, find_photos
from datamodules.images.remote import Folder, RemotePath, image_root
from datamodules.images.sharded_images import (
    Images,
    ShardedImages,
    ShardImage,
    find_images,
    is_packed,
    relative_name,
    source_of,
)
from datamodules.images.shards import Shards
from datamodules.images.thumbnails import VERSION, Source, Thumbnails, open_cache
from datamodules.loading.loaders import (
    ResumableDataLoader,
    as_it_is,
    data_root,
    evaluation_loader,
    is_rank_zero,
    training_loader,
    warn,
)
from datamodules.loading.packing import fingerprint
from datamodules.loading.reporting import describe_skipped
from modules.components.options import at_least

Split = Literal["train", "val", "test"]


def splits_of(stage: str | None) -> tuple[Split, ...]:
    """What fit, validate, test or predict reads."""
    if stage == "fit":
        return "train", "val"
    return ("val",) if stage == "validate" else ("test",)


class ThumbnailData(LightningDataModule):
    """Thumbnails in memory; a set says where a split's images come from.

    Batches: ``image`` uint8 [B, 3, S, S] in 0..255, channels_last, ``index`` int64 [B]. The shorter side is scaled to
    S and the centre cut out, without augmentation. Grayscale is replicated to RGB; damaged and other files are left
    out, counted and named. Every evaluation image is seen exactly once.

    Args:
        root: the data root, a folder or, for packed splits, a URL; PARSIMONY_DATA or ``data`` if not given.
        size: S.
        batch_size: training images a batch, on each device.
        val_batch_size: the same for validation and test.
        test_images: evaluate only the first so many; null for all.
        in_memory: hold the images in memory; false maps the packed file, for sets that are larger than memory.
        num_workers: loader processes; hardly of use.
        cache_dir: of the packed arrays; ``<root>/<set>_cache`` if not given; a URL needs one.
        seed: of the order.

    Raises:
        FileNotFoundError: if files are missing.
        ValueError: for a bad argument or a split without any usable image.
    """

    name: str
    """Of the set's folder below the root."""
    part: str = ""
    """Ends the names of the cache's folders, where only a part of the set is taken."""

    def __init__(
        self,
        root: str | None = None,
        size: int = 64,
        batch_size: int = 64,
        val_batch_size: int = 256,
        test_images: int | None = None,
        in_memory: bool = True,
        num_workers: int = 0,
        cache_dir: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, size=size, batch_size=batch_size, val_batch_size=val_batch_size, test_images=test_images)
        at_least(0, num_workers=num_workers)
        self.root, self.size, self.seed = image_root(root), size, seed
        self.batch_size, self.val_batch_size, self.test_images = batch_size, val_batch_size, test_images
        self.in_memory, self.num_workers = in_memory, num_workers
        if isinstance(self.root, RemotePath) and not cache_dir:
            raise ValueError(f"the thumbnails of {self.root} need a folder of this machine: set cache_dir")
        self.cache_dir = Path(cache_dir) if cache_dir else None
        self.sets: dict[str, Thumbnails] = {}

    def source(self, split: Split) -> Source:
        """Where the images of a split are."""
        raise NotImplementedError

    def open(self, split: Split, quiet: bool) -> Thumbnails:
        cache = Path(str(self.cache_dir or self.root / f"{self.name}_cache"), f"{split}{self.size}{self.part}")
        packed = open_cache(self.source(split), cache, self.size, self.in_memory, quiet)
        if packed.skipped:
            warn(f"{self.name}, {split}: left out {describe_skipped(packed.skipped)}")
        if not len(packed.images):
            raise ValueError(f"no usable image in the {split} split of {self.root / self.name}")
        return Thumbnails(packed.images)

    def prepare_data(self) -> None:
        """Pack the images that the trainer will need, in one process."""
        for split in splits_of(self.trainer.state.fn if self.trainer else "fit"):
            self.open(split, quiet=False)

    def setup(self, stage: str) -> None:
        for split in splits_of(stage):
            if split not in self.sets:
                self.sets[split] = self.open(split, quiet=not is_rank_zero())
        if "test" in self.sets and self.test_images:
            self.sets["test"] = Thumbnails(self.sets["test"].images[: self.test_images])

    def train_dataloader(self) -> ResumableDataLoader:
        return training_loader(
            self.sets["train"], self.batch_size, self.seed, self.num_workers, self.trainer, collate_fn=as_it_is
        )

    def val_dataloader(self) -> DataLoader:
        return evaluation_loader(self.sets["val"], self.val_batch_size, 0, self.trainer, collate_fn=as_it_is)

    def test_dataloader(self) -> DataLoader:
        return evaluation_loader(self.sets["test"], self.val_batch_size, 0, self.trainer, collate_fn=as_it_is)

    predict_dataloader = test_dataloader


def files_source(folder: Folder, images: Sequence[Path | ShardImage], size: int) -> Source:
    """Image files below ``folder``, or images that were packed there."""
    named = {relative_name(image, folder): image for image in images}
    files = [(name, path.stat()) for name, path in named.items() if isinstance(path, Path)]
    packed = {name: image.shards.key for name, image in named.items() if isinstance(image, ShardImage)}
    settings = (next(iter(packed.values())), list(packed)) if packed else ()
    key = fingerprint(files, VERSION, size, *settings)
    return Source(list(named), lambda name: decode(source_of(named[name]), gray_to_rgb=True), key)


class ImageFolder(ThumbnailData):
    """Any folder of images, without their classes.

    Layout: ``<root>/<folder>/{train,val,test}/**/*.{png,jpg,jpeg,webp}``, or splits that ``python -m
    datamodules.images.pack_images`` wrote. Without ``test`` the validation images are tested.

    Args:
        folder: below the root.
        classes: names of the folders of a split whose images are taken; null for all.
        options: as in ``ThumbnailData``.

    Raises:
        ValueError: for an empty list of classes.
    """

    def __init__(self, folder: str = "tiny_imagenet", classes: list[str] | None = None, **options: Any) -> None:
        super().__init__(**options)
        if classes is not None and not classes:
            raise ValueError("classes names no folder: give one at least, or null for all images")
        self.name, self.classes = folder, classes
        if classes is not None:
            self.part = "-" + hashlib.sha256("\n".join(sorted(classes)).encode()).hexdigest()[:8]

    def source(self, split: Split) -> Source:
        folder = self.root / self.name / split
        if split == "test" and not folder.is_dir():
            folder = folder.with_name("val")
        if not folder.is_dir():
            raise FileNotFoundError(
                f"no folder {folder}. Expected is {folder}/**/*.jpg (or png, webp), and the same for the other split. "
                "Set the root by root or PARSIMONY_DATA."
            )
        return files_source(folder, self._files(folder), self.size)

    def _files(self, folder: Folder) -> Images:
        if self.classes is None:
            return find_images(folder)
        if isinstance(folder, Path) and not is_packed(folder):
            self._check_classes(folder, [part.name for part in folder.iterdir() if part.is_dir()])
            return sorted(path for name in set(self.classes) for path in find_photos(folder / name))
        packed = ShardedImages(Shards(folder))
        there = self._check_classes(folder, packed.shards.classes)
        return packed.where(np.isin(packed.column("label"), [there.index(name) for name in self.classes]))

    def _check_classes(self, folder: Folder, there: list[str]) -> list[str]:
        if missing := [name for name in self.classes or () if name not in there]:
            raise FileNotFoundError(f"{folder} holds no class {', '.join(missing)}: correct the names in classes")
        return there


class CelebA(ThumbnailData):
    """CelebA (Liu et al. 2015), aligned faces, in the official partition: 162,770 / 19,867 / 19,962.

    Layout::

        <root>/celeba/img_align_celeba/000001.jpg, ...      or that folder packed by datamodules.images.pack_images
        <root>/celeba/list_eval_partition.txt        lines such as `000001.jpg 0`; 0 train, 1 validation, 2 test

    Args: as in ``ThumbnailData``.
    """

    name = "celeba"

    def source(self, split: Split) -> Source:
        folder, table = self.root / "celeba" / "img_align_celeba", self.root / "celeba" / "list_eval_partition.txt"
        for path in (folder, table):
            if not path.exists():
                raise FileNotFoundError(
                    f"no {path}. Expected are <root>/celeba/img_align_celeba/*.jpg and celeba/list_eval_partition.txt, "
                    "from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html. Set the root by root or PARSIMONY_DATA."
                )
        wanted = {"train": "0", "val": "1", "test": "2"}[split]
        names = [name for name, part in read_partition(table) if part == wanted]
        there = {image.name: image for image in find_images(folder)}
        missing = [name for name in names if name not in there]
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(names)} {split} images are not in {folder}, the first is {missing[0]}: "
                "unpack img_align_celeba.zip again"
            )
        return files_source(folder, [there[name] for name in names], self.size)


def read_partition(path: Folder) -> list[tuple[str, str]]:
    """(file name, "0", "1" or "2") of every line.

    Raises:
        ValueError: for a line that is something else, naming it.
    """
    rows = []
    for number, line in enumerate(path.read_bytes().decode(errors="replace").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("0", "1", "2") or Path(words[0]).name != words[0]:
            raise ValueError(f"{path}, line {number}: expected `<file name> <0, 1 or 2>`, got {line[:60]!r}")
        rows.append((words[0], words[1]))
    return rows


class LSUNBedroom(ThumbnailData):
    """LSUN bedrooms (Yu et al. 2015): of the 3,033,042 training images, shuffled with the seed, the first 10,000 are
    kept out for validation and test, as the paper does.

    Layout: ``<root>/lsun/bedroom_train_lmdb/{data.mdb,lock.mdb}``. All at 64x64 are 37 GB: ``in_memory: false`` or
    ``max_images``.

    Args:
        held_out: images kept out.
        max_images: train on at most so many; null for all.
        options: as in ``ThumbnailData``; the seed also shuffles the split.
    """

    name = "lsun"

    def __init__(self, held_out: int = 10_000, max_images: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        at_least(1, held_out=held_out, max_images=max_images)
        self.held_out, self.max_images = held_out, max_images

    def source(self, split: Split) -> Source:
        folder = data_root(str(self.root)) / "lsun" / "bedroom_train_lmdb"
        if not (folder / "data.mdb").is_file():
            raise FileNotFoundError(
                f"no {folder / 'data.mdb'}. Expected is <root>/lsun/bedroom_train_lmdb/, unpacked from "
                "bedroom_train_lmdb.zip, https://github.com/fyu/lsun. Set the root by root or PARSIMONY_DATA."
            )
        keys, read = open_lmdb(folder)
        if len(keys) <= self.held_out:
            raise ValueError(f"{folder} holds {len(keys)} images; held_out is {self.held_out}")
        random.Random(self.seed).shuffle(keys)
        train = slice(self.held_out, self.max_images and self.held_out + self.max_images)
        chosen = keys[train] if split == "train" else keys[: self.held_out]
        stamp = [("data.mdb", (folder / "data.mdb").stat())]
        settings = (split == "train", self.seed, self.held_out, self.max_images)
        return Source(chosen, read, fingerprint(stamp, VERSION, self.size, *settings))


def open_lmdb(folder: Path) -> tuple[list[str], Callable[[str], np.ndarray]]:
    """The keys of an LMDB of encoded images, sorted, and how to decode one.

    Raises:
        ValueError: if the package lmdb is missing or the data base is damaged.
    """
    try:
        import lmdb
    except ImportError:
        raise ValueError("LSUN's files need the package lmdb: pip install lmdb") from None
    try:
        environment = lmdb.open(str(folder), readonly=True, lock=False, max_readers=64)
        with environment.begin() as transaction:
            keys = [
                bytes(key).decode("ascii", "surrogateescape") for key in transaction.cursor().iternext(values=False)
            ]
    except lmdb.Error as error:
        raise ValueError(f"{folder} is damaged or no LMDB: {error}") from error

    def pixels(key: str) -> np.ndarray:
        with environment.begin() as transaction:
            content = transaction.get(key.encode("ascii", "surrogateescape"))
        return decode(BytesIO(bytes(content or b"")), gray_to_rgb=True)

    return keys, pixels
