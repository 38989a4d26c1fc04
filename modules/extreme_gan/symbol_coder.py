"""Symbols 0..4 of a code as decisions: adaptive counts in the contexts of contexts.py, started from the prior.

A symbol is asked for by up to three questions: is it zero (2)? if not, is it positive? is it the outer one? Only kept
cells are coded, channel by channel in rows; the others are 2.
"""

import numpy as np
from numba import njit

from modules.components.kernels import kernel
from modules.extreme_gan.adaptive_bits import Reader, Writer, put, take
from modules.extreme_gan.contexts import NUM_CONTEXTS, NUM_SYMBOLS, OUTSIDE

ZERO = NUM_SYMBOLS // 2
QUESTIONS = 4  # zero? positive? -2 rather than -1? 2 rather than 1?
PRIOR_STRENGTH = 32
"""Symbols that the prior of a context counts for at most."""
_RESOLUTION = 1 << 16


def first_counts(prior: np.ndarray) -> np.ndarray:
    """int64 [C, 36 * 4, 2]: counts of the answers no and yes, from the prior [C, 36, 5] of symbol_frequencies."""
    total = prior.astype(np.float64).sum(-1, keepdims=True)
    strength = np.minimum(PRIOR_STRENGTH, np.floor(total * _RESOLUTION))
    n = np.floor(prior / np.maximum(total, 1e-30) * strength + 0.5).astype(np.int64)
    below, above = n[..., 0] + n[..., 1], n[..., 3] + n[..., 4]
    answers = [(n[..., 2], below + above), (below, above), (n[..., 1], n[..., 0]), (n[..., 3], n[..., 4])]
    counts = np.stack([np.stack(answer, -1) for answer in answers], -2)
    # The first question is "is it not zero?".
    return np.ascontiguousarray(counts.reshape(len(prior), NUM_CONTEXTS * QUESTIONS, 2))


@njit(nogil=True, inline="always")
def _context(symbols, keep, channel, row, column):
    left = symbols[channel, row, column - 1] if column > 0 and keep[row, column - 1] else OUTSIDE
    above = symbols[channel, row - 1, column] if row > 0 and keep[row - 1, column] else OUTSIDE
    return (6 * left + above) * QUESTIONS


@kernel()
def _put_symbols(symbols, keep, counts, starts, frequencies):
    position = 0
    for channel in range(symbols.shape[0]):
        for row in range(symbols.shape[1]):
            for column in range(symbols.shape[2]):
                if not keep[row, column]:
                    continue
                c = _context(symbols, keep, channel, row, column)
                s = symbols[channel, row, column]
                position = put(starts, frequencies, position, counts[channel], c, 1 if s != ZERO else 0)
                if s < ZERO:
                    position = put(starts, frequencies, position, counts[channel], c + 1, 0)
                    position = put(starts, frequencies, position, counts[channel], c + 2, 1 if s == 0 else 0)
                elif s > ZERO:
                    position = put(starts, frequencies, position, counts[channel], c + 1, 1)
                    position = put(starts, frequencies, position, counts[channel], c + 3, 1 if s == 4 else 0)
    return position


@kernel()
def _take_symbols(state, position, words, symbols, keep, counts):
    for channel in range(symbols.shape[0]):
        for row in range(symbols.shape[1]):
            for column in range(symbols.shape[2]):
                if not keep[row, column]:
                    continue
                c = _context(symbols, keep, channel, row, column)
                s = ZERO
                state, position, nonzero = take(state, position, words, counts[channel], c)
                if nonzero:
                    state, position, positive = take(state, position, words, counts[channel], c + 1)
                    state, position, outer = take(state, position, words, counts[channel], c + 2 + positive)
                    s = ZERO + 1 + outer if positive else ZERO - 1 - outer
                symbols[channel, row, column] = s
                if position > len(words):
                    return state, position, 0
    return state, position, 0


def write_symbols(writer: Writer, symbols: np.ndarray, keep: np.ndarray, prior: np.ndarray) -> None:
    """Symbols int64 [C, h, w] of the cells kept, bool [h, w]."""
    capacity = 3 * len(symbols) * int(keep.sum())
    starts, frequencies = np.empty(capacity, np.uint32), np.empty(capacity, np.uint32)
    count = _put_symbols(symbols, keep, first_counts(prior), starts, frequencies)
    writer.add(starts[:count], frequencies[:count])


def read_symbols(reader: Reader, keep: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Symbols int64 [C, h, w]; 2 wherever nothing is kept."""
    symbols = np.full((len(prior), *keep.shape), ZERO, np.int64)
    counts = first_counts(prior)
    reader.run(_take_symbols, symbols, keep, counts)
    return symbols
