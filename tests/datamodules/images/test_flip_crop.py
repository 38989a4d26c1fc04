"""Padding, cropping and mirroring a batch against the plain way, and what the draws follow from."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from datamodules.images.flip_crop import draw_codes, flip_crop, gather, random_words


def plain(image: Tensor, top: int, left: int, mirrored: bool, padding: int) -> Tensor:
    """uint8 [H, W, 3] -> the crop, one image at a time."""
    height, width = image.shape[:2]
    planes = image.permute(2, 0, 1)[None].float()
    padded = torch.nn.functional.pad(planes, (padding,) * 4, mode="reflect")
    crop = padded[0, :, top : top + height, left : left + width]
    return (crop.flip(2) if mirrored else crop).permute(1, 2, 0).to(torch.uint8)


@pytest.mark.parametrize(("height", "width", "padding"), [(32, 32, 4), (7, 9, 3), (6, 5, 4), (5, 5, 0)])
def test_every_crop_is_the_plain_one(height: int, width: int, padding: int) -> None:
    shape = (11, height, width, 3)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    positions = 2 * padding + 1
    codes = np.arange(2 * positions**2)
    index = codes * 3 % 11
    expected = torch.stack(
        [
            plain(images[i], code // 2 // positions, code // 2 % positions, bool(code % 2), padding)
            for i, code in zip(index, codes, strict=True)
        ]
    )
    assert torch.equal(flip_crop(images, index, codes, padding), expected)
    assert torch.equal(gather(images, torch.from_numpy(index), torch.from_numpy(codes), padding), expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_gpu_gives_the_same() -> None:
    images = torch.randint(256, (20, 32, 32, 3), dtype=torch.uint8)
    index = np.arange(20)
    codes = draw_codes(0, 0, index, 4)
    assert torch.equal(flip_crop(images.cuda(), index, codes, 4).cpu(), flip_crop(images, index, codes, 4))


def test_the_words_are_splitmix64() -> None:
    mask = 2**64 - 1
    state = int(np.random.SeedSequence((5, 2)).generate_state(1, np.uint64)[0])
    expected = []
    for _ in range(50):
        state = state + 0x9E3779B97F4A7C15 & mask
        word = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
        word = (word ^ word >> 27) * 0x94D049BB133111EB & mask
        expected.append((word ^ word >> 31) >> 32)
    assert random_words(5, 2, np.arange(50)).tolist() == expected


def test_codes_follow_from_seed_epoch_and_index_alone() -> None:
    whole = draw_codes(1, 2, np.arange(1000), 4)
    scattered = np.array([999, 3, 500])
    assert np.array_equal(draw_codes(1, 2, scattered, 4), whole[scattered])
    for seed, epoch in ((2, 2), (1, 3), (2, 1)):
        assert np.mean(draw_codes(seed, epoch, np.arange(1000), 4) == whole) < 0.03


def test_codes_are_uniform_and_epochs_independent() -> None:
    index = np.arange(50_000)
    first, second = (draw_codes(0, epoch, index, 4) for epoch in (0, 1))
    assert first.min() == 0 and first.max() == 161
    assert chisquare(np.bincount(first, minlength=162)).pvalue > 0.001
    pairs = np.histogram2d(first, second, bins=18)[0]
    assert chisquare(pairs.ravel()).pvalue > 0.001
