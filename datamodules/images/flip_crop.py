"""Pad by reflection, crop at a random position, mirror with probability 1/2: a batch at a time, where the images are.

Letters: N RGB images of H x W pixels, B images in a batch, P pixels of padding.

The (2P + 1)^2 positions, plain and mirrored, are numbered; an image's ``code`` in 0 .. 2 (2P + 1)^2 - 1 is
``2 ((2P + 1) top + left) + mirrored`` with top and left in the padded image. It is a hash of (seed, epoch, index), so
it depends neither on the batch nor on the process nor on what was drawn before.
"""

import numpy as np
import torch
from torch import Tensor

from modules.components.kernels import kernel

# splitmix64 (Steele, Lea, Flood 2014): the step of its counter and the constants of its mixing.
STEP = np.uint64(0x9E3779B97F4A7C15)
MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
MIX_2 = np.uint64(0x94D049BB133111EB)


def random_words(seed: int, epoch: int, index: np.ndarray) -> np.ndarray:
    """Uniform 32-bit numbers, uint64 [B]: number ``index`` of the splitmix64 stream that (seed, epoch) starts."""
    start = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)
    word = start + (index.astype(np.uint64) + np.uint64(1)) * STEP
    word = (word ^ (word >> np.uint64(30))) * MIX_1
    word = (word ^ (word >> np.uint64(27))) * MIX_2
    return (word ^ (word >> np.uint64(31))) >> np.uint64(32)


def draw_codes(seed: int, epoch: int, index: np.ndarray, padding: int) -> np.ndarray:
    """The code of each image, int64 [B]; uniform to one in 10^7 for the usual 162 codes."""
    count = np.uint64(2 * (2 * padding + 1) ** 2)
    return ((random_words(seed, epoch, index) * count) >> np.uint64(32)).astype(np.int64)


def flip_crop(images: Tensor, index: np.ndarray, codes: np.ndarray, padding: int) -> Tensor:
    """Cut one crop of the images' own size from each of B padded images.

    Args:
        images: uint8 [N, H, W, 3], contiguous, on any device.
        index: int64 [B], which images.
        codes: int64 [B], see ``draw_codes``.
        padding: P, smaller than H and W.

    Returns:
        uint8 [B, H, W, 3] on the device of ``images``.
    """
    if images.device.type == "cpu":
        crops = torch.empty((len(index), *images.shape[1:]), dtype=torch.uint8)
        _flip_crop_into(images.numpy(), index, codes, padding, crops.numpy())
        return crops
    moved = torch.from_numpy(np.stack([index, codes])).to(images.device)  # both in one transfer
    return gather(images, moved[0], moved[1], padding)


def gather(images: Tensor, index: Tensor, codes: Tensor, padding: int) -> Tensor:
    """``flip_crop`` in tensor operations, for accelerators; all tensors on one device."""
    height, width = images.shape[1:3]
    positions = 2 * padding + 1
    top, left, mirrored = codes // (2 * positions), codes // 2 % positions, codes % 2
    row = top.unsqueeze(1) + torch.arange(height, device=images.device) - padding
    column = torch.arange(width, device=images.device)
    column = torch.where(mirrored.unsqueeze(1) == 1, width - 1 - column, column) + left.unsqueeze(1) - padding
    return images[index.view(-1, 1, 1), reflect(row, height).unsqueeze(2), reflect(column, width).unsqueeze(1)]


def reflect(position: Tensor, size: int) -> Tensor:
    """Positions from -(size - 1) to 2 (size - 1) mirrored into 0 .. size - 1; the edge itself is not repeated."""
    return size - 1 - (size - 1 - position.abs()).abs()


@kernel()
def _flip_crop_into(images, index, codes, padding, crops):
    """``flip_crop`` for the CPU, written to ``crops``; several times faster than the gather is there."""
    height, width = images.shape[1:3]
    positions = 2 * padding + 1
    columns = np.empty(width, np.int64)
    for b in range(len(index)):
        i, top, left, mirrored = index[b], codes[b] // (2 * positions), codes[b] // 2 % positions, codes[b] % 2
        for x in range(width):
            column = (width - 1 - x if mirrored else x) + left - padding
            columns[x] = width - 1 - abs(width - 1 - abs(column))
        for y in range(height):
            row = height - 1 - abs(height - 1 - abs(y + top - padding))
            for x in range(width):
                column = columns[x]
                crops[b, y, x, 0] = images[i, row, column, 0]  # a loop over the channels takes twice as long
                crops[b, y, x, 1] = images[i, row, column, 1]
                crops[b, y, x, 2] = images[i, row, column, 2]
