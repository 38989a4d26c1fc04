"""Maps of ids, lossless: each pixel as one of its neighbours, or else an id of the map's palette.

Asked in turn: is it the left one? the upper one? upper right? upper left? the id itself? Neighbours that are equal to
one already refused are not asked for. The context of a question is which of ten pairs of pixels around are equal; that
holds for any ids. Outside the map everything is the palette's first id.
"""

import numpy as np
from numba import njit

from modules.components.coding.container import CorruptFileError
from modules.components.kernels import kernel
from modules.extreme_gan.adaptive_bits import Reader, Writer, integer_counts, put, take

MAX_IDS = 4096
MAX_ID = 65535
NUM_PATTERNS = 1 << 10
QUESTIONS = 4


@njit(nogil=True, inline="always")
def _at(ids, row, column):
    if row < 0 or column < 0 or column >= ids.shape[1]:
        return 0
    return ids[row, column]


@njit(nogil=True, inline="always")
def _pattern(ids, r, c):
    """Left, upper, upper right and upper left neighbour, and the context."""
    w, n, ne, nw = _at(ids, r, c - 1), _at(ids, r - 1, c), _at(ids, r - 1, c + 1), _at(ids, r - 1, c - 1)
    ww, nn = _at(ids, r, c - 2), _at(ids, r - 2, c)
    p = 1 if w == nw else 0
    p = 2 * p + (1 if n == nw else 0)
    p = 2 * p + (1 if n == ne else 0)
    p = 2 * p + (1 if w == ww else 0)
    p = 2 * p + (1 if n == nn else 0)
    p = 2 * p + (1 if w == ne else 0)
    p = 2 * p + (1 if nw == _at(ids, r - 1, c - 2) else 0)
    p = 2 * p + (1 if nw == _at(ids, r - 2, c - 1) else 0)
    p = 2 * p + (1 if ne == _at(ids, r - 2, c + 1) else 0)
    p = 2 * p + (1 if ne == _at(ids, r - 1, c + 2) else 0)
    return w, n, ne, nw, p * QUESTIONS


@kernel()
def _put_map(ids, counts, tree, num_bits, starts, frequencies):
    i = 0
    for r in range(ids.shape[0]):
        for c in range(ids.shape[1]):
            w, n, ne, nw, p = _pattern(ids, r, c)
            x = ids[r, c]
            i = put(starts, frequencies, i, counts, p, 1 if x == w else 0)
            if x == w:
                continue
            if n != w:
                i = put(starts, frequencies, i, counts, p + 1, 1 if x == n else 0)
                if x == n:
                    continue
            if ne != w and ne != n:
                i = put(starts, frequencies, i, counts, p + 2, 1 if x == ne else 0)
                if x == ne:
                    continue
            if nw != w and nw != n and nw != ne:
                i = put(starts, frequencies, i, counts, p + 3, 1 if x == nw else 0)
                if x == nw:
                    continue
            node = 1
            for shift in range(num_bits - 1, -1, -1):
                bit = (x >> shift) & 1
                i = put(starts, frequencies, i, tree, node, bit)
                node = 2 * node + bit
    return i


@kernel()
def _take_map(state, i, words, ids, counts, tree, num_bits, num_ids):
    for r in range(ids.shape[0]):
        for c in range(ids.shape[1]):
            w, n, ne, nw, p = _pattern(ids, r, c)
            x = -1
            state, i, yes = take(state, i, words, counts, p)
            if yes:
                x = w
            if x < 0 and n != w:
                state, i, yes = take(state, i, words, counts, p + 1)
                if yes:
                    x = n
            if x < 0 and ne != w and ne != n:
                state, i, yes = take(state, i, words, counts, p + 2)
                if yes:
                    x = ne
            if x < 0 and nw != w and nw != n and nw != ne:
                state, i, yes = take(state, i, words, counts, p + 3)
                if yes:
                    x = nw
            if x < 0:
                node = 1
                for _ in range(num_bits):
                    state, i, bit = take(state, i, words, tree, node)
                    node = 2 * node + bit
                x = node - (1 << num_bits)
            if i > len(words) or x >= num_ids:
                return state, len(words) + 1, 0
            ids[r, c] = x
    return state, i, 0


def _counts(num_ids: int) -> tuple[np.ndarray, np.ndarray, int]:
    num_bits = max(num_ids - 1, 0).bit_length()
    return np.zeros((NUM_PATTERNS * QUESTIONS, 2), np.int64), np.zeros((1 << num_bits, 2), np.int64), num_bits


def write_map(writer: Writer, ids: np.ndarray) -> np.ndarray:
    """Write a map [H, W] of ids 0..65535; its palette, in the order in which a reader gets it.

    Raises:
        ValueError: for other ids, or more than 4096 different ones.
    """
    palette, indices = np.unique(ids, return_inverse=True)
    if palette[0] < 0 or palette[-1] > MAX_ID or len(palette) > MAX_IDS:
        raise ValueError(f"a map of ids holds at most {MAX_IDS} different ones within 0..{MAX_ID}")
    gaps = integer_counts()
    writer.integer(len(palette) - 1, integer_counts())
    for gap in np.diff(palette, prepend=-1) - 1:
        writer.integer(int(gap), gaps)
    counts, tree, num_bits = _counts(len(palette))
    capacity = ids.size * (QUESTIONS + num_bits)
    starts, frequencies = np.empty(capacity, np.uint32), np.empty(capacity, np.uint32)
    used = _put_map(indices.reshape(ids.shape).astype(np.int64), counts, tree, num_bits, starts, frequencies)
    writer.add(starts[:used].copy(), frequencies[:used].copy())
    return palette


def read_map(reader: Reader, height: int, width: int) -> np.ndarray:
    """The map int64 [H, W].

    Raises:
        CorruptFileError: if the palette is impossible.
    """
    num_ids = reader.integer(integer_counts()) + 1
    if num_ids > MAX_IDS:
        raise CorruptFileError(f"a map of {num_ids} ids, more than {MAX_IDS}")
    gaps = integer_counts()
    palette = np.cumsum([reader.integer(gaps) + 1 for _ in range(num_ids)]) - 1
    if palette[-1] > MAX_ID:
        raise CorruptFileError(f"an id of {palette[-1]}, more than {MAX_ID}")
    counts, tree, num_bits = _counts(num_ids)
    indices = np.zeros((height, width), np.int64)
    reader.run(_take_map, indices, counts, tree, num_bits, num_ids)
    return palette[indices]
