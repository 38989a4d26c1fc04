"""Decoding symbol after symbol with every activation computed once.

Letters as in nets.py. Cutting the 5x9x9 neighbourhood of each symbol and running the network on it, as the authors'
code does, computes most activations 405 times. Here the activations of the channel before and of the one at hand are
kept. Of each layer's 14 taps nine look at the channel before, all of which is known: these sums are matrix products
over whole planes (``from_before``). The other five look at the row above and to the left::

    channel before    channel at hand      a place (Y, X) of the first layer's plane, which is three wider than the
    o o o             o o o                image on each side, is followed at once by what it completes:
    o o o             o x .                    first (Y, X) -> second (Y-1, X-1) -> third (Y-2, X-2)
    o o o             . . .                    -> logits (Y-3, X-3) -> the symbol there, which enters the value plane

Going through the places row by row, each activation is there when it is needed: the layer after asks, in its row, for
those at X and before, and in the row above for one place more to the right, which is 1 + W places ago. Everything is a
whole number in float32 (exact_context.py), so any other order gives the same symbols.
"""

import numpy as np
from numba import njit

from modules.components.coding.rans import check_exhausted, open_stream, pop, slot_of
from modules.components.exact import IntegerLayer
from modules.components.kernels import kernel
from modules.cpm.exact_context import (
    ACTIVATION_BITS,
    CENTER_BITS,
    LARGEST,
    LOGIT_BITS,
    ExactContext,
    edge,
    weigh,
)
from modules.cpm.nets import REACH

_TOP = np.float32(LARGEST)
_HALF = np.float32(0.5)
_NEAR = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1))
"""Taps (row, column) of the plane at hand; the last is the place itself, which the first layer lacks."""


def near_weights(layer: IntegerLayer) -> np.ndarray:
    """[5, inputs, outputs], for the taps at hand."""
    weight = layer.weight.numpy()
    return np.stack([weight[:, :, 1, row, column].T for row, column in _NEAR]).copy()


def from_before(plane: np.ndarray, layer: IntegerLayer) -> np.ndarray:
    """What the channel before, [h + 2, w + 2, inputs], adds to the layer's sums [h, w, outputs], with the bias.

    Planes are taken as one long row: a tap is a shift, and the sums at the ends of rows are not used.
    """
    height, width, inputs = plane.shape
    flat, count = plane.reshape(-1, inputs), (height - 2) * width - 2
    sums = np.empty(((height - 2) * width, len(layer.bias)), np.float32)
    sums[:] = layer.bias.numpy()
    weight = layer.weight.numpy()
    for row in range(3):
        for column in range(3):
            start = row * width + column
            sums[:count] += flat[start : start + count] @ np.ascontiguousarray(weight[:, :, 0, row, column].T)
    return np.ascontiguousarray(sums.reshape(height - 2, width, -1)[:, :-2])


@njit(nogil=True)
def _add(sums, plane, row, column, weights, taps):
    """Add to sums [outputs] what the taps at hand see of ``plane``, whose place (row, column) is the first tap."""
    for tap in range(taps):
        y, x = row + (tap == 3 or tap == 4), column + (tap if tap < 3 else tap - 3)
        for channel in range(plane.shape[2]):
            value = plane[y, x, channel]
            if value != 0:
                for output in range(len(sums)):
                    sums[output] += value * weights[tap, channel, output]


@njit(nogil=True)
def _activate(sums, scale, low):
    """Rounded and clipped, in place."""
    for i in range(len(sums)):
        sums[i] = min(max(np.floor(sums[i] * scale + _HALF), low), _TOP)


@kernel()
def _decode_channel(values, a, b, c, sums, near, scales, relu_logits, centers, symbols, state, position, words):
    """Fill symbols [h, w] of a channel.

    ``values`` [h + 8, w + 8, 1] has the outside's value everywhere. ``a``, ``b`` and ``c`` are the planes of the three
    hidden layers, 6, 4 and 2 larger than the image, and ``sums`` the logits' [h, w, L]; all hold what ``from_before``
    says, and become the activations.
    """
    height, width = symbols.shape
    num_symbols = len(centers)
    scores, weights = np.empty(num_symbols, np.int64), np.empty(num_symbols, np.int64)
    for y in range(height + 6):
        for x in range(width + 6):
            _add(a[y, x], values, y, x, near[0], 4)
            _activate(a[y, x], scales[0], np.float32(0))
            if 1 <= y < height + 5 and 1 <= x < width + 5:
                _add(b[y - 1, x - 1], a, y - 1, x - 1, near[1], 5)
                _activate(b[y - 1, x - 1], scales[1], np.float32(0))
            if 2 <= y < height + 4 and 2 <= x < width + 4:
                place = c[y - 2, x - 2]
                _add(place, b, y - 2, x - 2, near[2], 5)
                for i in range(len(place)):
                    place[i] += a[y, x, i] / scales[2]
                _activate(place, scales[2], -_TOP)
            if 3 <= y < height + 3 and 3 <= x < width + 3:
                place = sums[y - 3, x - 3]
                _add(place, c, y - 3, x - 3, near[3], 5)
                for i in range(num_symbols):
                    scores[i] = np.int64(np.floor(place[i] * scales[3] + _HALF))
                    if relu_logits:
                        scores[i] = max(scores[i], 0)
                total = weigh(scores, weights)
                slot = slot_of(state)
                symbol, below = 0, np.int64(0)
                stop = edge(weights[0], total, 1, num_symbols)
                while slot >= stop:
                    below += weights[symbol]
                    symbol += 1
                    stop = edge(below + weights[symbol], total, symbol + 1, num_symbols)
                start = edge(below, total, symbol, num_symbols)
                state, position = pop(state, position, words, start, stop - start)
                if position > len(words):
                    return state, position
                symbols[y - 3, x - 3] = symbol
                values[y + 1, x + 1, 0] = centers[symbol]
    return state, position


def _first_planes(context: ExactContext, height: int, width: int) -> list[np.ndarray]:
    """Value and hidden planes of the channel before the first: everything there is outside."""
    outside = context.centers[:1].double().numpy()
    planes, seen = [np.broadcast_to(outside, (height + 8, width + 8, 1))], outside
    for number, layer in enumerate(context[1:4]):
        sums = layer.weight.double().sum((2, 3, 4)).numpy() @ seen + layer.bias.double().numpy()
        if number == 2:
            sums = sums + planes[1][0, 0] * 2.0**layer.bits
        bits = layer.bits + (CENTER_BITS - ACTIVATION_BITS if number == 0 else 0)
        seen = np.clip(np.floor(sums * 2.0**-bits + 0.5), -LARGEST if number == 2 else 0, LARGEST)
        border = 6 - 2 * number
        planes.append(np.broadcast_to(seen, (height + border, width + border, len(seen))))
    return [plane.astype(np.float32) for plane in planes]


def decode(stream: bytes, shape: tuple[int, int, int], context: ExactContext) -> np.ndarray:
    """Symbols uint8 [K, h, w] of a stream.

    Raises:
        CorruptStreamError: if it does not fit the context model.
    """
    channels, height, width = shape
    state, words = open_stream(stream)
    position = 0
    layers = context[1:5]
    near = tuple(near_weights(layer) for layer in layers)
    shifts = (CENTER_BITS + context.first.bits - ACTIVATION_BITS, context.second.bits, context.third.bits)
    scales = tuple(np.float32(2.0**-bits) for bits in (*shifts, ACTIVATION_BITS + context.last.bits - LOGIT_BITS))
    centers = context.centers.numpy()
    symbols = np.empty(shape, np.uint8)
    planes = _first_planes(context, height, width)
    for channel in range(channels):
        sums = [from_before(plane, layer) for plane, layer in zip(planes, layers, strict=True)]
        values = np.full((height + 2 * REACH, width + 2 * REACH, 1), centers[0])
        tables = near, scales, context.relu_logits, centers
        found = _decode_channel(values, *sums, *tables, symbols[channel], np.uint64(state), position, words)
        state, position = found
        if position > len(words):
            break
        planes = [values, *sums[:3]]
    check_exhausted(int(state), position, words)
    return symbols
