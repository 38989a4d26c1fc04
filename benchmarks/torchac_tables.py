"""torchac behind our integer CDFs: the independent reference of tests and benchmarks, no part of the product.

Dense 16-bit CDF tables in, one arithmetic-coded stream per channel and block of positions out. A table has L + 1
entries where our coder needs two edges, so this is slow. torchac compiles C++ when it is imported (half a minute the
first time, g++ and ninja needed) and prints the build log: it is imported on first use, silently.
"""

import contextlib
import functools
import io
import struct
from types import ModuleType

import numpy as np
import torch

from modules.l3c.integer_mixture import Grid, mixture_tables

BLOCK = 16384
"""Positions per stream: bounds the table to 16384 x 257 entries."""


@functools.cache
def _torchac() -> ModuleType:
    with contextlib.redirect_stdout(io.StringIO()):
        import torchac
    return torchac


def as_int16(tables: np.ndarray) -> torch.Tensor:
    """[n, L + 1] integers 0..65536 as torchac wants them: modulo 2^16, so that 65536 becomes 0, in int16."""
    return torch.from_numpy((tables & 0xFFFF).astype(np.uint16).view(np.int16))


def encode_tables(tables: np.ndarray, symbols: np.ndarray) -> bytes:
    """Stream of symbols [n] under dense CDFs [n, L + 1], int64 in 0..65536 and strictly increasing."""
    return _torchac().encode_int16_normalized_cdf(as_int16(tables), torch.from_numpy(symbols.astype(np.int16)))


def decode_tables(tables: np.ndarray, stream: bytes) -> np.ndarray:
    """Symbols [n] of a stream of ``encode_tables``; a damaged stream gives wrong symbols, not an error."""
    return _torchac().decode_int16_normalized_cdf(as_int16(tables), stream).numpy().astype(np.int64)


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
    """Symbols [h, w, C'] uint16 of an intact stream of ``encode_mixture_tables``."""
    height, width, coded = shape
    p = parameters[:height, :width].reshape(height * width, -1)
    symbols = np.zeros((height * width, coded), np.uint16)
    position = 0
    for channel in range(coded):
        for first in range(0, len(symbols), BLOCK):
            block = slice(first, first + BLOCK)
            (length,) = struct.unpack_from("<I", stream, position)
            tables = mixture_tables(p[block], symbols[block], channel, grid)
            symbols[block, channel] = decode_tables(tables, stream[position + 4 : position + 4 + length])
            position += 4 + length
    return symbols.reshape(shape)
