"""PASCAL VOC 2012 segmentation in its official layout, with the augmented training list."""

from pathlib import Path

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.images.segmentation import Labelled, SegmentationImages
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

NUM_CLASSES = 21
"""Background and 20 classes."""
MULTIPLE = 8
AUGMENTED = "trainaug"
HOW_TO_GET = (
    "Expected is <root>/VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation}: unpack "
    "VOCtrainval_11-May-2012.tar of http://host.robots.ox.ac.uk/pascal/VOC/voc2012. Set the root by root or "
    "PARSIMONY_DATA"
)
HOW_TO_AUGMENT = (
    "the 10,582 images need the label maps of Hariharan et al. (SBD) as SegmentationClassAug/*.png, and their list as "
    "ImageSets/Segmentation/trainaug.txt, which otherwise is all of them but val; or train on the official 1,464 with "
    "--data.init_args.train_list train"
)


class VOC(LightningDataModule):
    """Photographs with masks of 21 classes.

    Layout::

        <root>/<folder>/JPEGImages/2007_000032.jpg
        <root>/<folder>/SegmentationClass/2007_000032.png       palette PNG: 0 background, 1..20, 255 border
        <root>/<folder>/SegmentationClassAug/2008_000008.png    the same for all 12,031 images of VOC and SBD
        <root>/<folder>/ImageSets/Segmentation/{train,val,trainaug}.txt

    Batches: ``image`` uint8 [N, 3, H, W] in 0..255, ``mask`` int64 [N, H, W] with 255 to be ignored, ``name``. Training
    crops are scaled, cut and mirrored; where an image is smaller they are filled with the mean colour and 255. The
    other splits give whole images, one a batch, padded in the same way to multiples of 8.

    Images with damaged, missing or mismatching files are skipped, counted and named: those of evaluation at setup, the
    others when they are drawn.

    Args:
        root: the data root; PARSIMONY_DATA or ``data`` if not given.
        folder: below the root.
        train_list: ``trainaug``, 10,582 images, whose masks are in SegmentationClassAug, or an official list.
        val_list: for validation, test and predict.
        crop: height and width of training crops, multiples of 8.
        scales: smallest and largest factor that training images are scaled by.
        batch_size: training crops a batch, on each device.
        num_workers: loader processes.
        seed: of order and crops.

    Raises:
        FileNotFoundError: at setup, for a missing folder or list, with the remedy.
        ValueError: for a bad argument, or if a list names no usable image.
    """

    def __init__(
        self,
        root: str | None = None,
        folder: str = "VOCdevkit/VOC2012",
        train_list: str = AUGMENTED,
        val_list: str = "val",
        crop: tuple[int, int] = (320, 320),
        scales: tuple[float, float] = (0.5, 1.5),
        batch_size: int = 10,
        num_workers: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if min(crop) < MULTIPLE or any(side % MULTIPLE for side in crop):
            raise ValueError(f"crop must be multiples of {MULTIPLE}, got {tuple(crop)}")
        if not 0 < scales[0] <= scales[1]:
            raise ValueError(f"scales must be positive and in order, got {tuple(scales)}")
        at_least(1, batch_size=batch_size)
        at_least(0, num_workers=num_workers)
        self.folder = data_root(root) / folder
        self.train_list, self.val_list = train_list, val_list
        self.crop, self.scales = (crop[0], crop[1]), (scales[0], scales[1])
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.train_set: SegmentationImages | None = None
        self.val_set: SegmentationImages | None = None

    def setup(self, stage: str) -> None:
        if self.val_set is None:
            self.val_set = self._images(self.val_list)
            skipped = self.val_set.drop_unusable(quiet=not is_rank_zero())
            warn_of_skipped(self.folder, skipped)
            if not len(self.val_set):
                raise ValueError(f"no usable image in the list {self.val_list}: {describe_skipped(skipped)}")
        if stage == "fit" and self.train_set is None:
            self.train_set = self._images(self.train_list)

    def train_dataloader(self) -> ResumableDataLoader:
        assert self.train_set is not None, "setup comes first"
        return training_loader(self.train_set, self.batch_size, self.seed, self.num_workers, self.trainer)

    def val_dataloader(self) -> DataLoader:
        assert self.val_set is not None, "setup comes first"
        return evaluation_loader(self.val_set, 1, self.num_workers, self.trainer)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader

    def _images(self, name: str) -> SegmentationImages:
        for folder in (self.folder, self.folder / "JPEGImages", self.folder / "ImageSets" / "Segmentation"):
            if not folder.is_dir():
                raise FileNotFoundError(f"no folder {folder}. {HOW_TO_GET}")
        augmented = name == AUGMENTED
        masks = self.folder / ("SegmentationClassAug" if augmented else "SegmentationClass")
        if not masks.is_dir():
            raise FileNotFoundError(f"no folder {masks}: {HOW_TO_AUGMENT if augmented else HOW_TO_GET}")
        items = [
            Labelled(image, self.folder / "JPEGImages" / f"{image}.jpg", masks / f"{image}.png")
            for image in self._names(name, masks)
        ]
        return SegmentationImages(items, NUM_CLASSES, self.crop, self.scales, MULTIPLE, self.seed)

    def _names(self, name: str, masks: Path) -> list[str]:
        path = self.folder / "ImageSets" / "Segmentation" / f"{name}.txt"
        if name == AUGMENTED and not path.is_file():
            held_out = set(self._names("val", masks))
            return sorted({mask.stem for mask in masks.glob("*.png")} - held_out)
        return read_list(path)


def read_list(path: Path) -> list[str]:
    """The names in an image list, one a line.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an empty list, or a line that is no plain name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no image list {path}. {HOW_TO_GET}")
    names = path.read_text(encoding="utf-8", errors="replace").split()
    if not names:
        raise ValueError(f"{path} is empty. {HOW_TO_GET}")
    if odd := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{path}: expected a name such as 2007_000032 in each line, got {odd[0][:60]!r}")
    return names
