"""The integer CDF of a mixture of logistics at one bin edge, and the search for a symbol in it.

No table over the alphabet is made: an encoder evaluates two edges per symbol, a decoder about five. Units:

    positions   bins, from the first symbol; means in 1/256 bin
    scales      natural logarithm of bins, rounded to 1/32; inverse from a table in 2^-24
    weights     logits relative to the largest, rounded to 1/32; exponential from a table in 2^-14
    logistic    argument in 2^-16, value from a table in 2^-28, linear between 1/64 apart
"""

import numpy as np
from numba import njit

from modules.components.coding.rans import TOTAL

MAX_MIXTURES = 32  # K * 2^14 * 2^28 * 2^16 must stay below 2^63

WEIGHT_STEPS, WEIGHT_RANGE = 32, 12
SCALE_STEPS, FIRST_LOG_SCALE, LAST_LOG_SCALE = 32, -7, 9
_LOGISTIC_STEPS, _LOGISTIC_RANGE = 64, 20


def exact_table(function, points: np.ndarray, scale: int) -> np.ndarray:
    """round(scale * function(points)), the rounding done far from ties so that every machine gets this table."""
    return np.rint(function(points.astype(np.float64)) * scale).astype(np.int64)


WEIGHT = exact_table(lambda x: np.exp(-x), np.arange(WEIGHT_STEPS * WEIGHT_RANGE + 1) / WEIGHT_STEPS, 1 << 14)
INVERSE_SCALE = exact_table(
    lambda x: np.exp(-x),
    np.arange(SCALE_STEPS * (LAST_LOG_SCALE - FIRST_LOG_SCALE) + 1) / SCALE_STEPS + FIRST_LOG_SCALE,
    1 << 24,
)
LOGISTIC = exact_table(
    lambda x: 1 / (1 + np.exp(-x)),
    np.arange(2 * _LOGISTIC_STEPS * _LOGISTIC_RANGE + 2) / _LOGISTIC_STEPS - _LOGISTIC_RANGE,
    1 << 28,
)
_LOGIT = np.rint(256 * np.log((np.arange(1024) + 0.5) / (1023.5 - np.arange(1024)))).astype(np.int64)
LOGISTIC_LIMIT = np.int64(_LOGISTIC_RANGE << 16)


@njit(nogil=True, inline="always")
def mass_below(edge, active, weights, means, inverses):
    """The mixture's mass, in 1 / 2^28 of the sum of weights, below symbol ``edge``; less than the whole."""
    position = np.int64(edge * 256 - 128)
    mass = np.int64(0)
    for k in range(active):
        t = ((position - means[k]) * inverses[k]) >> 16
        t = min(max(t, -LOGISTIC_LIMIT), LOGISTIC_LIMIT) + LOGISTIC_LIMIT
        index = t >> 10
        below = LOGISTIC[index]
        mass += weights[k] * (below + (((LOGISTIC[index + 1] - below) * (t & 1023)) >> 10))
    return mass


@njit(nogil=True, inline="always")
def cdf_at(edge, num_symbols, active, weights, total, means, inverses):
    """Integer CDF 0..65536 at the lower edge of symbol ``edge``: 0 at 0, 65536 at L, strictly increasing."""
    if edge <= 0:
        return np.int64(0)
    if edge >= num_symbols:
        return np.int64(TOTAL)
    return (mass_below(edge, active, weights, means, inverses) * (TOTAL - num_symbols)) // (total << 28) + edge


@njit(nogil=True, inline="always")
def likely_symbol(quantile, num_symbols, active, weights, total, means, inverses):
    """Symbol near a quantile 0..65535, that of one logistic with the mixture's mean and mean inverse scale."""
    centre, inverse = np.int64(0), np.int64(0)
    for k in range(active):
        centre += weights[k] * means[k]
        inverse += (weights[k] * inverses[k]) >> 14
    inverse = max((inverse << 14) // total, 1)
    guess = (centre // total + (_LOGIT[quantile >> 6] << 24) // inverse + 128) >> 8
    return min(max(guess, 0), num_symbols - 1)


@njit(nogil=True, inline="always")
def find(slot, num_symbols, active, weights, total, means, inverses):
    """(symbol, start, stop) with start <= slot < stop: guess, widen until it is inside, bisect.

    The guess saves most of the eight steps that bisecting 256 symbols would take, and decides nothing.
    """
    low = likely_symbol(slot, num_symbols, active, weights, total, means, inverses)
    start = cdf_at(low, num_symbols, active, weights, total, means, inverses)
    high, stop, step = low, start, 1
    if start <= slot:
        while stop <= slot:
            low, start = high, stop
            high = min(high + step, num_symbols)
            stop = cdf_at(high, num_symbols, active, weights, total, means, inverses)
            step *= 2
    else:
        while start > slot:
            high, stop = low, start
            low = max(low - step, 0)
            start = cdf_at(low, num_symbols, active, weights, total, means, inverses)
            step *= 2
    while high - low > 1:
        middle = (low + high) >> 1
        edge = cdf_at(middle, num_symbols, active, weights, total, means, inverses)
        if edge <= slot:
            low, start = middle, edge
        else:
            high, stop = middle, edge
    return low, start, stop
