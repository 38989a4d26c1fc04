"""What is known of a pixel before it is coded: twenty neighbours in raster order, as whole numbers.

Green is coded first, then red, then blue, so that red is predicted from green and blue from both. Everything a
predictor sees is relative to the nearest neighbours::

              3  2  1  0  1  2  3        columns
       -3           .  .  .
       -2     .  .  .  .  .  .  .        . known neighbour, x the pixel to be coded
       -1     .  .  .  .  .  .  .
        0     .  .  .  x

With g, rg = R - G, bg = B - G and the mean m over W, N (weight 3) and NW, NE (weight 1), the differences D are

    green   g_i - m(g)    rg_i - m(rg)        bg_i - m(bg)    and  m(g) - 128, m(rg), m(bg), 0
    red     g_i - g       rg_i - m(rg)        bg_i - m(bg)    and  g - 128,    m(rg), m(bg), g - m(g)
    blue    g_i - g       rg_i - rg           bg_i - m(bg)    and  g - 128,    rg,    m(bg), rg - m(rg)

Outside of the image stands 128 above the first row, the last pixel of a row to its right, and to the left of a row the
first pixel of the row above. Letters: M pixels, N = 20 neighbours, F = 3 N + 4 differences.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional

from modules.components.kernels import kernel

OFFSETS = (
    *((0, -1), (-1, 0), (-1, -1), (-1, 1), (0, -2), (-2, 0), (-1, 2), (-1, -2), (-2, 1), (-2, -1)),
    *((0, -3), (-2, 2), (-2, -2), (-1, 3), (-1, -3), (-3, 0), (-2, 3), (-2, -3), (-3, 1), (-3, -1)),
)
"""(row, column) of the neighbours, nearest first; the first four make the mean, the first eight the activity."""

REACH = 3
"""Rows above and columns to either side that the neighbours take."""

MEAN_WEIGHTS = (3, 3, 1, 1)
NUM_ACTIVE = 8
NUM_DIFFERENCES = 3 * len(OFFSETS) + 4
LIMIT = 255
"""Differences are cut to -255..255."""

GREEN, RED, BLUE = 0, 1, 2
CHANNELS = (1, 0, 2)
"""Position in RGB of the first, second and third channel that is coded."""

_differences = np.arange(-LIMIT, LIMIT + 1)
COMPRESSED = np.rint(np.sign(_differences) * 25 * np.log2(1 + np.abs(_differences) / 16)).astype(np.float32)
"""[2 * 255 + 1] whole numbers in -102..102: what a predictor sees of a difference, in 1/32."""

SCALE_STEPS = 32
LOG_ACTIVITY = np.rint(SCALE_STEPS * np.log((np.arange(NUM_ACTIVE * LIMIT + 1) + 4) / 8)).astype(np.float32)
"""[8 * 255 + 1] natural logarithm, in 1/32, of (a + 4) / 8, a the sum of the eight nearest differences' sizes."""


_OFFSETS = np.array(OFFSETS, np.int64)
_MEAN_WEIGHTS = np.array(MEAN_WEIGHTS, np.int64)
_COMPRESSED = COMPRESSED.copy()
_LOG_ACTIVITY = LOG_ACTIVITY.copy()


class Tables(NamedTuple):
    """What ``tensor_contexts`` looks up."""

    compressed: Tensor
    half_log_activity: Tensor
    """Rounded down."""


class Context(NamedTuple):
    """The known surroundings of M pixels for one channel; all entries are whole numbers held in float32."""

    inputs: Tensor
    """[M, F + 1] what a predictor sees: compressed differences and half the log activity, in 1/32."""
    differences: Tensor
    """[M, F] in -255..255."""
    base: Tensor
    """[M] the value that the nearest neighbours suggest, in about -255..510."""
    activity: Tensor
    """[M] sum of the sizes of the eight nearest differences of the channel's own plane."""
    target: Tensor
    """[M] the pixel's value, 0..255."""


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """Entries of ``table`` [L] at whole numbers held in float32, of the index's shape."""
    return table.index_select(0, index.reshape(-1).int()).view(index.shape)


def pad(image: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> int16 [N, 3, H + 3, W + 6], by the rule at the top of this file."""
    padded = functional.pad(image.to(torch.int16), (REACH, REACH, REACH, 0), value=128)
    padded[..., REACH:, -REACH:] = padded[..., REACH:, -REACH - 1 : -REACH]
    padded[..., REACH + 1 :, :REACH] = padded[..., REACH:-1, REACH : REACH + 1]
    return padded


@njit(nogil=True, inline="always")
def surroundings(planes, y, x, around):
    """Copy the neighbours of pixel (y, x) of planes [rows, columns, 3] into ``around`` [3, N]."""
    for i in range(len(_OFFSETS)):
        row, column = y + _OFFSETS[i, 0], x + _OFFSETS[i, 1]
        for plane in range(3):
            around[plane, i] = planes[row, column, plane]


@njit(nogil=True)
def describe(around, own, channel, inputs, differences):
    """Fill ``inputs`` [F + 1] and ``differences`` [F] of one pixel; returns base and activity.

    ``around`` [3, N] are its neighbours, ``own`` [3] its values in the planes, of which those before ``channel`` count.
    """
    num = len(_OFFSETS)
    mean = np.zeros(3, np.int64)
    for plane in range(3):
        for i in range(len(_MEAN_WEIGHTS)):
            mean[plane] += _MEAN_WEIGHTS[i] * np.int64(around[plane, i])
        mean[plane] = (mean[plane] + 4) >> 3
    base = mean[0] if channel == 0 else np.int64(own[0]) + mean[channel]
    surprise = np.int64(0) if channel == 0 else np.int64(own[channel - 1]) - mean[channel - 1]
    for plane in range(channel):
        mean[plane] = own[plane]
    for plane in range(3):
        centre, first = np.int32(mean[plane]), plane * num
        for i in range(num):
            differences[first + i] = min(max(np.int32(around[plane, i]) - centre, np.int32(-LIMIT)), np.int32(LIMIT))
    for i in range(4):
        level = surprise if i == 3 else (mean[0] - 128 if i == 0 else mean[i])
        differences[3 * num + i] = min(max(level, -LIMIT), LIMIT)
    for i in range(3 * num + 4):
        inputs[i] = _COMPRESSED[np.uint32(np.int32(differences[i]) + LIMIT)]
    activity = np.int32(0)
    for i in range(NUM_ACTIVE):
        activity += abs(np.int32(differences[channel * num + i]))
    inputs[3 * num + 4] = np.floor(_LOG_ACTIVITY[activity] * np.float32(0.5))
    return base, np.int64(activity)


@kernel()
def _describe_all(planes, inputs, differences, facts):
    """``describe`` every pixel of planes [images, rows, columns, 3]; facts [3, 3, M] are base, activity, target."""
    around = np.empty((3, len(_OFFSETS)), np.int32)
    m = 0
    for image in range(planes.shape[0]):
        for y in range(REACH, planes.shape[1]):
            for x in range(REACH, planes.shape[2] - REACH):
                surroundings(planes[image], y, x, around)
                own = planes[image, y, x]
                for channel in range(3):
                    base, activity = describe(around, own, channel, inputs[channel, m], differences[channel, m])
                    facts[channel, 0, m], facts[channel, 1, m] = base, activity
                    facts[channel, 2, m] = np.int64(own[channel]) + (np.int64(own[0]) if channel > 0 else 0)
                m += 1


def contexts(padded: Tensor, tables: Tables | None = None) -> list[Context]:
    """The contexts of green, red and blue for every pixel of images [N, 3, H + 3, W + 6] as ``pad`` gives them.

    Any int16 window of an image with ``REACH`` rows above and columns to either side will do as well. On a CPU by one
    pass over the pixels, which halves the time of a training step; elsewhere by ``tensor_contexts``.

    Args:
        tables: on the images' device, for where nothing may be copied there.
    """
    if padded.device.type != "cpu":
        return tensor_contexts(padded, tables)
    red, green, blue = padded.unbind(1)
    planes = torch.stack((green, red - green, blue - green), dim=3).numpy()
    num = padded.shape[0] * (padded.shape[2] - REACH) * (padded.shape[3] - 2 * REACH)
    inputs = torch.empty(3, num, NUM_DIFFERENCES + 1)
    differences, facts = torch.empty(3, num, NUM_DIFFERENCES), torch.empty(3, 3, num)
    _describe_all(planes, inputs.numpy(), differences.numpy(), facts.numpy())
    return [Context(x, d, *f) for x, d, f in zip(inputs, differences, facts, strict=True)]


def tables_on(device: torch.device) -> Tables:
    return Tables(torch.from_numpy(COMPRESSED).to(device), torch.from_numpy(np.floor(LOG_ACTIVITY / 2)).to(device))


def tensor_contexts(padded: Tensor, tables: Tables | None = None) -> list[Context]:
    """``contexts`` by tensor operations on any device."""
    tables = tables or tables_on(padded.device)
    planes = torch.stack((padded[:, 1], padded[:, 0] - padded[:, 1], padded[:, 2] - padded[:, 1]))
    height, width = padded.shape[2] - REACH, padded.shape[3] - 2 * REACH

    def shifted(row: int, column: int) -> Tensor:
        window = planes[:, :, REACH + row : REACH + row + height, REACH + column : REACH + column + width]
        return window.reshape(3, -1)

    own = shifted(0, 0).float()
    around = torch.stack([shifted(*offset) for offset in OFFSETS], dim=2).float()
    mean = nearest_mean(around)
    return [described(around, own, mean, channel, tables) for channel in (GREEN, RED, BLUE)]


def nearest_mean(around: Tensor) -> Tensor:
    """[3, M] of the neighbours [3, M, N] of every pixel."""
    # No matrix product: under autocast it would be one of bfloat16.
    weighted = torch.stack([w * around[..., i] for i, w in enumerate(MEAN_WEIGHTS)]).sum(0)
    return torch.floor((weighted + 4) / sum(MEAN_WEIGHTS))


def described(around: Tensor, own: Tensor, mean: Tensor, channel: int, tables: Tables) -> Context:
    """The context of M pixels for one channel, from planes: neighbours, own values and ``nearest_mean``.

    Args:
        around: [3, M, N].
        own: [3, M], of which the planes before ``channel`` count; the channel's own becomes the target.
        mean: [3, M].
    """
    # The planes known at this pixel already are taken relative to the pixel, the others to the mean.
    centre = torch.cat((own[:channel], mean[channel:]))
    differences = (around - centre[..., None]).clamp(-LIMIT, LIMIT)
    level = torch.stack((centre[0] - 128, centre[1], centre[2], _surprise(own, mean, channel)), dim=1)
    activity = differences[channel, :, :NUM_ACTIVE].abs().sum(1)
    base = mean[channel] if channel == GREEN else own[0] + mean[channel]
    target = own[channel] if channel == GREEN else own[0] + own[channel]
    joined = torch.cat((differences.permute(1, 0, 2).flatten(1), level.clamp(-LIMIT, LIMIT)), dim=1)
    compressed, log_activity = (
        looked_up(table, index) for table, index in zip(tables, (joined + LIMIT, activity), strict=True)
    )
    return Context(torch.cat((compressed, log_activity[:, None]), dim=1), joined, base, activity, target)


def _surprise(own: Tensor, mean: Tensor, channel: int) -> Tensor:
    """How far the plane coded last was from its mean; 0 for the first."""
    return torch.zeros_like(mean[0]) if channel == GREEN else own[channel - 1] - mean[channel - 1]
