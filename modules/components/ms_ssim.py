"""Multi-scale structural similarity (Wang, Simoncelli, Bovik 2003), for training and for reports.

Letters: N images, C colour channels, H and W image size.
"""

import torch
from torch import Tensor
from torch.nn import functional

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales."""
WINDOW, SIGMA = 11, 1.5
BLOCK = 256
"""Means that one matrix product makes along a side."""
K1, K2 = 0.01, 0.03
SMALLEST = 1e-6
"""Where a mean contrast or similarity is negative, which has no real power, this is taken instead."""


def window_matrix(count: int, n: int, like: Tensor) -> Tensor:
    """[count, count + n - 1]: row i weighs the n places from i by a Gaussian, whose deviation shrinks with n."""
    places = torch.arange(count + n - 1, device=like.device, dtype=like.dtype)
    from_start = places - places[:count, None]
    centred = (from_start - (n - 1) / 2) / (SIGMA * n / WINDOW)
    weights = torch.exp(-centred.square() / 2) * ((from_start >= 0) & (from_start < n))
    return weights / weights.sum(1, keepdim=True)


def smoothed(x: Tensor) -> Tensor:
    """Gaussian means [..., side - n + 1] along the last dimension; n = 11, or the side if that is less.

    As matrix products, which are float32 on every device by default, where convolutions may be TF32: the variances
    below are small differences of large numbers. A long side is taken in blocks.
    """
    side = x.shape[-1]
    n = min(WINDOW, side)
    total = side - n + 1
    blocks = -(-total // BLOCK)
    count = -(-total // blocks)
    if blocks > 1:
        x = functional.pad(x, (0, blocks * count - total)).unfold(-1, count + n - 1, count)
    means = x @ window_matrix(count, n, x).T
    return means.flatten(-2)[..., :total] if blocks > 1 else means


def similarity(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part of images [N, C, H, W] on 0..255: means [N] over channels and places."""
    moments = torch.stack((x, y, x * x, y * y, x * y))
    mean_x, mean_y, xx, yy, xy = smoothed(smoothed(moments).mT).mT.unbind()
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    contrast = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x.square() + yy - mean_y.square() + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * contrast).mean((1, 2, 3)), contrast.mean((1, 2, 3))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Multi-scale structural similarity [N], at most 1, of images [N, C, H, W] on 0..255, in float32 or float64.

    Five scales, each the mean of 2x2 pixels of the one before; the window shrinks where a side is shorter than 11, so
    that 160x160 crops, and images of any size, have all scales. Each image has a score of its own; the authors' code
    takes means over the batch first.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, y = (image if image.dtype == torch.float64 else image.float() for image in (x, y))
        score = torch.ones((), device=x.device, dtype=x.dtype)
        for scale, weight in enumerate(WEIGHTS):
            whole, contrast = similarity(x, y)
            last = scale == len(WEIGHTS) - 1
            score = score * (whole if last else contrast).clamp(min=SMALLEST) ** weight
            if not last:
                halves = [min(2, side) for side in x.shape[-2:]]
                x, y = functional.avg_pool2d(x, halves), functional.avg_pool2d(y, halves)
        return score


def decibels(score: Tensor) -> Tensor:
    """-10 log10(1 - MS-SSIM)."""
    return -10 * torch.log10((1 - score).clamp(min=1e-10))
