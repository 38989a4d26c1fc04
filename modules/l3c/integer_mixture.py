"""Integer CDFs of the logistic mixture, and its symbols in and out of the entropy coder.

Everything below the network's float32 output is integer arithmetic. ``_quantise`` rounds the parameters of one
sub-pixel to integers, ``cdf_at`` evaluates the mixture's CDF at one bin edge from those integers and tables, and
encoder, decoder and the dense tables of other coders all call these two. Equal network outputs thus give equal CDFs
on any machine; a network that computes the integers itself can take the place of ``_quantise``.

No table over the alphabet is made: an encoder evaluates two edges per symbol, a decoder about five. Units:

    positions   bins, from the first symbol; means in 1/256 bin
    scales      natural logarithm of bins, rounded to 1/32; inverse from a table in 2^-24
    weights     logits relative to the largest, rounded to 1/32; exponential from a table in 2^-14
    coefficients  raw values rounded to 1/512; sigmoid from a table in 2^-16
    logistic    argument in 2^-16, value from a table in 2^-28, linear between 1/64 apart

Letters: h, w positions, Q = P * C * K parameters of a position, C channels, K mixtures, L symbols.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from modules.components.coding.logistic_mixture import (
    FIRST_LOG_SCALE,
    INVERSE_SCALE,
    MAX_MIXTURES,
    SCALE_STEPS,
    WEIGHT,
    WEIGHT_RANGE,
    WEIGHT_STEPS,
    cdf_at,
    exact_table,
    find,
)
from modules.components.coding.rans import check_exhausted, encode_intervals, open_stream, pop, slot_of
from modules.components.kernels import kernel
from modules.l3c.nets import MIN_LOG_SCALE, Alphabet

_COEFFICIENT_STEPS, _COEFFICIENT_RANGE = 512, 12
_MEAN_LIMIT = np.float32(4096 * 256)


_SIGMOID = exact_table(
    lambda x: 1 / (1 + np.exp(-x)),
    np.arange(2 * _COEFFICIENT_STEPS * _COEFFICIENT_RANGE + 1) / _COEFFICIENT_STEPS - _COEFFICIENT_RANGE,
    1 << 16,
)
_SIGMOID_ZERO = _COEFFICIENT_STEPS * _COEFFICIENT_RANGE
_MIN_WEIGHT = 8


class Grid(NamedTuple):
    """What the kernels need of an alphabet."""

    num_symbols: int
    low: np.float32
    inverse_step: np.float32
    log_step: np.float32
    is_rgb: bool
    num_mixtures: int

    @classmethod
    def of(cls, alphabet: Alphabet, num_mixtures: int) -> "Grid":
        """Raises ValueError for more mixtures or symbols than 64-bit integers and 16-bit CDFs can hold."""
        if not 0 < num_mixtures <= MAX_MIXTURES or not 1 < alphabet.num_symbols <= 4096:
            raise ValueError(f"cannot code {alphabet.num_symbols} symbols with {num_mixtures} mixtures")
        step = np.float32(alphabet.step)
        inverse, log_step = np.float32(1 / alphabet.step), np.float32(np.log(np.float64(step)))
        return cls(alphabet.num_symbols, np.float32(alphabet.low), inverse, log_step, alphabet.is_rgb, num_mixtures)


@njit(nogil=True, inline="always")
def _rounded(value, steps, low, high):
    """Nearest integer of value * steps within [low, high]; low for NaN."""
    scaled = value * np.float32(steps)
    if not scaled > np.float32(low):
        return np.int64(low)
    return np.int64(high) if scaled >= np.float32(high) else np.int64(np.rint(scaled))


@njit(nogil=True, inline="always")
def _quantise(p, channel, num_channels, known, grid, weights, means, inverses):
    """Integer mixture of one sub-pixel from p [Q] and ``known`` [C], the symbols of earlier channels.

    Fills the first ``active`` entries of the three arrays, leaving out mixtures of less than 2^-11 of the largest
    weight (a few of ten are in use at most pixels), and returns ``active`` and the sum of the weights.
    """
    num_mixtures = grid.num_mixtures
    first = channel * num_mixtures
    block = num_channels * num_mixtures
    largest = p[first]
    for k in range(1, num_mixtures):
        if p[first + k] > largest:
            largest = p[first + k]
    total = np.int64(0)
    active = 0
    for k in range(num_mixtures):
        drop = _rounded(largest - p[first + k], WEIGHT_STEPS, 0, WEIGHT_STEPS * WEIGHT_RANGE)
        weight = WEIGHT[drop]
        if weight < _MIN_WEIGHT:
            continue
        weights[active] = weight
        total += weight
        mean = _rounded((p[block + first + k] - grid.low) * grid.inverse_step, 256, -_MEAN_LIMIT, _MEAN_LIMIT)
        if grid.is_rgb and channel > 0:
            raw = 3 * block + k
            a = _rounded(p[raw + (channel - 1) * num_mixtures], _COEFFICIENT_STEPS, -_SIGMOID_ZERO, _SIGMOID_ZERO)
            mean += (_SIGMOID[a + _SIGMOID_ZERO] * known[0]) >> 8
            if channel == 2:
                c = _rounded(p[raw + 2 * num_mixtures], _COEFFICIENT_STEPS, -_SIGMOID_ZERO, _SIGMOID_ZERO)
                mean += (_SIGMOID[c + _SIGMOID_ZERO] * known[1]) >> 8
        means[active] = mean
        log_scale = max(p[2 * block + first + k], np.float32(MIN_LOG_SCALE)) - grid.log_step
        inverses[active] = INVERSE_SCALE[
            _rounded(log_scale - np.float32(FIRST_LOG_SCALE), SCALE_STEPS, 0, len(INVERSE_SCALE) - 1)
        ]
        active += 1
    return active, total


@kernel()
def _intervals(p, symbols, grid, starts, frequencies):
    """Intervals of symbols [h, w, C'] under p [H >= h, W >= w, Q], in raster order, channels innermost."""
    height, width, coded = symbols.shape
    num_mixtures = grid.num_mixtures
    num_channels = p.shape[2] // (num_mixtures * (4 if grid.is_rgb else 3))
    weights = np.empty(num_mixtures, np.int64)
    means = np.empty(num_mixtures, np.int64)
    inverses = np.empty(num_mixtures, np.int64)
    n = 0
    for y in range(height):
        for x in range(width):
            for c in range(coded):
                active, total = _quantise(p[y, x], c, num_channels, symbols[y, x], grid, weights, means, inverses)
                s = np.int64(symbols[y, x, c])
                start = cdf_at(s, grid.num_symbols, active, weights, total, means, inverses)
                stop = cdf_at(s + 1, grid.num_symbols, active, weights, total, means, inverses)
                starts[n] = start
                frequencies[n] = stop - start
                n += 1


@kernel()
def _pop_all(p, symbols, grid, state, words):
    """Fill symbols [h, w, C'] from the stream; returns the coder's state and position."""
    height, width, coded = symbols.shape
    num_mixtures = grid.num_mixtures
    num_channels = p.shape[2] // (num_mixtures * (4 if grid.is_rgb else 3))
    weights = np.empty(num_mixtures, np.int64)
    means = np.empty(num_mixtures, np.int64)
    inverses = np.empty(num_mixtures, np.int64)
    position = 0
    for y in range(height):
        for x in range(width):
            for c in range(coded):
                active, total = _quantise(p[y, x], c, num_channels, symbols[y, x], grid, weights, means, inverses)
                symbol, start, stop = find(slot_of(state), grid.num_symbols, active, weights, total, means, inverses)
                symbols[y, x, c] = symbol
                state, position = pop(state, position, words, start, stop - start)
                if position > len(words):
                    return state, position
    return state, position


@kernel()
def _tables(p, known, channel, grid, tables):
    """Dense CDFs [n, L + 1] of one channel at positions p [n, Q] with known symbols [n, C]."""
    num_mixtures = grid.num_mixtures
    num_channels = p.shape[1] // (num_mixtures * (4 if grid.is_rgb else 3))
    weights = np.empty(num_mixtures, np.int64)
    means = np.empty(num_mixtures, np.int64)
    inverses = np.empty(num_mixtures, np.int64)
    for i in range(len(p)):
        active, total = _quantise(p[i], channel, num_channels, known[i], grid, weights, means, inverses)
        for edge in range(grid.num_symbols + 1):
            tables[i, edge] = cdf_at(edge, grid.num_symbols, active, weights, total, means, inverses)


def encode_mixture(parameters: np.ndarray, symbols: np.ndarray, grid: Grid) -> bytes:
    """Stream of symbols [h, w, C'] under parameters [H, W, Q] float32, H >= h and W >= w.

    Fewer channels than the alphabet has (C' < C) codes the first ones only, as for grayscale images.
    """
    starts, frequencies = np.empty(symbols.size, np.uint16), np.empty(symbols.size, np.uint16)
    _intervals(parameters, symbols, grid, starts, frequencies)
    return encode_intervals(starts, frequencies)


def decode_mixture(stream: bytes, parameters: np.ndarray, shape: tuple[int, int, int], grid: Grid) -> np.ndarray:
    """Symbols [h, w, C'] uint16 of a stream of ``encode_mixture`` with the same parameters.

    Raises:
        CorruptStreamError: if the stream does not fit the parameters.
    """
    state, words = open_stream(stream)
    symbols = np.zeros(shape, np.uint16)
    state, position = _pop_all(parameters, symbols, grid, state, words)
    check_exhausted(state, position, words)
    return symbols


def mixture_tables(parameters: np.ndarray, known: np.ndarray, channel: int, grid: Grid) -> np.ndarray:
    """Dense CDFs [n, L + 1] int64 in 0..65536 of ``channel`` at positions with parameters [n, Q], known [n, C]."""
    tables = np.empty((len(parameters), grid.num_symbols + 1), np.int64)
    _tables(parameters, known, channel, grid, tables)
    return tables
