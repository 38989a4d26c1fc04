"""The mixture's symbols through torchac: dense tables, one stream per channel and block of positions.

Slow next to integer_mixture's coder (a table has L + 1 entries where two edges are needed) and the same CDFs: it
exists to check the one coder against the other, and for people whose tools expect torchac.
"""

import struct

import numpy as np

from modules.components.coding.rans import CorruptStreamError
from modules.components.coding.torchac_backend import decode_tables, encode_tables
from modules.l3c.integer_mixture import Grid, mixture_tables

BLOCK = 16384
"""Positions per stream: bounds the table to 16384 x 257 entries."""


def encode_mixture_tables(parameters: np.ndarray, symbols: np.ndarray, grid: Grid) -> bytes:
    """Like integer_mixture.encode_mixture: symbols [h, w, C'] under parameters [H >= h, W >= w, Q]."""
    height, width, coded = symbols.shape
    p = parameters[:height, :width].reshape(height * width, -1)
    flat = symbols.reshape(height * width, coded)
    streams = []
    for channel in range(coded):
        for first in range(0, len(flat), BLOCK):
            block = slice(first, first + BLOCK)
            stream = encode_tables(mixture_tables(p[block], flat[block], channel, grid), flat[block, channel])
            streams.append(struct.pack("<I", len(stream)) + stream)
    return b"".join(streams)


def decode_mixture_tables(stream: bytes, parameters: np.ndarray, shape: tuple[int, int, int], grid: Grid) -> np.ndarray:
    """Symbols [h, w, C'] uint16 of ``encode_mixture_tables``.

    Raises:
        CorruptStreamError: if the stream ends early or late. Other damage gives wrong symbols.
    """
    height, width, coded = shape
    p = parameters[:height, :width].reshape(height * width, -1)
    symbols = np.zeros((height * width, coded), np.uint16)
    position = 0
    for channel in range(coded):
        for first in range(0, len(symbols), BLOCK):
            block = slice(first, first + BLOCK)
            if position + 4 > len(stream):
                raise CorruptStreamError("an arithmetic-coded stream is cut short")
            (length,) = struct.unpack_from("<I", stream, position)
            position += 4
            if length > len(stream) - position:
                raise CorruptStreamError("an arithmetic-coded stream is cut short")
            tables = mixture_tables(p[block], symbols[block], channel, grid)
            symbols[block, channel] = decode_tables(tables, stream[position : position + length])
            position += length
    if position != len(stream):
        raise CorruptStreamError("bytes are left after the last arithmetic-coded stream")
    return symbols.reshape(shape)
