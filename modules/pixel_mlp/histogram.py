"""Histograms that learn, while a tile is coded, where values fall in the distributions that the network predicts.

Were the network right, the mixture's mass below a value would be anywhere in 0..65536 with equal probability. It is
not, and each tile errs in a way of its own. So the mass below an edge, in 1/65536, goes through a curve before it
becomes the coder's CDF, straight between 33 points::

    CDF 65536 |            . |        curve   the share of earlier values in the bins below, of 32 equal ones;
              |        .     |                a straight line at first, as if each bin had seen START values
              |     .        |        CDF     curve * (65536 - 256) / 65536 + edge, which leaves every value
            0 | .            |                at least one part of 65536
              0    mass    65536

One curve for each channel and context: the mixture's mean scale in SCALES steps, and the third of its own distribution
in which the pixel to the left fell, and the one above. A value fills a whole interval of mass; it is counted at one
place in it, drawn by a generator that encoder and decoder share. All curves start anew with every tile.

Whole numbers throughout: a tile gives a channel at most 2^20 values, so a count, moved up by 16 bits, stays below 2^37.
Letters: T tiles, C contexts, B bins.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from modules.components.coding.logistic_mixture import SCALE_STEPS, likely_symbol, mass_below
from modules.components.coding.rans import PRECISION, TOTAL

NUM_SYMBOLS = 256

BIN_BITS = 11
"""A bin holds 2^11 of the 2^16 parts of mass."""
BINS = 1 << (PRECISION - BIN_BITS)
START = 15
"""What each bin counts before the first value: more is slower to learn, fewer is taken in by chance."""
PERIOD = 32
"""Values of a context after which its curve is drawn anew."""

SCALES = 8
"""Steps of the mean log scale, half a natural logarithm each."""
SCALE_STEP = SCALE_STEPS // 2
FIRST_STEP_END = -SCALE_STEPS
"""Log scale in 1/32 that ends the first step: a scale of 0.37 grey levels. The last step begins at 7.4."""
THIRDS = 3
CONTEXTS = SCALES * THIRDS * THIRDS

_SEED, _FACTOR, _TERM, _MODULUS = 12345, 1664525, 1013904223, (1 << 32) - 1
"""Of the generator x -> factor x + term, modulo 2^32 (Numerical Recipes)."""


class Histograms(NamedTuple):
    """What is known of the values of T tiles, each of at most H x W pixels."""

    counts: np.ndarray
    """[T, 3, C, B] int32, START and more."""
    seen: np.ndarray
    """[T, 3, C] int32 values counted."""
    curves: np.ndarray
    """[T, 3, C, B + 1] int32, from 0 to 65536, never falling."""
    thirds: np.ndarray
    """[T, 3, H + 1, W + 1] int8 in which a pixel fell, the middle one for a pixel outside: row y + 1, column x + 1."""
    random: np.ndarray
    """[T] int64, the generator's number."""


def new_histograms(tiles: int, height: int, width: int) -> Histograms:
    """Those of tiles of which nothing is coded yet."""
    return Histograms(
        np.full((tiles, 3, CONTEXTS, BINS), START, np.int32),
        np.zeros((tiles, 3, CONTEXTS), np.int32),
        np.tile(np.arange(BINS + 1, dtype=np.int32) << BIN_BITS, (tiles, 3, CONTEXTS, 1)),
        np.full((tiles, 3, height + 1, width + 1), THIRDS // 2, np.int8),
        np.full(tiles, _SEED, np.int64),
    )


@njit(nogil=True, inline="always")
def scale_step(weighted, total):
    """0..7 of a mixture by the sum of its log scales in 1/32, each times its weight, and the sum of weights."""
    return min(max((weighted // total - FIRST_STEP_END) // SCALE_STEP + 1, 0), SCALES - 1)


@njit(nogil=True, inline="always")
def context_at(histograms, tile, channel, y, x, step):
    """The context of the value that comes next."""
    left = np.int64(histograms.thirds[tile, channel, y + 1, x])
    above = np.int64(histograms.thirds[tile, channel, y, x + 1])
    return (step * THIRDS + left) * THIRDS + above


@njit(nogil=True, inline="always")
def mass_at(edge, active, weights, total, means, inverses):
    """Mass 0..65536 below a value: 0 below 0, 65536 below 256, elsewhere less than 65536; never falls."""
    if edge <= 0:
        return np.int64(0)
    if edge >= NUM_SYMBOLS:
        return np.int64(TOTAL)
    return mass_below(edge, active, weights, means, inverses) // (total << (28 - PRECISION))


@njit(nogil=True, inline="always")
def corrected(mass, edge, curve):
    """Integer CDF at the lower edge of value ``edge`` with that mass below: 0 at 0, 65536 at 256, always rising."""
    if edge >= NUM_SYMBOLS:
        return np.int64(TOTAL)
    bin = mass >> BIN_BITS
    low, high = np.int64(curve[bin]), np.int64(curve[bin + 1])
    share = low + (((high - low) * (mass & ((1 << BIN_BITS) - 1))) >> BIN_BITS)
    return ((share * (TOTAL - NUM_SYMBOLS)) >> PRECISION) + edge


@njit(nogil=True, inline="always")
def _mass_of(share, curve):
    """A mass 0..65535 that the curve takes near ``share``, 0..65535."""
    low, high = 0, BINS
    while high - low > 1:
        middle = (low + high) >> 1
        if curve[middle] <= share:
            low = middle
        else:
            high = middle
    left, right = np.int64(curve[low]), np.int64(curve[high])
    return (low << BIN_BITS) + ((share - left) << BIN_BITS) // (right - left)


@njit(nogil=True, inline="always")
def find_corrected(slot, active, weights, total, means, inverses, curve):
    """(value, start, stop, mass below, mass below the next value) with start <= slot < stop, as ``find`` finds it."""
    low = likely_symbol(_mass_of(slot, curve), NUM_SYMBOLS, active, weights, total, means, inverses)
    below = mass_at(low, active, weights, total, means, inverses)
    start = corrected(below, low, curve)
    high, stop, above, step = low, start, below, 1
    if start <= slot:
        while stop <= slot:
            low, start, below = high, stop, above
            high = min(high + step, NUM_SYMBOLS)
            above = mass_at(high, active, weights, total, means, inverses)
            stop = corrected(above, high, curve)
            step *= 2
    else:
        while start > slot:
            high, stop, above = low, start, below
            low = max(low - step, 0)
            below = mass_at(low, active, weights, total, means, inverses)
            start = corrected(below, low, curve)
            step *= 2
    while high - low > 1:
        middle = (low + high) >> 1
        mass = mass_at(middle, active, weights, total, means, inverses)
        edge = corrected(mass, middle, curve)
        if edge <= slot:
            low, start, below = middle, edge, mass
        else:
            high, stop, above = middle, edge, mass
    return low, start, stop, below, above


@njit(nogil=True, inline="always")
def learn(histograms, tile, channel, y, x, context, below, above):
    """Count the value of pixel (y, x), whose mass goes from ``below`` to ``above``, and say where it fell."""
    random = (histograms.random[tile] * _FACTOR + _TERM) & _MODULUS
    histograms.random[tile] = random
    histograms.thirds[tile, channel, y + 1, x + 1] = min(((below + above) * THIRDS) >> (PRECISION + 1), THIRDS - 1)
    place = below + (((above - below) * (random >> 16)) >> 16)  # below 65536, for so is ``random >> 16``
    counts = histograms.counts[tile, channel, context]
    counts[min(place >> BIN_BITS, BINS - 1)] += 1
    seen = histograms.seen[tile, channel, context] + 1
    histograms.seen[tile, channel, context] = seen
    if seen % PERIOD == 0:
        curve = histograms.curves[tile, channel, context]
        total, share = np.int64(seen) + BINS * START, np.int64(0)
        for k in range(BINS):
            share += counts[k]
            curve[k + 1] = (share << PRECISION) // total
