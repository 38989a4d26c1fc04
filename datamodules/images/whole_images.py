"""Whole images of any size from a folder, each decoded once before an evaluation starts."""

from datamodules.images.crops import NamedImages
from datamodules.images.remote import Folder
from datamodules.images.sharded_images import Images, find_images, relative_name, scan_images
from datamodules.loading.loaders import is_rank_zero, warn
from datamodules.loading.reporting import describe_skipped


def warn_of_skipped(folder: Folder, skipped: dict[str, list[str]]) -> None:
    """Count and name, once, the files that the rules of datamodules/images/reading.py left out."""
    if skipped:
        warn(f"{folder}: skipped {describe_skipped(skipped)}")


def whole_images(folder: Folder, images: Images | None = None) -> NamedImages:
    """The images of ``folder`` at their own size, named by their path below it.

    Every file is decoded once here, so that a truncated one is known, counted and named before the evaluation
    starts. Grayscale (8 bit) is replicated to three channels; other modes are skipped and counted.

    Args:
        folder: searched with its subfolders, or a packed set.
        images: what to take instead of all.

    Raises:
        ValueError: if no image is left.
    """
    found = find_images(folder) if images is None else images
    scan = scan_images(found, gray_to_rgb=True, full=True, quiet=not is_rank_zero())
    warn_of_skipped(folder, scan.skipped)
    if not scan.paths:
        raise ValueError(
            f"no usable image in {folder}: {describe_skipped(scan.skipped) or 'no PNG, JPEG or WebP file'}"
        )
    return NamedImages(scan.paths, [relative_name(image, folder) for image in scan.paths], gray_to_rgb=True)
