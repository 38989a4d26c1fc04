"""Sizes, times and products of a comparison of codecs, on codecs that a test can count."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import lossless_bench
from cli.lossless_bench import OURS, Measurement, Peer, engineered, means, measure, ours, same, write_products


def raw(size: int = 0) -> Peer:
    shapes: dict[bytes, tuple[int, ...]] = {}

    def encode(pixels: np.ndarray) -> bytes:
        file = pixels.tobytes() + bytes(size)
        shapes[file] = pixels.shape
        return file

    return Peer(encode, lambda file: np.frombuffer(file, np.uint8, len(file) - size).reshape(shapes[file]))


def save(path: str, *shape: int) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(path)
    return Path(path)


def test_sizes_are_bytes_of_files_and_seconds_are_cpu_time(monkeypatch):
    clock = iter([0.0, 2.0, 7.0, 10.0, 11.0, 11.5])
    monkeypatch.setattr(lossless_bench.time, "process_time", lambda: next(clock))
    path = save("a.png", 4, 5, 3)
    one, two = measure(path, {OURS: raw(), "other": raw(60)})
    assert one == ("a.png", OURS, 60, 8.0, 2.0, 5.0, 20e-6)
    assert two == ("a.png", "other", 120, 16.0, 1.0, 0.5, 20e-6)


def test_wrong_pixels_and_wrong_shapes_are_told():
    path = save("a.png", 4, 5, 3)
    for wrong in (lambda p: p ^ np.uint8(1), lambda p: p[:, :-1]):
        peer = raw()
        with pytest.raises(RuntimeError, match="did not come back from bad"):
            measure(path, {"bad": Peer(peer.encode, lambda file, w=wrong, p=peer: w(p.decode(file)))})
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert same(np.stack([gray] * 3, 2), gray) and not same(np.stack([gray, gray, gray + 1], 2), gray)


@pytest.mark.parametrize("shape", [(9, 14, 3), (9, 14)])
@pytest.mark.parametrize("quick", [True, False])
def test_every_codec_of_the_machine_returns_colour_and_gray(shape, quick):
    peers = engineered(quick)
    assert {"PNG", "WebP"} <= set(peers) and ("oxipng" not in peers or not quick)
    rows = measure(save("a.png", *shape), peers)
    assert [row.codec for row in rows] == list(peers) and all(row.num_bytes > 0 for row in rows)


@pytest.mark.parametrize("values", [(255,), (0, 255), (0, 90, 200)])
def test_every_codec_returns_pictures_of_few_colours(values):
    """oxipng makes them gray, of one bit or of a palette."""
    random = np.random.default_rng(0)
    gray = random.choice(np.array(values, np.uint8), (16, 20))
    for pixels in (gray, np.dstack([gray] * 3), random.choice(np.array(values, np.uint8), (16, 20, 3))):
        Image.fromarray(pixels).save("few.png")
        assert {row.codec for row in measure(Path("few.png"), engineered(quick=False))} == set(engineered(quick=False))


def rows() -> list[Measurement]:
    return [
        Measurement("a", OURS, 100, 2.0, 1.0, 4.0, 1.0),
        Measurement("a", "PNG", 200, 4.0, 3.0, 0.5, 1.0),
        Measurement("b", OURS, 300, 4.0, 2.0, 5.0, 2.0),
        Measurement("b", "PNG", 300, 4.0, 6.0, 1.0, 2.0),
    ]


def test_means_are_over_images_for_sizes_and_over_pixels_for_times():
    assert means(rows()) == {OURS: (3.0, 400, 1.0, 3.0), "PNG": (4.0, 500, 3.0, 0.5)}
    shown = lossless_bench.table(means(rows()), 2)
    assert list(shown.columns[0].cells) == [OURS, "PNG"] and list(shown.columns[3].cells) == ["", "20.0 %"]
    assert list(shown.columns[4].cells) == ["1.00", "3.00"] and list(shown.columns[5].cells) == ["3.000", "0.500"]


def test_products_are_a_line_for_each_file_and_a_picture():
    table, plot = write_products(Path("deep/out"), rows())
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 4 and lines[3]["image"] == "b" and float(lines[3]["encode_seconds"]) == 6.0
    with Image.open(plot) as picture:
        assert picture.format == "PNG" and picture.width > 800
    assert sorted(p.name for p in Path("deep/out").iterdir()) == ["bench.csv", "bench.png"]


def test_lossy_codecs_are_refused():
    class Lossy:
        def read(self) -> None: ...

    with pytest.raises(ValueError, match="lossless"):
        ours(Lossy())
