"""One tile's symbols in and out of the entropy coder, many pixels at a time.

A pixel needs neighbours up to three columns to its right in the rows above, so row y may run four pixels behind row
y - 1. All pixels of one wave are coded together::

    wave of each pixel, x + 4 y     0  1  2  3  4  5  6  7  8  9
                                    4  5  6  7  8  9 10 11 12 13
                                    8  9 10 11 12 13 14 15 16 17

For each wave and each of green, red and blue: the inputs of its pixels become the rows of a matrix, the layers are
matrix products, and the pixels' symbols follow one another, top row first, in the stream of the entropy coder. The
encoder goes through the same waves with the pixels known, in the same kernel.

Everything is a whole number: sums in float32 stay below 2^24 (``nets.check_bounds``), so the order in which a matrix
product adds does not matter; what follows is int64.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from modules.components.coding.logistic_mixture import INVERSE_SCALE, WEIGHT
from modules.components.coding.rans import check_exhausted, encode_intervals, open_stream, pop, slot_of
from modules.components.kernels import kernel
from modules.pixel_mlp.context import (
    LOG_ACTIVITY,
    NUM_DIFFERENCES,
    OFFSETS,
    REACH,
    SCALE_STEPS,
    describe,
    surroundings,
)
from modules.pixel_mlp.histogram import (
    context_at,
    corrected,
    find_corrected,
    learn,
    mass_at,
    new_histograms,
    scale_step,
)
from modules.pixel_mlp.nets import (
    ACTIVATION_BITS,
    FIRST_WEIGHT_BITS,
    INPUT_BITS,
    MAX_ACTIVATION,
    MAX_LOG_SCALE,
    MEAN_STEPS,
    MIN_LOG_SCALE,
    SKIP_BITS,
    WEIGHT_BITS,
    ChannelPredictor,
    PixelMLP,
)

LAG = REACH + 1
MEAN_LIMIT = 4096 * MEAN_STEPS
_LOG_ACTIVITY = LOG_ACTIVITY.astype(np.int64)
FIRST_SCALE, LAST_SCALE = int(MIN_LOG_SCALE * SCALE_STEPS), int(MAX_LOG_SCALE * SCALE_STEPS)
_FIRST_SHIFT = np.float32(2.0 ** (ACTIVATION_BITS - INPUT_BITS - FIRST_WEIGHT_BITS))
_SHIFT = np.float32(2.0**-WEIGHT_BITS)
LAST_BITS = ACTIVATION_BITS + WEIGHT_BITS
_HALF = np.float32(0.5)
_TOP = np.float32(MAX_ACTIVATION)


class Predictor(NamedTuple):
    """What the kernel needs of one channel, whole numbers in float32. H hidden units, F differences, K mixtures."""

    first: np.ndarray
    """[F + 1, H]"""
    first_bias: np.ndarray
    hidden: np.ndarray
    """[layers - 1, H, H], each for ``x @ w``"""
    hidden_bias: np.ndarray
    last: np.ndarray
    """[H, 3 K]"""
    last_bias: np.ndarray
    skip: np.ndarray
    """[F] int32"""

    @classmethod
    def of(cls, predictor: ChannelPredictor) -> "Predictor":
        layers = [(w.detach().cpu().numpy().T.copy(), b.detach().cpu().numpy()) for w, b in predictor.integer_layers()]
        units = layers[0][0].shape[1]
        middle = layers[1:-1]
        return cls(
            *layers[0],
            np.stack([w for w, _ in middle]) if middle else np.empty((0, units, units), np.float32),
            np.stack([b for _, b in middle]) if middle else np.empty((0, units), np.float32),
            *layers[-1],
            predictor.integer_skip().detach().cpu().numpy().astype(np.int32),
        )


def predictors(network: PixelMLP) -> tuple[Predictor, Predictor, Predictor]:
    """Those of green, red and blue. Raises InexactWeightsError for weights that are not exact in float32."""
    network.check_bounds()
    green, red, blue = (Predictor.of(channel) for channel in network.channels)  # type: ignore[arg-type]
    return green, red, blue


@njit(nogil=True)
def _linear(skip, differences):
    """The linear skip, a whole number below 2^24 in size."""
    total = np.int32(0)
    for i in range(len(skip)):
        total += skip[i] * differences[i]
    return total


@njit(nogil=True)
def _activate(x, bias, scale):
    """x [P, H] in place: bias added, rounded to activations 0..511."""
    for p in range(x.shape[0]):
        for j in range(x.shape[1]):
            value = np.floor((x[p, j] + bias[j]) * scale + _HALF)
            x[p, j] = min(max(value, np.float32(0)), _TOP)


@njit(nogil=True, inline="always")
def _shifted(total, bits):
    """A whole number in float32, divided by 2^bits, halves upwards."""
    return (np.int64(total) + (1 << (bits - 1))) >> bits


@njit(nogil=True)
def _mixture(raw, bias, base, activity, linear, weights, means, inverses):
    """Integer mixture of one pixel from the last layer's sums [3 K]; mixtures in use, sum of weights, scale step."""
    num = len(raw) // 3
    largest = np.int64(-(1 << 40))
    for k in range(num):
        weights[k] = _shifted(raw[k] + bias[k], LAST_BITS - 5)
        largest = max(largest, weights[k])
    active, total, weighted = 0, np.int64(0), np.int64(0)
    log_activity = _LOG_ACTIVITY[activity]
    centre = base * MEAN_STEPS + _shifted(np.float64(linear), SKIP_BITS - 8)
    for k in range(num):
        weight = WEIGHT[min(largest - weights[k], len(WEIGHT) - 1)]
        if weight == 0:
            continue
        offset = _shifted(raw[num + k] + bias[num + k], LAST_BITS - 6)
        mean = centre + (((activity + 4) * offset) >> 1)
        scale = log_activity + _shifted(raw[2 * num + k] + bias[2 * num + k], LAST_BITS - 5)
        weights[active] = weight
        means[active] = min(max(mean, -MEAN_LIMIT), MEAN_LIMIT)
        scale = min(max(scale, FIRST_SCALE), LAST_SCALE)
        inverses[active] = INVERSE_SCALE[scale + 7 * SCALE_STEPS]
        total += weight
        weighted += weight * scale
        active += 1
    return active, total, scale_step(weighted, total)


@njit(nogil=True)
def _predict(inputs, predictor, hidden, spare, raw):
    """The last layer's sums raw [P, 3 K], without its bias, of inputs [P, F + 1]."""
    np.dot(inputs, predictor.first, hidden)
    _activate(hidden, predictor.first_bias, _FIRST_SHIFT)
    for layer in range(predictor.hidden.shape[0]):
        np.dot(hidden, predictor.hidden[layer], spare)
        _activate(spare, predictor.hidden_bias[layer], _SHIFT)
        hidden, spare = spare, hidden
    np.dot(hidden, predictor.last, raw)


@njit(nogil=True)
def _frame(planes, y, x, width):
    """Give the frame around the image the pixel (y, x) of the padded tile, where the rule of context.py says so."""
    height = planes.shape[0]
    if x == REACH and y + 1 < height:
        for column in range(REACH):
            planes[y + 1, column] = planes[y, x]
    if x == REACH + width - 1:
        for column in range(REACH):
            planes[y, REACH + width + column] = planes[y, x]


@njit(nogil=True, inline="always")
def rows_of(wave, height, width):
    """The first row that has a pixel in this wave, and how many have; no more than 0 after the last wave."""
    top = max(0, (wave - width + LAG) // LAG)
    return top, min(height - 1, wave // LAG) - top + 1


@kernel()
def _code(planes, predictor_of, num_channels, decoding, histograms, starts, frequencies, state, words):
    """Go through all waves: intervals of known pixels out, or pixels in. Returns the coder's state and position."""
    height, width = planes.shape[0] - REACH, planes.shape[1] - 2 * REACH
    longest = min(height, (width - 1) // LAG + 1)
    first = predictor_of[0]
    units, outputs = first.last.shape
    inputs = np.empty((longest, first.first.shape[0]), np.float32)
    hidden, spare = np.empty((longest, units), np.float32), np.empty((longest, units), np.float32)
    raw = np.empty((longest, outputs), np.float32)
    facts = np.empty((longest, 3), np.int64)
    around = np.empty((longest, 3, len(OFFSETS)), np.int32)
    differences = np.empty(NUM_DIFFERENCES, np.int32)
    weights, means = np.empty(outputs // 3, np.int64), np.empty(outputs // 3, np.int64)
    inverses = np.empty(outputs // 3, np.int64)
    n, position = 0, 0
    for wave in range(width + LAG * (height - 1)):
        top, count = rows_of(wave, height, width)
        for p in range(count):
            y = top + p
            surroundings(planes, y + REACH, wave - LAG * y + REACH, around[p])
        for channel in range(num_channels):
            predictor = predictor_of[channel]
            for p in range(count):
                y = top + p
                own = planes[y + REACH, wave - LAG * y + REACH]
                facts[p, 0], facts[p, 1] = describe(around[p], own, channel, inputs[p], differences)
                facts[p, 2] = _linear(predictor.skip, differences)
            _predict(inputs[:count], predictor, hidden[:count], spare[:count], raw[:count])
            for p in range(count):
                y = top + p
                row, column = y + REACH, wave - LAG * y + REACH
                active, total, step = _mixture(
                    raw[p], predictor.last_bias, facts[p, 0], facts[p, 1], facts[p, 2], weights, means, inverses
                )
                green = np.int64(planes[row, column, 0]) if channel > 0 else np.int64(0)
                context = context_at(histograms, 0, channel, y, wave - LAG * y, step)
                curve = histograms.curves[0, channel, context]
                if decoding:
                    symbol, start, stop, below, above = find_corrected(
                        slot_of(state), active, weights, total, means, inverses, curve
                    )
                    planes[row, column, channel] = symbol - green
                    state, position = pop(state, position, words, start, stop - start)
                    if position > len(words):
                        return state, position
                else:
                    symbol = np.int64(planes[row, column, channel]) + green
                    below = mass_at(symbol, active, weights, total, means, inverses)
                    above = mass_at(symbol + 1, active, weights, total, means, inverses)
                    start = corrected(below, symbol, curve)
                    starts[n] = start
                    frequencies[n] = corrected(above, symbol + 1, curve) - start
                    n += 1
                learn(histograms, 0, channel, y, wave - LAG * y, context, below, above)
        if decoding:
            for p in range(count):
                y = top + p
                _frame(planes, y + REACH, wave - LAG * y + REACH, width)
    return state, position


def _padded_planes(height: int, width: int) -> np.ndarray:
    """int16 [H + 3, W + 6, 3] of g, R - G and B - G outside of an image: grey of 128."""
    planes = np.zeros((height + REACH, width + 2 * REACH, 3), np.int16)
    planes[..., 0] = 128
    return planes


def pixels_of(planes: np.ndarray, channels: int) -> np.ndarray:
    """uint8 [h, w, 1 or 3] of padded planes."""
    inside = planes[REACH:, REACH:-REACH]
    if channels == 1:
        return inside[..., :1].astype(np.uint8)
    red, blue = inside[..., 1] + inside[..., 0], inside[..., 2] + inside[..., 0]
    return np.stack((red, inside[..., 0], blue), axis=-1).astype(np.uint8)


def encode_tile(pixels: np.ndarray, predictor_of: tuple[Predictor, Predictor, Predictor]) -> bytes:
    """The stream of pixels uint8 [h, w, 3], or [h, w, 1] for grayscale, which codes green alone."""
    height, width, channels = pixels.shape
    planes = _padded_planes(height, width)
    inside = planes[REACH:, REACH : REACH + width]
    if channels == 1:
        inside[..., 0] = pixels[..., 0]
    else:
        inside[..., 0] = pixels[..., 1]
        inside[..., 1] = pixels[..., 0].astype(np.int16) - pixels[..., 1]
        inside[..., 2] = pixels[..., 2].astype(np.int16) - pixels[..., 1]
    planes[REACH:, REACH + width :] = inside[:, -1:]
    planes[REACH + 1 :, :REACH] = inside[:-1, :1]
    starts, frequencies = np.empty(pixels.size, np.uint16), np.empty(pixels.size, np.uint16)
    nothing, histograms = np.empty(0, np.uint32), new_histograms(1, height, width)
    _code(planes, predictor_of, channels, False, histograms, starts, frequencies, np.uint64(0), nothing)
    return encode_intervals(starts, frequencies)


def decode_tile(
    stream: bytes, shape: tuple[int, int, int], predictor_of: tuple[Predictor, Predictor, Predictor]
) -> np.ndarray:
    """Pixels uint8 ``shape`` [h, w, 1 or 3] of a stream of ``encode_tile``.

    Raises:
        CorruptStreamError: if the stream does not fit the network.
    """
    height, width, channels = shape
    planes = _padded_planes(height, width)
    state, words = open_stream(stream)
    nothing, histograms = np.empty(0, np.uint16), new_histograms(1, height, width)
    state, position = _code(planes, predictor_of, channels, True, histograms, nothing, nothing, state, words)
    check_exhausted(state, position, words)
    return pixels_of(planes, channels)


def draw_tile(
    shape: tuple[int, int, int], predictor_of: tuple[Predictor, Predictor, Predictor], random: np.random.Generator
) -> np.ndarray:
    """Pixels uint8 ``shape`` drawn from the model: what a stream of random bits decodes to."""
    height, width, channels = shape
    planes = _padded_planes(height, width)
    words = random.integers(0, 1 << 32, height * width * channels // 2 + 2, dtype=np.uint32)
    nothing, histograms = np.empty(0, np.uint16), new_histograms(1, height, width)
    _code(planes, predictor_of, channels, True, histograms, nothing, nothing, np.uint64(1 << 40), words)
    return pixels_of(planes, channels)
