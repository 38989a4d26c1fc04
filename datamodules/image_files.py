"""A folder of whole images of any size, for evaluation: Kodak, DIV2K, or your own."""

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.images.crops import NamedImages
from datamodules.images.remote import image_root
from datamodules.images.whole_images import whole_images
from datamodules.loading.loaders import evaluation_loader
from modules.components.options import at_least


class ImageFiles(LightningDataModule):
    """Whole images, one a batch, for ``validate``, ``test`` and ``predict``.

    Layout::

        <root>/<folder>/**/*.{png,jpg,jpeg,webp}

    Batches: ``image`` uint8 [1, 3, H, W] in 0..255, ``name``: one path below the folder. PNG, JPEG and WebP of
    8 bits; grayscale is replicated to RGB; CMYK, palette, alpha, 16-bit, damaged and over-200-megapixel files are
    skipped, counted and named. Under DDP each image is evaluated once, on one rank.

    Args:
        folder: below the root, or absolute.
        root: the data root, a folder or, for a packed folder, a URL; PARSIMONY_DATA or ``data`` if not given.
        num_workers: processes that decode.

    Raises:
        FileNotFoundError: at setup, if the folder is missing.
        ValueError: at setup, if it holds no usable image.
    """

    def __init__(self, folder: str = "kodak", root: str | None = None, num_workers: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.folder = image_root(root) / folder
        at_least(0, num_workers=num_workers)
        self.num_workers = num_workers
        self.images: NamedImages | None = None

    def setup(self, stage: str) -> None:
        if self.images is not None:
            return
        if not self.folder.is_dir():
            raise FileNotFoundError(
                f"no folder {self.folder}: put PNG, JPEG or WebP images there, or set PARSIMONY_DATA or root to the "
                "folder above it (Kodak: 24 PNG files, https://r0k.us/graphics/kodak)"
            )
        self.images = whole_images(self.folder)

    def val_dataloader(self) -> DataLoader:
        assert self.images is not None, "setup comes first"
        return evaluation_loader(self.images, 1, self.num_workers, self.trainer)

    test_dataloader = val_dataloader
    predict_dataloader = val_dataloader
