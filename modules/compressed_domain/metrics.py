"""Running figures of codecs and segmentation that no device waits for."""

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from modules.components.mean import Mean
from modules.components.segmentation import mean_iou
from modules.compressed_domain.losses import IGNORE, entropy_bits, missed, symbol_counts

MS_SSIM_SIDE = 176
"""Shortest side that five scales of an 11-pixel window take."""


class BitsPerPixel(Metric):
    """C H / 64 (sheet 2): entropy of the histogram of all symbols seen, times the symbols of a pixel."""

    counts: Tensor
    pixels: Tensor

    def __init__(self, num_centers: int) -> None:
        super().__init__()
        self.add_state("counts", torch.zeros(num_centers, dtype=torch.int64), "sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), "sum")

    def update(self, symbols: Tensor, pixels: int) -> None:
        """Symbols int64 of any shape, of so many pixels."""
        self.counts += symbol_counts(symbols, len(self.counts))
        self.pixels += pixels

    def compute(self) -> Tensor:
        return entropy_bits(self.counts) * self.counts.sum() / self.pixels


class MeanIoU(Metric):
    """Percentage: intersection over union of every class that labels or predictions have, averaged over classes."""

    confusion: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        # One entry more for what is ignored: to select pixels would make the host wait.
        self.add_state("confusion", torch.zeros(num_classes**2 + 1, dtype=torch.int64), "sum")

    def update(self, predicted: Tensor, mask: Tensor) -> None:
        """Labels int64 [N, H, W] of both."""
        pair = torch.where(mask == IGNORE, self.num_classes**2, mask * self.num_classes + predicted).flatten()
        self.confusion.index_add_(0, pair, torch.ones_like(pair))

    def compute(self) -> Tensor:
        return mean_iou(self.confusion[:-1].view(self.num_classes, self.num_classes))


class TopErrors(nn.Module):
    """Percentages of images whose label is not the best answer, and not among the best five."""

    def __init__(self) -> None:
        super().__init__()
        self.error, self.top5_error = Mean(), Mean()

    def update(self, logits: Tensor, label: Tensor) -> dict[str, Metric]:
        """Take in logits [N, K] and labels [N]; the metrics by their names."""
        self.error.update(missed(logits, label))
        self.top5_error.update(missed(logits, label, 5))
        return {"error": self.error, "top5_error": self.top5_error}


class CodecFigures(nn.Module):
    """What a codec is judged by: bits per pixel, PSNR in dB (mean over images), MS-SSIM of images large enough."""

    def __init__(self, num_centers: int) -> None:
        super().__init__()
        self.bpp, self.psnr_db = BitsPerPixel(num_centers), Mean()
        self.ms_ssim = MultiScaleStructuralSimilarityIndexMeasure(data_range=255.0)

    def update(self, x: Tensor, x_hat: Tensor, symbols: Tensor) -> dict[str, Metric]:
        """Take in images [N, 3, H, W] of whole numbers 0..255; the metrics that there is something to log of."""
        self.bpp.update(symbols, x.shape[0] * x.shape[2] * x.shape[3])
        self.psnr_db.update(psnr_db(x_hat, x))
        logged: dict[str, Metric] = {"bpp": self.bpp, "psnr_db": self.psnr_db}
        if min(x.shape[-2:]) >= MS_SSIM_SIDE:
            self.ms_ssim.update(x_hat, x)
            logged["ms_ssim"] = self.ms_ssim
        return logged


def psnr_db(x_hat: Tensor, x: Tensor) -> Tensor:
    """[N] in dB of images [N, 3, H, W] on 0..255; 100 dB for equal ones."""
    mse = (x_hat - x).square().mean((1, 2, 3))
    return 10 * torch.log10(255.0**2 / mse.clamp(min=255.0**2 * 1e-10))


def to_8_bits(x_hat: Tensor) -> Tensor:
    """The whole numbers 0..255 that an image file would hold, as float32."""
    return x_hat.float().round().clamp(0, 255)
