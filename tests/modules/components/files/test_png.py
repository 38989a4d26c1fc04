import io

import numpy as np
import pytest
from PIL import Image

from modules.components.files.images import read_exact
from modules.components.files.png import png_bytes
from modules.components.files.whole_files import unfinished, write_whole

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., 0].copy()], ids=["RGB", "gray"])
def test_pixels_and_metadata_come_back(pixels):
    metadata = {"gAMA": b"\0\0\xb1\x8f", "cICP": b"\x09\x10\0\1", "pHYs": bytes(range(9)), "icc_profile": b"p" * 200}
    found = read_exact(io.BytesIO(png_bytes(pixels, metadata)))
    assert np.array_equal(found.pixels, pixels)
    assert found.metadata == metadata and found.notes == []


def test_nothing_else_of_a_strangers_metadata_is_written():
    plain = png_bytes(PIXELS, {})
    assert png_bytes(PIXELS, {"IDAT": b"x" * 4, "gAMA": b"too long", "cHRM": b"", "x": b"y"}) == plain
    with Image.open(io.BytesIO(plain)) as image:
        assert np.array_equal(np.array(image), PIXELS)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / ("n" * 251 + ".png")
    write_whole(path, b"old")
    with pytest.raises(KeyError), unfinished(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert path.read_bytes() == b"old" and list(path.parent.iterdir()) == [path]
