"""Label maps as vector graphics (the paper's way): polygons, coded corner after corner, and drawn in integers.

A corner is coded relative to the one before it, the first of a polygon relative to the first of the polygon before.
Polygons are drawn in order, later ones over earlier ones, by the even-odd rule at pixel centres; the arithmetic is
exact, so the same polygons give the same map everywhere.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modules.components.cityscapes_labels import COUNTED, INSTANCE_BASE, NAMES, NUM_LABELS
from modules.components.coding.container import CorruptFileError
from modules.components.kernels import kernel
from modules.extreme_gan.adaptive_bits import Reader, Writer, integer_counts

MAX_POLYGONS = 999
MAX_CORNERS = 1 << 16
MAX_COST = 64
"""Rows that edges cross and pixels that polygons cover at most, per pixel of the map."""


class Polygon(NamedTuple):
    label: int
    counted: bool
    """Whether it is an object of its own rather than a group or a surface."""
    corners: np.ndarray
    """int64 [n, 2], x within 0..W and y within 0..H."""


def read_polygons(path: Path, height: int, width: int) -> list[Polygon]:
    """The annotation file of a scene, its corners rounded to the grid of a ``height`` x ``width`` image.

    Objects without a label id (the licence plate, deleted ones) are left out, and so are those of one or two corners.

    Raises:
        ValueError: if the file is not an annotation in the format of Cityscapes.
    """
    try:
        content = json.loads(path.read_text())
        scale = np.array([width / content["imgWidth"], height / content["imgHeight"]])
        polygons = []
        for item in content["objects"]:
            name = item["label"].removesuffix("group")
            label = item["label"] if item["label"] in NAMES else name
            if item.get("deleted") or label not in NAMES:
                continue
            corners = np.array(item["polygon"], np.float64).reshape(-1, 2) * scale
            if not np.isfinite(corners).all():
                raise ValueError("a corner is not finite")
            grid = np.clip(np.floor(corners + 0.5), 0, [width, height]).astype(np.int64)
            index = NAMES.index(label)
            if len(grid) > 2:
                polygons.append(Polygon(index, index in COUNTED and label == item["label"], grid))
    except (OSError, KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is not a polygon annotation of Cityscapes: {error}") from error
    return polygons


@kernel()
def _draw(ids, corners, value):
    """Even-odd fill: pixel (r, c) is inside if an odd number of edges cross its row left of c + 1/2."""
    height, width = ids.shape
    n = len(corners)
    low, high = height, 0
    for i in range(n):
        low, high = min(low, corners[i, 1]), max(high, corners[i, 1])
    flips = np.zeros(width + 1, np.int64)
    for row in range(low, min(high, height)):
        flips[:] = 0
        for i in range(n):
            x0, y0 = corners[i, 0], corners[i, 1]
            x1, y1 = corners[(i + 1) % n, 0], corners[(i + 1) % n, 1]
            if (y0 <= row) != (y1 <= row):
                if y0 > y1:
                    x0, y0, x1, y1 = x1, y1, x0, y0
                # The edge crosses the row's centre at x0 + (row + 1/2 - y0) (x1 - x0) / (y1 - y0); the first column
                # whose centre is not left of that is ceil(crossing - 1/2).
                numerator = (2 * row + 1 - 2 * y0) * (x1 - x0) + (2 * x0 - 1) * (y1 - y0)
                first = -((-numerator) // (2 * (y1 - y0)))
                flips[min(max(first, 0), width)] += 1
        inside = 0
        for column in range(width):
            inside ^= flips[column] & 1
            if inside:
                ids[row, column] = value


def cost(polygons: list[Polygon], height: int, width: int) -> float:
    """Work of drawing, per pixel of the map."""
    work = 0
    for polygon in polygons:
        rows = int(np.ptp(polygon.corners[:, 1]))
        work += rows * (len(polygon.corners) + width)
    return work / (height * width)


def draw(polygons: list[Polygon], height: int, width: int) -> np.ndarray:
    """The instance map int64 [H, W] as Cityscapes numbers it: label, or label * 1000 + n for the n-th object."""
    ids = np.zeros((height, width), np.int64)
    found = [0] * NUM_LABELS
    for polygon in polygons:
        value = polygon.label
        if polygon.counted:
            value = INSTANCE_BASE * polygon.label + found[polygon.label]
            found[polygon.label] += 1
        _draw(ids, polygon.corners, value)
    return ids


def can_be_written(polygons: list[Polygon], height: int, width: int) -> bool:
    """Whether they are within the format's bounds."""
    corners = sum(len(polygon.corners) for polygon in polygons)
    return len(polygons) <= MAX_POLYGONS and corners <= MAX_CORNERS and cost(polygons, height, width) <= MAX_COST


class _Counts(NamedTuple):
    label: np.ndarray
    counted: np.ndarray
    size: np.ndarray
    start: np.ndarray
    step: np.ndarray
    sign: np.ndarray

    @classmethod
    def fresh(cls) -> "_Counts":
        one = lambda n: np.zeros((n, 2), np.int64)  # noqa: E731
        return cls(one(64), one(64), integer_counts(), integer_counts(), integer_counts(), one(6))


def write_polygons(writer: Writer, polygons: list[Polygon]) -> None:
    counts = _Counts.fresh()
    writer.integer(len(polygons), integer_counts())
    first = np.zeros(2, np.int64)
    for polygon in polygons:
        digits = [polygon.label >> shift & 1 for shift in range(5, -1, -1)]
        nodes = [(1 << i) + (polygon.label >> (6 - i)) for i in range(6)]
        writer.bits(digits, nodes, counts.label)
        writer.bits([int(polygon.counted)], [polygon.label], counts.counted)
        writer.integer(len(polygon.corners), counts.size)
        _write_step(writer, polygon.corners[0] - first, counts.start, counts.sign, 0)
        for step in np.diff(polygon.corners, axis=0):
            _write_step(writer, step, counts.step, counts.sign, 2)
        first = polygon.corners[0]


def _write_step(writer: Writer, step: np.ndarray, sizes: np.ndarray, signs: np.ndarray, context: int) -> None:
    for axis, value in enumerate(step.tolist()):
        writer.integer(abs(value), sizes)
        if value:
            writer.bits([int(value < 0)], [context + axis], signs)


def read_polygons_from(reader: Reader, height: int, width: int) -> list[Polygon]:
    """What ``write_polygons`` wrote.

    Raises:
        CorruptFileError: if polygons are too many, too costly to draw, or leave the map.
    """
    counts = _Counts.fresh()
    number, corners_left = reader.integer(integer_counts()), MAX_CORNERS
    if number > MAX_POLYGONS:
        raise CorruptFileError(f"{number} polygons, more than {MAX_POLYGONS}")
    polygons: list[Polygon] = []
    first = np.zeros(2, np.int64)
    for _ in range(number):
        label = 1
        for _ in range(6):
            label = 2 * label + reader.bit(counts.label, label)
        label -= 64
        if label >= NUM_LABELS:
            raise CorruptFileError(f"a polygon of label {label}, which does not exist")
        counted = bool(reader.bit(counts.counted, label))
        size = reader.integer(counts.size)
        corners_left -= size
        if size < 1 or corners_left < 0:
            raise CorruptFileError(f"polygons of no or of more than {MAX_CORNERS} corners")
        corners = [first + _read_step(reader, counts.start, counts.sign, 0)]
        for _ in range(size - 1):
            corners.append(corners[-1] + _read_step(reader, counts.step, counts.sign, 2))
        polygon = Polygon(label, counted, np.array(corners))
        if polygon.corners.min() < 0 or (polygon.corners.max(0) > [width, height]).any():
            raise CorruptFileError("a polygon leaves the image")
        polygons.append(polygon)
        first = polygon.corners[0]
    if not can_be_written(polygons, height, width):
        raise CorruptFileError("polygons that would take too long to draw")
    return polygons


def _read_step(reader: Reader, sizes: np.ndarray, signs: np.ndarray, context: int) -> np.ndarray:
    step = np.zeros(2, np.int64)
    for axis in range(2):
        value = reader.integer(sizes)
        step[axis] = -value if value and reader.bit(signs, context + axis) else value
    return step
