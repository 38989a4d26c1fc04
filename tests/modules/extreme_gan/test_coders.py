"""Adaptive decisions, symbols, maps, polygons: round trips, sizes near the entropy, exact bytes, hostile streams."""

import io
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modules.components.coding.container import CorruptFileError
from modules.components.coding.rans import CorruptStreamError
from modules.extreme_gan import polygons
from modules.extreme_gan.adaptive_bits import COUNT_LIMIT, Reader, Writer, integer_counts
from modules.extreme_gan.polygons import Polygon, draw, read_polygons, read_polygons_from, write_polygons
from modules.extreme_gan.raster_coder import read_map, write_map
from modules.extreme_gan.symbol_coder import first_counts, read_symbols, write_symbols


def round_trip_map(ids: np.ndarray) -> int:
    writer = Writer()
    palette = write_map(writer, ids)
    stream = writer.bytes()
    reader = Reader(stream)
    assert np.array_equal(read_map(reader, *ids.shape), ids)
    reader.finish()
    assert palette.tolist() == sorted(set(ids.ravel().tolist()))
    return len(stream)


def blobs(height: int, width: int, ids: list[int], seed: int = 0) -> np.ndarray:
    """A map of smooth regions."""
    rng = np.random.default_rng(seed)
    field = Image.fromarray(rng.random((6, 8)).astype(np.float32) * (len(ids) - 0.01))
    return np.array(ids)[
        np.array(field.resize((width, height), Image.Resampling.BICUBIC)).clip(0, len(ids) - 1).astype(int)
    ]


def test_decisions_cost_what_adaptive_counting_says() -> None:
    rng = np.random.default_rng(0)
    bits, contexts = (rng.random(5000) < 0.1).astype(int).tolist(), rng.integers(0, 2, 5000).tolist()
    writer = Writer()
    writer.bits(bits, contexts, np.zeros((2, 2), np.int64))
    stream = writer.bytes()
    counts, expected = np.zeros((2, 2)), 0.0
    for bit, context in zip(bits, contexts, strict=True):
        expected -= np.log2((counts[context, bit] + 0.5) / (counts[context].sum() + 1))
        counts[context, bit] += 1
        if counts[context].sum() > COUNT_LIMIT:
            counts[context] //= 2
    assert 8 * len(stream) == pytest.approx(expected, abs=64 + 32 + 10)
    reader, fresh = Reader(stream), np.zeros((2, 2), np.int64)
    assert [reader.bit(fresh, context) for context in contexts] == bits
    reader.finish()


def test_integers_and_uniform_values() -> None:
    values = [0, 1, 2, 3, 7, 8, 255, 65535, 65536, (1 << 32) - 1, 5, 5, 5]
    writer, counts = Writer(), integer_counts()
    for value in values:
        writer.integer(value, counts)
    for value, limit in ((0, 1), (4, 5), (1023, 1024), (2, 3)):
        writer.uniform(value, limit)
    reader, counts = Reader(writer.bytes()), integer_counts()
    assert [reader.integer(counts) for _ in values] == values
    assert [reader.uniform(limit) for limit in (1, 5, 1024, 3)] == [0, 4, 1023, 2]
    reader.finish()
    assert Writer().bytes() == (1 << 31).to_bytes(8, "little")


def test_exact_bytes() -> None:
    """Rewritten only with a new format version."""
    writer = Writer()
    write_map(writer, np.array([[7, 7, 7, 11], [7, 7, 11, 11], [24003, 7, 11, 11]]))
    writer.integer(300, integer_counts())
    write_symbols(writer, np.array([[[0, 1, 2], [3, 4, 2]]]), np.ones((2, 3), bool), np.zeros((1, 36, 5), np.float32))
    assert writer.bytes().hex() == GOLDEN


GOLDEN = "1796b99f7027e74a9a936d4f00807f34"


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_symbols(share: float) -> None:
    rng = np.random.default_rng(0)
    symbols = rng.choice(5, (3, 12, 17), p=[0.05, 0.2, 0.5, 0.2, 0.05])
    keep = rng.random((12, 17)) < share
    prior = rng.random((3, 36, 5)).astype(np.float32)
    writer = Writer()
    write_symbols(writer, symbols, keep, prior)
    stream = writer.bytes()
    reader = Reader(stream)
    found = read_symbols(reader, keep, prior)
    reader.finish()
    assert np.array_equal(found[:, keep], symbols[:, keep]) and (found[:, ~keep] == 2).all()
    changed = np.where(keep, symbols, rng.integers(0, 5, symbols.shape))
    writer = Writer()
    write_symbols(writer, changed, keep, prior)
    assert writer.bytes() == stream  # nothing of what is not kept is in the bytes


def test_a_good_prior_makes_short_codes_shorter_and_uniform_symbols_cost_log2_5() -> None:
    rng = np.random.default_rng(0)
    p = np.array([0.02, 0.1, 0.7, 0.15, 0.03])
    symbols = rng.choice(5, (2, 16, 32), p=p)
    keep, prior = np.ones((16, 32), bool), np.tile(p / 36, (2, 36, 1)).astype(np.float32)

    def size(symbols: np.ndarray, prior: np.ndarray) -> int:
        writer = Writer()
        write_symbols(writer, symbols, keep, prior)
        return len(writer.bytes())

    entropy = -(p * np.log2(p)).sum() * symbols.size / 8
    assert size(symbols, prior) < 1.12 * entropy + 12
    assert size(symbols, np.zeros_like(prior)) > size(symbols, prior) + 8
    uniform = rng.integers(0, 5, (1, 128, 128))
    writer = Writer()
    write_symbols(writer, uniform, np.ones((128, 128), bool), np.zeros((1, 36, 5), np.float32))
    assert len(writer.bytes()) == pytest.approx(np.log2(5) * uniform.size / 8, rel=0.02)


def test_first_counts_are_the_prior_at_its_strength() -> None:
    prior = np.zeros((1, 36, 5), np.float32)
    prior[0, 3] = [0.1, 0.1, 0.4, 0.2, 0.2]
    prior[0, 4, 2] = 3 / 65536
    counts = first_counts(prior).reshape(36, 4, 2)
    assert counts[3].tolist() == [[13, 6 + 12], [6, 12], [3, 3], [6, 6]]
    assert counts[4].tolist() == [[3, 0], [0, 0], [0, 0], [0, 0]] and counts[5].sum() == 0


def test_maps_of_every_kind() -> None:
    rng = np.random.default_rng(0)
    round_trip_map(np.array([[65535]]))
    round_trip_map(np.zeros((3, 5), np.int64))
    round_trip_map(rng.integers(0, 3, (7, 1)))
    round_trip_map(rng.integers(0, 4000, (40, 50)))
    for bad in (np.array([[-1]]), np.array([[65536]]), np.arange(4097)[None]):
        with pytest.raises(ValueError, match="at most 4096 different ones within"):
            write_map(Writer(), bad)


def test_a_label_map_takes_less_than_png() -> None:
    ids = blobs(96, 160, [7, 8, 11, 21, 23, 24000, 24001, 26000])
    buffer = io.BytesIO()
    _, indices = np.unique(ids, return_inverse=True)
    Image.fromarray(indices.reshape(ids.shape).astype(np.uint8)).save(buffer, "PNG", optimize=True)
    assert round_trip_map(ids) < 0.6 * buffer.tell()


def inside(corners: list[tuple[int, int]], row: int, column: int) -> bool:
    """Even-odd rule at the pixel's centre, in fractions; an edge counts if it is not right of the centre."""
    x, y, crossings = Fraction(2 * column + 1, 2), Fraction(2 * row + 1, 2), 0
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 > y) != (y1 > y):
            crossings += x0 + (y - y0) * Fraction(x1 - x0, y1 - y0) <= x
    return crossings % 2 == 1


def random_polygons(count: int, height: int, width: int, seed: int = 0) -> list[Polygon]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        corners = np.stack([rng.integers(0, width + 1, 6), rng.integers(0, height + 1, 6)], 1)
        made.append(Polygon(int(rng.choice([7, 24, 26])), bool(rng.integers(2)), corners))
    return made


def test_drawing_is_the_even_odd_rule_in_order() -> None:
    shapes = random_polygons(12, 10, 13)
    expected, numbers = np.zeros((10, 13), int), {}
    for label, counted, corners in shapes:
        value = label
        if counted:
            value = 1000 * label + numbers.setdefault(label, 0)
            numbers[label] += 1
        for r in range(10):
            for c in range(13):
                if inside([tuple(p) for p in corners.tolist()], r, c):
                    expected[r, c] = value
    assert np.array_equal(draw(shapes, 10, 13), expected)
    square = Polygon(7, False, np.array([[2, 1], [5, 1], [5, 4], [2, 4]]))
    assert draw([square], 6, 8).sum() == 7 * 9 and draw([square], 6, 8)[1:4, 2:5].all()


def test_polygons_round_trip_and_cost_less_than_their_raster() -> None:
    shapes = random_polygons(20, 200, 300)
    writer = Writer()
    write_polygons(writer, shapes)
    reader = Reader(writer.bytes())
    found = read_polygons_from(reader, 200, 300)
    reader.finish()
    for a, b in zip(found, shapes, strict=True):
        assert a[:2] == b[:2] and np.array_equal(a.corners, b.corners)
    assert len(writer.bytes()) < round_trip_map(draw(shapes, 200, 300))


def test_annotations_are_read_at_the_size_of_the_image(tmp_path: Path) -> None:
    square = [[0, 0], [100, 0], [100, 51], [0, 51]]
    objects = [
        {"label": "road", "polygon": square},
        {"label": "cargroup", "polygon": square},
        {"label": "car", "polygon": square},
        {"label": "license plate", "polygon": square},
        {"label": "car", "polygon": square, "deleted": 1},
        {"label": "polegroup", "polygon": [[-5, 0], [300, 0], [5, 5.4]]},
        {"label": "sky", "polygon": square[:2]},
    ]
    path = tmp_path / "a_polygons.json"
    path.write_text(json.dumps({"imgHeight": 100, "imgWidth": 200, "objects": objects}))
    found = read_polygons(path, 50, 100)
    assert [(p.label, p.counted) for p in found] == [(7, False), (26, False), (26, True), (18, False)]
    assert found[0].corners.tolist() == [[0, 0], [50, 0], [50, 26], [0, 26]]
    assert found[3].corners.tolist() == [[0, 0], [100, 0], [3, 3]]
    for text in ("{", "[]", '{"imgHeight": 0, "imgWidth": 1, "objects": []}', '{"imgHeight": 1, "imgWidth": 1}',
                 '{"imgHeight": 1, "imgWidth": 1, "objects": [{"label": "sky", "polygon": [[1]]}]}'):  # fmt: skip
        path.write_text(text)
        with pytest.raises(ValueError, match="is not a polygon annotation"):
            read_polygons(path, 50, 100)


def test_what_would_take_long_to_draw_is_neither_written_nor_read(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Polygon(7, False, np.array([[0, 0], [8, 0], [8, 8], [0, 8]]))
    assert polygons.can_be_written([whole] * 42, 8, 8) and not polygons.can_be_written([whole] * 43, 8, 8)
    for shapes, reason in (
        ([whole] * 43, "too long to draw"),
        ([whole._replace(corners=whole.corners + 1)], "leaves the image"),
        ([whole._replace(corners=whole.corners - 1)], "leaves the image"),
        ([whole._replace(label=40)], "label 40"),
        ([whole._replace(corners=np.tile(whole.corners, (1 << 15, 1)))], "corners"),
        ([whole] * 1000, "1000 polygons"),
    ):
        writer = Writer()
        write_polygons(writer, shapes)
        with pytest.raises(CorruptFileError, match=reason):
            read_polygons_from(Reader(writer.bytes()), 8, 8)


def test_hostile_streams_end_in_an_error() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        stream = rng.bytes(int(rng.integers(0, 60)))
        for read in (
            lambda r: read_map(r, 20, 30),
            lambda r: read_symbols(r, np.ones((4, 6), bool), np.zeros((2, 36, 5), np.float32)),
            lambda r: draw(read_polygons_from(r, 20, 30), 20, 30),
        ):
            with pytest.raises((CorruptStreamError, CorruptFileError)):
                reader = Reader(stream)
                read(reader)
                reader.finish()
