"""Symbols of a code as bytes: one adaptive histogram for all channels (order 0), rANS, integers only.

Symbol j has the estimate (2 n_j + 1) / (2 n + L) after n symbols of which n_j were j (Krichevsky and Trofimov). A file
of n symbols is longer than n H, with H the entropy of its own histogram, by about (L - 1)/2 log2 n bits, and needs no
side information. Estimates are rounded to intervals of 1/65536 of which every symbol has at least one.
"""

import numpy as np
from numba import njit

from modules.components.coding.rans import (
    TOTAL,
    check_exhausted,
    encode_intervals,
    open_stream,
    pop,
    slot_of,
)
from modules.components.kernels import kernel

INCREMENT = 2


@njit(nogil=True, inline="always")
def _edge(below, total, symbol, num_symbols):
    """Lower edge of a symbol's interval, given the counts below it and of all."""
    return below * (TOTAL - num_symbols) // total + symbol


@kernel()
def _intervals(symbols, num_symbols, starts, frequencies):
    counts = np.ones(num_symbols, np.int64)
    total = num_symbols
    for i in range(len(symbols)):
        symbol = symbols[i]
        below = 0
        for j in range(symbol):
            below += counts[j]
        start = _edge(below, total, symbol, num_symbols)
        starts[i] = start
        frequencies[i] = _edge(below + counts[symbol], total, symbol + 1, num_symbols) - start
        counts[symbol] += INCREMENT
        total += INCREMENT


@kernel()
def _pop_symbols(state, words, num_symbols, symbols):
    counts = np.ones(num_symbols, np.int64)
    total = num_symbols
    position = 0
    for i in range(len(symbols)):
        slot = slot_of(state)
        symbol = 0
        below = 0
        end = _edge(counts[0], total, 1, num_symbols)
        start = 0
        while slot >= end:
            below += counts[symbol]
            symbol += 1
            start = end
            end = _edge(below + counts[symbol], total, symbol + 1, num_symbols)
        symbols[i] = symbol
        state, position = pop(state, position, words, start, end - start)
        if position > len(words):
            break
        counts[symbol] += INCREMENT
        total += INCREMENT
    return state, position


def write_symbols(symbols: np.ndarray, num_symbols: int) -> bytes:
    """The stream of symbols 0..num_symbols-1, int64 of any shape."""
    flat = np.ascontiguousarray(symbols.ravel(), np.int64)
    starts, frequencies = np.empty(len(flat), np.uint32), np.empty(len(flat), np.uint32)
    _intervals(flat, num_symbols, starts, frequencies)
    return encode_intervals(starts, frequencies)


def read_symbols(stream: bytes, count: int, num_symbols: int) -> np.ndarray:
    """``count`` symbols int64 [count] of a stream of ``write_symbols``.

    Raises:
        CorruptStreamError: if the stream is damaged.
    """
    state, words = open_stream(stream)
    symbols = np.zeros(count, np.int64)
    check_exhausted(*_pop_symbols(state, words, num_symbols, symbols), words)
    return symbols
