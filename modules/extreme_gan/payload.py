"""What a file of extreme compression says beside its header: one rANS stream of adaptive decisions.

    GC   symbols of all cells
    SC   the map: polygons, or else the raster of instance ids (labels follow from them)
         what is kept: everything, a box of cells, or a list of the map's ids
         symbols of the kept cells

Everything here is integers: symbols, map and kept cells decode exactly on every machine.
"""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from modules.components.coding.container import CorruptFileError
from modules.components.coding.rans import CorruptStreamError
from modules.extreme_gan.adaptive_bits import Reader, Writer
from modules.extreme_gan.polygons import Polygon, can_be_written, draw, read_polygons_from, write_polygons
from modules.extreme_gan.raster_coder import read_map, write_map
from modules.extreme_gan.symbol_coder import read_symbols, write_symbols


class Kept(IntEnum):
    EVERYTHING = 0
    BOX = 1
    INSTANCES = 2


class Grid(NamedTuple):
    """Sizes in pixels, and what they are padded to."""

    height: int
    width: int
    padded_height: int
    padded_width: int
    stride: int

    @property
    def cells(self) -> tuple[int, int]:
        return self.padded_height // self.stride, self.padded_width // self.stride


class Choice(NamedTuple):
    """What SC keeps: everything, or the pixels of a box (left, top, width, height), or the instances of a list."""

    box: tuple[int, int, int, int] | None = None
    instances: tuple[int, ...] | None = None


class Code(NamedTuple):
    symbols: np.ndarray
    """int64 [C, h, w]; 2 wherever nothing is kept."""
    keep: np.ndarray
    """bool [h, w]."""
    instances: np.ndarray | None
    """int64 [H, W] for SC."""


def padded_map(instances: np.ndarray, grid: Grid) -> np.ndarray:
    rows, columns = grid.padded_height - grid.height, grid.padded_width - grid.width
    return np.pad(instances, ((0, rows), (0, columns)), mode="edge")


def kept_cells(choice: Choice, instances: np.ndarray, grid: Grid) -> np.ndarray:
    """bool [h, w]: a cell is kept if any of its pixels is.

    Raises:
        ValueError: for a box outside the image.
    """
    if choice.box is not None:
        left, top, width, height = choice.box
        inside = left >= 0 and top >= 0 and left + width <= grid.width and top + height <= grid.height
        if not (inside and width > 0 and height > 0):
            raise ValueError(f"the box {left},{top},{width},{height} is not within {grid.width} x {grid.height} pixels")
        keep = np.zeros(grid.cells, bool)
        within = slice(top // grid.stride, (top + height - 1) // grid.stride + 1)
        keep[within, left // grid.stride : (left + width - 1) // grid.stride + 1] = True
        return keep
    if choice.instances is not None:
        pixels = np.isin(padded_map(instances, grid), choice.instances)
        rows, columns = grid.cells
        return np.asarray(pixels.reshape(rows, grid.stride, columns, grid.stride).any((1, 3)))
    return np.ones(grid.cells, bool)


def write_gc(symbols: np.ndarray, prior: np.ndarray) -> bytes:
    writer = Writer()
    write_symbols(writer, symbols, np.ones(symbols.shape[1:], bool), prior)
    return writer.bytes()


def read_gc(payload: bytes, grid: Grid, prior: np.ndarray) -> Code:
    """Raises CorruptFileError if the payload is not what ``write_gc`` writes for this grid."""
    try:
        reader = Reader(payload)
        keep = np.ones(grid.cells, bool)
        symbols = read_symbols(reader, keep, prior)
        reader.finish()
    except CorruptStreamError as error:
        raise CorruptFileError(str(error)) from error
    return Code(symbols, keep, None)


def write_sc(code: Code, choice: Choice, polygons: list[Polygon] | None, grid: Grid, prior: np.ndarray) -> bytes:
    """The payload; ``polygons``, if given, draw ``code.instances``."""
    assert code.instances is not None
    writer = Writer()
    as_polygons = polygons is not None and can_be_written(polygons, grid.height, grid.width)
    writer.uniform(int(as_polygons), 2)
    if as_polygons:
        assert polygons is not None
        write_polygons(writer, polygons)
        palette = np.unique(code.instances)
    else:
        palette = write_map(writer, code.instances)
    _write_choice(writer, choice, palette, grid)
    write_symbols(writer, code.symbols, code.keep, prior)
    return writer.bytes()


def _write_choice(writer: Writer, choice: Choice, palette: np.ndarray, grid: Grid) -> None:
    rows, columns = grid.cells
    if choice.box is not None:
        writer.uniform(Kept.BOX, 3)
        left, top, width, height = choice.box
        last_column, last_row = (left + width - 1) // grid.stride, (top + height - 1) // grid.stride
        for value, limit in ((left // grid.stride, columns), (top // grid.stride, rows)):
            writer.uniform(value, limit)
        for value, limit in ((last_column, columns), (last_row, rows)):
            writer.uniform(value, limit)
    elif choice.instances is not None:
        writer.uniform(Kept.INSTANCES, 3)
        chosen = np.isin(palette, choice.instances).astype(int).tolist()
        writer.bits(chosen, [0] * len(chosen), np.zeros((1, 2), np.int64))
    else:
        writer.uniform(Kept.EVERYTHING, 3)


def _read_choice(reader: Reader, instances: np.ndarray, grid: Grid) -> np.ndarray:
    rows, columns = grid.cells
    kind = reader.uniform(3)
    if kind == Kept.EVERYTHING:
        return np.ones(grid.cells, bool)
    if kind == Kept.INSTANCES:
        counts = np.zeros((1, 2), np.int64)
        palette = np.unique(instances)
        chosen = tuple(i for i in palette.tolist() if reader.bit(counts, 0))
        return kept_cells(Choice(instances=chosen), instances, grid)
    left, top, right, bottom = (reader.uniform(limit) for limit in (columns, rows, columns, rows))
    if kind != Kept.BOX or not (left <= right < columns and top <= bottom < rows):
        raise CorruptFileError("an impossible choice of what is kept")
    keep = np.zeros(grid.cells, bool)
    keep[top : bottom + 1, left : right + 1] = True
    return keep


def read_sc(payload: bytes, grid: Grid, prior: np.ndarray) -> Code:
    """Raises CorruptFileError if the payload is not what ``write_sc`` writes for this grid."""
    try:
        reader = Reader(payload)
        if reader.uniform(2):
            instances = draw(read_polygons_from(reader, grid.height, grid.width), grid.height, grid.width)
        else:
            instances = read_map(reader, grid.height, grid.width)
        keep = _read_choice(reader, instances, grid)
        symbols = read_symbols(reader, keep, prior)
        reader.finish()
    except CorruptStreamError as error:
        raise CorruptFileError(str(error)) from error
    return Code(symbols, keep, instances)
