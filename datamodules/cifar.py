"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images of 32x32, in memory."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torchvision

from datamodules.images.in_memory import SmallImages
from datamodules.images.packed import class_folders, open_cache
from datamodules.loading.loaders import is_rank_zero, warn
from datamodules.loading.reporting import describe_skipped

SIZE = 32
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""Labels 0 to 9."""


class CIFAR10(SmallImages):
    """CIFAR-10 from the official files.

    Layout: ``<root>/cifar-10-batches-py/{data_batch_1, ..., data_batch_5, test_batch, batches.meta}``. The files hold
    pickles; torchvision compares their checksums with the published ones before it reads them.

    Args:
        download: fetch and unpack the archive (170 MB) below the root if it is not there.
        options: as in ``SmallImages``.
    """

    num_classes = 10
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2470, 0.2435, 0.2616)
    official: ClassVar[type[torchvision.datasets.CIFAR10]] = torchvision.datasets.CIFAR10

    def __init__(self, download: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.download = download

    def prepare_data(self) -> None:
        """Download, in one process, if asked to."""
        if self.download:
            try:
                self.official(str(self.root), download=True)
            except (OSError, RuntimeError) as error:
                raise ValueError(f"cannot download {self.official.url}: {error}. {self._how_to_get()}") from error

    def read(self, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        folder = self.root / self.official.base_folder
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}. {self._how_to_get()}")
        try:
            files = self.official(str(self.root), train=split == "train")
        except RuntimeError as error:  # raised for a checksum that differs and for a file that is not there
            raise ValueError(
                f"{folder} is incomplete or damaged: a file has not the published checksum. Remove the folder and get "
                f"it again. {self._how_to_get()}"
            ) from error
        return np.ascontiguousarray(files.data), np.asarray(files.targets, np.int64)

    def _how_to_get(self) -> str:
        return (
            f"Expected is <root>/{self.official.base_folder}/, unpacked from {self.official.url}; "
            "data.init_args.download=true fetches it. Set the root by root or PARSIMONY_DATA."
        )


class CIFAR100(CIFAR10):
    """CIFAR-100, the 100 fine labels, from the official files.

    Layout: ``<root>/cifar-100-python/{train, test, meta}``. Arguments are those of ``CIFAR10``.
    """

    num_classes = 100
    mean = (0.5071, 0.4865, 0.4409)
    std = (0.2673, 0.2564, 0.2762)
    official = torchvision.datasets.CIFAR100


class CIFAR10Folder(SmallImages):
    """CIFAR-10 stored as one image file each. JPEG changes the pixels: its error rates are not CIFAR-10's.

    Layout: ``<root>/<folder>/{train,test}/<class>/*.{jpg,png,webp}`` with the ten classes' names. At first use the
    images are packed into one array (see datamodules/images/packed.py). A file that is damaged, not 8-bit RGB or not
    32x32 is left out, counted and named; ``strict`` refuses instead.

    Args:
        folder: below the root.
        strict: whether a file that must be left out is an error.
        cache_dir: of the packed arrays; ``<root>/<folder>_cache`` if not given.
        options: as in ``SmallImages``.
    """

    num_classes = 10
    mean = (0.4913, 0.4821, 0.4465)
    std = (0.2452, 0.2428, 0.2606)

    def __init__(
        self, folder: str = "cifar10_jpeg", strict: bool = False, cache_dir: str | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.folder = self.root / folder
        self.strict = strict
        self.cache_dir = Path(cache_dir) if cache_dir else self.folder.with_name(f"{self.folder.name}_cache")

    def prepare_data(self) -> None:
        """Pack the images, in one process."""
        for split in ("train", "test"):
            self._check_classes(split)
            open_cache(self.folder / split, self.cache_dir / split, SIZE)

    def read(self, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        self._check_classes(split)
        packed = open_cache(self.folder / split, self.cache_dir / split, SIZE, quiet=not is_rank_zero())
        if packed.skipped:
            message = f"{self.folder / split}: left out {describe_skipped(packed.skipped)}"
            if self.strict:
                raise ValueError(message)
            warn(message)
        if empty := set(range(self.num_classes)) - set(packed.labels.tolist()):
            names = ", ".join(CIFAR10_CLASSES[label] for label in sorted(empty))
            raise ValueError(f"{self.folder / split}: no usable image of {names}")
        return packed.images, packed.labels

    def _check_classes(self, split: str) -> None:
        folder = self.folder / split
        expected = f"Expected is {folder}/<class>/*.jpg for the classes {', '.join(CIFAR10_CLASSES)}"
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}. {expected}. Set the root by root or PARSIMONY_DATA.")
        found = tuple(path.name for path in class_folders(folder))
        if found != CIFAR10_CLASSES:
            raise ValueError(f"{folder} holds the folders {', '.join(found) or '(none)'}. {expected}.")
