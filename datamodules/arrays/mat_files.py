"""Real arrays, dense and sparse, from .mat files of MATLAB 5 to 7.2 that may be damaged or made to do harm.

    file    = header [128], element, element, ...
    element = type, number of bytes, content; the content of a compressed one is a zlib stream of another element
    matrix  = flags and class, dimensions, name, then the values, or rows, starts of columns and values if sparse

Own code because scipy.io.loadmat trusts type numbers, sparse indices and zlib streams: one altered byte can end the
process, and a checksum is never reached. As there, numbers keep the type in which they are stored, not their class's.
"""

import math
import struct
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csc_array

from datamodules.arrays.array_files import require_file, require_real

MAX_BYTES = 2**32
"""Largest array in float64 and dense, and largest expansion of a variable. MATLAB stores at most 2 GiB a variable."""
HEAD_BYTES = 4096
"""Beginning of an expanded variable in which its dimensions and name lie."""
MATRIX, COMPRESSED = 14, 15
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1"}
"""numpy's code by number of the type; 16 is UTF-8, in which some programs store names."""
BYTES = 2
SPARSE, NUMERIC = 5, range(6, 16)
OPAQUE = 17
NOT_NUMERIC = {1: "a cell array", 2: "a struct", 3: "an object", 4: "text", 16: "a function", OPAQUE: "an object"}
COMPLEX, LOGICAL = 0x800, 0x200


class Header(NamedTuple):
    """What a matrix says of itself before its values."""

    kind: int
    """Its class: SPARSE, one of NUMERIC, or something else."""
    flags: int
    shape: tuple[int, ...]
    name: str
    end: int
    """Where the values begin."""


def read_mat(path: Path, names: list[str]) -> list[np.ndarray]:
    """Variables of a .mat file, each of two or more axes and with at least one entry; sparse ones become dense.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, lacks a variable or holds anything but real numbers in it, or if a variable
            takes more than MAX_BYTES.
    """
    require_file(path, f"a .mat file that holds {' and '.join(names)}")
    try:
        found = read_variables(path, names)
        if absent := [name for name in names if found.get(name) is None]:
            raise ValueError(f"it has no {' and no '.join(absent)}, only {', '.join(found) or 'nothing'}")
        return [np.asarray(found[name]) for name in names]
    except Exception as error:  # zlib, struct and numpy each have errors of their own for damaged bytes
        wanted = f"a MATLAB file (version 5 to 7.2) with {' and '.join(names)}"
        raise ValueError(f"{path} cannot be read, it is not {wanted}: {error}") from None


def read_variables(path: Path, names: list[str]) -> dict[str, np.ndarray | None]:
    """The arrays called ``names``; None for other variables, which are not expanded."""
    found: dict[str, np.ndarray | None] = {}
    for order, kind, data in elements(path):
        head = zlib.decompressobj().decompress(data, HEAD_BYTES) if kind == COMPRESSED else data
        header = parse_header(memoryview(head)[8:], order)
        if header.name not in names:
            found[header.name] = None
        else:
            check(header, found)
            content = expand(data) if kind == COMPRESSED else data
            found[header.name] = parse_values(matrix_of(content, order), header, order)
    return found


def elements(path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Byte order, type and bytes of each element: an uncompressed matrix with its tag, or a zlib stream."""
    size = path.stat().st_size
    with path.open("rb") as file:
        order = byte_order(file.read(128))
        while tag := file.read(8):
            kind, num_bytes = struct.unpack(f"{order}II", tag)
            if kind not in (MATRIX, COMPRESSED) or num_bytes > size - file.tell():
                raise ValueError(f"an element of type {kind} and {num_bytes} bytes is unknown or cut off")
            data = file.read(num_bytes)
            yield order, kind, data if kind == COMPRESSED else tag + data


def byte_order(header: bytes) -> str:
    """``<`` or ``>``. Raises ValueError for other versions of MATLAB and other files."""
    order = {b"IM": "<", b"MI": ">"}.get(header[126:], "")
    version = struct.unpack(f"{order}H", header[124:126])[0] if order else 0
    if version != 0x0100:
        raise ValueError("its header is of another version or format; MATLAB writes this one by save(..., '-v7')")
    return order


def expand(stream: bytes) -> bytes:
    """What is compressed in ``stream``, checksum included, if it is MAX_BYTES or less."""
    expander = zlib.decompressobj()
    content = expander.decompress(stream, MAX_BYTES)
    if not expander.eof:
        raise ValueError(f"a compressed variable is cut off, or expands to more than {MAX_BYTES} bytes")
    return content


def matrix_of(content: bytes, order: str) -> memoryview:
    """The content of an uncompressed matrix, without its tag."""
    kind, size = struct.unpack_from(f"{order}II", content)
    if kind != MATRIX or size != len(content) - 8:
        raise ValueError(f"a variable is of type {kind} and {len(content) - 8} bytes, not {MATRIX} and {size}")
    return memoryview(content)[8:]


def take(matrix: memoryview, start: int, order: str) -> tuple[int, memoryview, int]:
    """Type and content of the element at ``start``, and where the next one begins: at a multiple of 8."""
    kind, size = struct.unpack_from(f"{order}II", matrix, start)
    first, is_small = start + 8, kind >> 16 > 0
    if is_small:  # type and size share 4 bytes, the content has the other 4
        kind, size, first = kind & 0xFFFF, kind >> 16, start + 4
    end = first + size
    if kind not in TYPES or end > len(matrix) or (is_small and size > 4):
        raise ValueError(f"an element of type {kind} and {size} bytes is unknown or cut off")
    return kind, matrix[first:end], -(-end // 8) * 8


def numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    return np.frombuffer(content, np.dtype(order + TYPES[kind]))


def parse_header(matrix: memoryview, order: str) -> Header:
    kind, content, start = take(matrix, 0, order)
    flags, shape = int(numbers(kind, content, order)[0]), []
    if flags & 0xFF != OPAQUE:  # which has no dimensions
        kind, content, start = take(matrix, start, order)
        shape = numbers(kind, content, order).tolist()
    _, content, start = take(matrix, start, order)
    return Header(flags & 0xFF, flags, tuple(shape), bytes(content).decode(errors="replace"), start)


def check(header: Header, found: Container[str]) -> None:
    """Is it new, real and not too large?"""
    name, shape = header.name, header.shape
    if name in found:
        raise ValueError(f"it holds {name} twice")
    is_numeric = header.kind == SPARSE or header.kind in NUMERIC
    if not is_numeric or header.flags & COMPLEX:
        kind = "complex" if is_numeric else NOT_NUMERIC.get(header.kind, f"of class {header.kind}")
        raise ValueError(f"{name} is {kind}, not a real array")
    if len(shape) < 2 or min(shape) < 1:
        raise ValueError(f"{name} has the shape {shape}, not a real array's with an entry or more")
    if 8 * math.prod(shape) > MAX_BYTES:
        raise ValueError(f"{name} of shape {shape} takes more than {MAX_BYTES} bytes; give a smaller part of it")


def parse_values(matrix: memoryview, header: Header, order: str) -> np.ndarray:
    kind, content, start = take(matrix, header.end, order)
    array = numbers(kind, content, order)
    if header.kind != SPARSE:
        array = array.reshape(header.shape, order="F")
    else:
        kind, content, start = take(matrix, start, order)
        starts = numbers(kind, content, order)
        kind, content, _ = take(matrix, start, order)
        if header.flags & LOGICAL and len(content) == starts[-1]:
            kind = BYTES  # MATLAB calls them double
        array = densify(numbers(kind, content, order), array, starts, header.shape)
    require_real(array.dtype, array.shape)
    return array.astype(bool) if header.flags & LOGICAL else array


def densify(values: np.ndarray, rows: np.ndarray, starts: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[M, N] of ``values`` [nnz] in ``rows`` [nnz] of the columns that begin at ``starts`` [N + 1]."""
    if len(shape) != 2 or len(starts) != shape[1] + 1 or {rows.dtype.kind, starts.dtype.kind} - set("iu"):
        raise ValueError(f"rows and columns of a sparse matrix do not suit its shape {shape}")
    rows, starts = rows.astype(np.int64), starts.astype(np.int64)
    number = starts[-1]  # room for more may follow
    rows, values = rows[:number], values[:number]
    is_ordered = starts[0] == 0 and (np.diff(starts) >= 0).all() and number == len(rows) == len(values)
    if not is_ordered or (rows < 0).any() or (rows >= shape[0]).any():
        raise ValueError(f"indices of a sparse matrix lie outside of its shape {shape}")
    return csc_array((values.astype(values.dtype.newbyteorder("=")), rows, starts), shape=shape).toarray()
