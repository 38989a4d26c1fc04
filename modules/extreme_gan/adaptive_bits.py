"""Binary decisions with adaptive probabilities in one rANS stream; what the parts of a file are made of.

A decision is coded in a context that has counted n0 zeros and n1 ones before: P(1) = (n1 + 1/2) / (n0 + n1 + 1), in
integers, so that encoder and decoder agree everywhere. rANS is a stack, therefore a ``Writer`` first collects the
intervals of all decisions and codes them last to first at the end; a ``Reader`` takes them off as they are asked for.

Kernels get ``put`` and ``take`` with their own counts, arrays [contexts, 2] of int64.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from modules.components.coding.rans import TOTAL, check_exhausted, encode_intervals, open_stream, pop, slot_of
from modules.components.kernels import kernel

COUNT_LIMIT = 1023
"""Counts of a context are halved when their sum exceeds this, so that old decisions fade."""
MIN_FREQUENCY = 24
MAX_BITS = 32


@njit(nogil=True, inline="always")
def frequency_of_one(counts, context):
    """Share of 2^16 that a one gets, within 24..65512."""
    zeros, ones = counts[context, 0], counts[context, 1]
    return min(max((2 * ones + 1) * TOTAL // (2 * (zeros + ones + 1)), MIN_FREQUENCY), TOTAL - MIN_FREQUENCY)


@njit(nogil=True, inline="always")
def learn(counts, context, bit):
    counts[context, bit] += 1
    if counts[context, 0] + counts[context, 1] > COUNT_LIMIT:
        counts[context, 0] >>= 1
        counts[context, 1] >>= 1


@njit(nogil=True, inline="always")
def put(starts, frequencies, position, counts, context, bit):
    """Append the interval of a decision (zeros come first in [0, 2^16)); the next position."""
    one = frequency_of_one(counts, context)
    starts[position] = TOTAL - one if bit else 0
    frequencies[position] = one if bit else TOTAL - one
    learn(counts, context, bit)
    return position + 1


@njit(nogil=True, inline="always")
def take(state, position, words, counts, context):
    """The next decision: state, position, bit."""
    one = frequency_of_one(counts, context)
    bit = 1 if slot_of(state) >= TOTAL - one else 0
    if bit:
        state, position = pop(state, position, words, TOTAL - one, one)
    else:
        state, position = pop(state, position, words, 0, TOTAL - one)
    learn(counts, context, bit)
    return state, position, bit


@kernel()
def _put_all(bits, contexts, counts, starts, frequencies):
    position = 0
    for i in range(len(bits)):
        position = put(starts, frequencies, position, counts, contexts[i], bits[i])


@kernel()
def _take_bit(state, position, words, counts, context):
    return take(state, position, words, counts, context)


@kernel()
def _take_integer(state, position, words, counts):
    """A non-negative integer: the length of its binary form in unary, then the digits below the first one."""
    length = 0
    while length <= MAX_BITS:
        state, position, bit = take(state, position, words, counts, length)
        if not bit:
            break
        length += 1
    value = 1 if length else 0
    for i in range(length - 1):
        state, position, bit = take(
            state, position, words, counts, MAX_BITS + 1 + min(length - 1, 11) * 12 + min(i, 11)
        )
        value = 2 * value + bit
    return state, position, value


def integer_counts() -> np.ndarray:
    """Fresh counts for integers of one kind."""
    return np.zeros((MAX_BITS + 1 + 12 * 12, 2), np.int64)


class Writer:
    """Collects decisions; ``bytes`` codes them."""

    def __init__(self) -> None:
        self._starts: list[np.ndarray] = []
        self._frequencies: list[np.ndarray] = []

    def add(self, starts: np.ndarray, frequencies: np.ndarray) -> None:
        """Intervals that a kernel has made."""
        self._starts.append(starts)
        self._frequencies.append(frequencies)

    def bits(self, bits: list[int], contexts: list[int], counts: np.ndarray) -> None:
        starts, frequencies = np.empty(len(bits), np.uint32), np.empty(len(bits), np.uint32)
        _put_all(np.array(bits, np.int64), np.array(contexts, np.int64), counts, starts, frequencies)
        self.add(starts, frequencies)

    def integer(self, value: int, counts: np.ndarray) -> None:
        """A non-negative integer below 2^32 with counts of ``integer_counts``."""
        digits = [int(digit) for digit in f"{value:b}"] if value else []
        length = len(digits)
        unary = [1] * length + [0]
        below = [MAX_BITS + 1 + min(length - 1, 11) * 12 + min(i, 11) for i in range(length - 1)]
        self.bits(unary + digits[1:], [*range(length + 1), *below], counts)

    def uniform(self, value: int, num_values: int) -> None:
        """A value 0..num_values-1, all equally likely."""
        for shift in range(max(num_values - 1, 0).bit_length() - 1, -1, -1):
            self.bits([value >> shift & 1], [0], np.zeros((1, 2), np.int64))

    def bytes(self) -> bytes:
        empty = np.empty(0, np.uint32)
        return encode_intervals(np.concatenate([empty, *self._starts]), np.concatenate([empty, *self._frequencies]))


class Reader:
    """Takes decisions from the bytes of a ``Writer``.

    Raises:
        CorruptStreamError: at once, or by ``finish``, if the bytes are damaged. In between damaged bytes decode to
            wrong decisions.
    """

    def __init__(self, stream: bytes) -> None:
        self.state, self.words = open_stream(stream)
        self.position = 0

    def run(self, kernel: Callable[..., tuple[int, int, int]], *arguments: Any) -> int:
        """Let a kernel (state, position, words, ...) -> (state, position, value) take decisions."""
        state, self.position, value = kernel(self.state, self.position, self.words, *arguments)
        self.state = np.uint64(state)  # numba returns a plain int, which it would take back as a signed one
        return int(value)

    def integer(self, counts: np.ndarray) -> int:
        return self.run(_take_integer, counts)

    def uniform(self, num_values: int) -> int:
        """A value of as many bits as ``num_values - 1`` has; it may be larger than that in a damaged stream."""
        value = 0
        for _ in range(max(num_values - 1, 0).bit_length()):
            value = 2 * value + self.bit(np.zeros((1, 2), np.int64), 0)
        return value

    def bit(self, counts: np.ndarray, context: int) -> int:
        return self.run(_take_bit, counts, context)

    def finish(self) -> None:
        check_exhausted(self.state, self.position, self.words)
