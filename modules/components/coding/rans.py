"""A range asymmetric numeral system coder (Duda 2013), 64-bit state, 32-bit words, 16-bit probabilities.

The coder is a stack: the encoder pushes the symbols last to first, the decoder pops them first to last. One symbol
with interval [start, start + frequency) of 2^16 turns the state x into::

    push  x -> (x // frequency) * 2^16 + x % frequency + start
    pop   slot = x % 2^16, find the symbol whose interval holds slot, x -> frequency * (x // 2^16) + slot - start

and words of 32 bits leave or enter below so that 2^31 <= x < 2^63. Nothing here depends on how intervals are made:
a model's kernel calls ``first_state``, ``pop`` and ``is_exhausted`` around its own search.

A stream is the final state (8 bytes) and the words in the order of reading (4 bytes each), little endian. Popping
everything returns the state to 2^31 with no word left, which a damaged stream does only by chance.
"""

import numpy as np
from numba import njit, uint64

from modules.components.kernels import kernel

PRECISION = 16
TOTAL = 1 << PRECISION
LOWER = np.uint64(1 << 31)
_WORD = np.uint64(32)
_PRECISION = np.uint64(PRECISION)
_SLOT_MASK = np.uint64(TOTAL - 1)
_WORD_MASK = np.uint64(0xFFFFFFFF)
_RENORMALISE = np.uint64(31 - PRECISION + 32)


class CorruptStreamError(ValueError):
    """The bytes are not a stream that an encoder wrote for this model."""


@kernel()
def _push_all(starts, frequencies, words):
    """Push every interval, last first; returns the state and the number of words, written from the end."""
    state = LOWER
    position = len(words)
    for i in range(len(starts) - 1, -1, -1):
        frequency = uint64(frequencies[i])
        if state >= frequency << _RENORMALISE:
            position -= 1
            words[position] = state & _WORD_MASK
            state >>= _WORD
        quotient = state // frequency
        state = (quotient << _PRECISION) + (state - quotient * frequency) + uint64(starts[i])
    return state, position


def encode_intervals(starts: np.ndarray, frequencies: np.ndarray) -> bytes:
    """The stream of symbols whose intervals are given, in the order of decoding.

    Args:
        starts, frequencies: [n] uint16 or wider, frequency >= 1 and start + frequency <= 65536.
    """
    words = np.empty(len(starts) + 1, np.uint32)
    state, position = _push_all(starts, frequencies, words)
    return np.uint64(state).astype("<u8").tobytes() + words[position:].astype("<u4").tobytes()


def open_stream(stream: bytes) -> tuple[np.uint64, np.ndarray]:
    """State and words of a stream.

    Raises:
        CorruptStreamError: if it is too short, ragged, or its state is out of range.
    """
    if len(stream) < 8 or len(stream) % 4:
        raise CorruptStreamError(f"an entropy-coded stream of {len(stream)} bytes is truncated")
    state = np.frombuffer(stream, "<u8", 1)[0]
    if not LOWER <= state < np.uint64(1 << 63):
        raise CorruptStreamError("an entropy-coded stream starts with an impossible state")
    return np.uint64(state), np.frombuffer(stream, "<u4", offset=8).astype(np.uint32)


def check_exhausted(state: int, position: int, words: np.ndarray) -> None:
    """Raises CorruptStreamError unless decoding ended exactly where encoding began."""
    if position != len(words) or np.uint64(state) != LOWER:
        raise CorruptStreamError("an entropy-coded stream does not end where its symbols do")


@njit(nogil=True, inline="always")
def pop(state, position, words, start, frequency):
    """State and position after a symbol with this interval; position becomes len(words) + 1 if words run out."""
    state = uint64(frequency) * (state >> _PRECISION) + (state & _SLOT_MASK) - uint64(start)
    if state < LOWER:
        if position >= len(words):
            return LOWER, len(words) + 1
        state = (state << _WORD) | uint64(words[position])
        position += 1
    return state, position


@njit(nogil=True, inline="always")
def slot_of(state):
    return np.int64(state & _SLOT_MASK)


def uniform_edge(symbol: np.ndarray, num_symbols: int) -> np.ndarray:
    """Lower edge of a symbol's interval under the uniform distribution, int64 in 0..65536."""
    return symbol.astype(np.int64) * TOTAL // num_symbols


def encode_uniform(symbols: np.ndarray, num_symbols: int) -> bytes:
    """Stream of symbols 0..num_symbols-1 that are all equally likely."""
    starts = uniform_edge(symbols.ravel(), num_symbols)
    return encode_intervals(starts, uniform_edge(symbols.ravel() + 1, num_symbols) - starts)


@kernel()
def _pop_uniform(state, words, num_symbols, symbols):
    position = 0
    for i in range(len(symbols)):
        symbol = ((slot_of(state) + 1) * num_symbols - 1) // TOTAL
        start = symbol * TOTAL // num_symbols
        symbols[i] = symbol
        state, position = pop(state, position, words, start, (symbol + 1) * TOTAL // num_symbols - start)
        if position > len(words):
            break
    return state, position


def decode_uniform(stream: bytes, count: int, num_symbols: int) -> np.ndarray:
    """``count`` symbols [count] int64 of a stream of ``encode_uniform``.

    Raises:
        CorruptStreamError: if the stream is damaged.
    """
    state, words = open_stream(stream)
    symbols = np.empty(count, np.int64)
    check_exhausted(*_pop_uniform(state, words, num_symbols, symbols), words)
    return symbols
