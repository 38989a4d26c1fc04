"""MS-SSIM against two independent ones, and where it is hard: small images, opposite ones, autocast."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from modules.components.ms_ssim import decibels, ms_ssim
from tests.modules.cpm.small import picture_batch


def noisy(x: torch.Tensor, deviation: float, seed: int = 0) -> torch.Tensor:
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (x + deviation * noise).clamp(0, 255)


def by_convolution(x: np.ndarray, y: np.ndarray) -> float:
    """MS-SSIM of two pictures [H, W], window and all in two dimensions, in float64."""
    score = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        sizes = [min(11, side) for side in x.shape]
        shapes = [np.exp(-((np.arange(n) - (n - 1) / 2) ** 2) / (2 * (1.5 * n / 11) ** 2)) for n in sizes]
        window = np.outer(*shapes) / np.outer(*shapes).sum()
        mean_x, mean_y, xx, yy, xy = (
            convolve2d(image, window, mode="valid") for image in (x, y, x * x, y * y, x * y)
        )  # fmt: skip
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        contrast = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        score *= (np.mean(luminance * contrast) if scale == 4 else np.mean(contrast)) ** weight
        x, y = (i[: len(i) // 2 * 2, : i.shape[1] // 2 * 2] for i in (x, y))
        x, y = (i.reshape(i.shape[0] // 2, 2, -1, 2).mean((1, 3)) for i in (x, y))
    return score


@pytest.mark.parametrize("size", [(160, 160), (44, 75), (36, 701)])
def test_ms_ssim_with_a_window_that_shrinks(size: tuple[int, int]):
    x = picture_batch(1, *size)[:, :1].double()
    y = noisy(x, 25).double()
    assert float(ms_ssim(x, y)) == pytest.approx(by_convolution(x[0, 0].numpy(), y[0, 0].numpy()), abs=1e-9)
    assert float(ms_ssim(x.float(), y.float())) == pytest.approx(float(ms_ssim(x, y)), abs=1e-4)


def test_ms_ssim_of_torchmetrics_where_that_takes_the_size():
    """Whose last scale also counts places at the border, with windows that are reflected there."""
    x = picture_batch(2, 184, 200)
    y = torch.cat((noisy(x[:1], 20), noisy(x[1:], 60)))
    theirs = [float(multiscale_structural_similarity_index_measure(b, a, data_range=255.0))
              for a, b in zip(x.split(1), y.split(1), strict=True)]  # fmt: skip
    assert ms_ssim(x, y).tolist() == pytest.approx(theirs, abs=1e-3)
    assert theirs[0] > theirs[1] + 0.02


def test_ms_ssim_of_equal_opposite_and_tiny_images():
    x = picture_batch(2, 40, 40)
    assert ms_ssim(x, x).tolist() == pytest.approx([1, 1])
    opposite = (255 - x).requires_grad_()
    score = ms_ssim(x, opposite)
    score.sum().backward()
    assert (score < 0.1).all() and torch.isfinite(score).all() and torch.isfinite(opposite.grad).all()
    for size in ((1, 1), (1, 30), (3, 2)):
        small = picture_batch(1, *size)
        assert float(ms_ssim(small, small)) == pytest.approx(1) and 0 < float(ms_ssim(small, noisy(small, 50))) < 1


def test_ms_ssim_is_float32_under_autocast():
    x = picture_batch(1, 48, 48)
    y = noisy(x, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ms_ssim(x, y), ms_ssim(x.clone(), y.clone())) and ms_ssim(x, y).dtype == torch.float32
        inside = ms_ssim(x, y)
    assert torch.equal(inside, ms_ssim(x, y))


def test_decibels():
    assert decibels(torch.tensor([0.9, 0.99, 0.0])).tolist() == pytest.approx([10, 20, 0], abs=1e-4)
    assert math.isfinite(float(decibels(torch.tensor(1.0))))
