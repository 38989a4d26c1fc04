"""Which files count as photographs."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.images.reading import (
    TOO_SMALL,
    SkippedImageError,
    decode,
    find_photos,
    read_image_list,
    scan_photos,
)
from modules.components.files.images import ANIMATED, NOT_RGB, TOO_LARGE, UNREADABLE


def png_bytes(width: int, height: int, bit_depth: int, data: bytes) -> bytes:
    """A PNG of colour type 2 (RGB) written by hand, since Pillow writes neither 16 bits nor false headers."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_lossless_formats_are_decoded_exactly(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)
    assert np.array_equal(decode(tmp_path / f"a{suffix}"), pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.webp", "A.JPG"])
def test_suffixes(tmp_path: Path, write_photo, name: str) -> None:
    write_photo(tmp_path / "deep" / "er" / name)
    (tmp_path / "._a.png").write_bytes(b"")
    write_photo(tmp_path / "deep" / ".thumbs" / "small" / name)
    (tmp_path / "notes.txt").write_text("")
    assert [path.name for path in find_photos(tmp_path)] == [name]
    assert decode(find_photos(tmp_path)[0]).shape == (40, 48, 3)


def test_a_hidden_folder_that_is_named_is_searched(tmp_path: Path, write_photo) -> None:
    write_photo(tmp_path / ".photos" / "a.png")
    assert find_photos(tmp_path / ".photos") == [tmp_path / ".photos" / "a.png"] and not find_photos(tmp_path)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "LA", "1", "I;16"])
def test_other_modes_are_left_out(tmp_path: Path, write_photo, mode: str) -> None:
    path = write_photo(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), mode=mode)
    with pytest.raises(SkippedImageError, match=NOT_RGB):
        decode(path)
    if mode == "L":
        pixels = decode(path, gray_to_rgb=True)
        assert pixels.shape == (40, 48, 3)
        assert (pixels == pixels[..., :1]).all()


def test_16_bit_rgb_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "eight.png").write_bytes(png_bytes(1, 1, 8, b"\0abc"))
    (tmp_path / "sixteen.png").write_bytes(png_bytes(1, 1, 16, b"\0aabbcc"))
    assert decode(tmp_path / "eight.png").tolist() == [[list(b"abc")]]
    with pytest.raises(SkippedImageError, match=NOT_RGB):
        decode(tmp_path / "sixteen.png")


def test_transparent_colours_and_animations_are_left_out(tmp_path: Path) -> None:
    red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    red.save(tmp_path / "key.png", transparency=(1, 2, 3))
    red.save(tmp_path / "moving.webp", save_all=True, append_images=[blue])
    red.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[blue])
    (tmp_path / "notes.png").mkdir()
    for name, reason in (("key.png", NOT_RGB), ("moving.webp", ANIMATED), ("notes.png", UNREADABLE)):
        with pytest.raises(SkippedImageError) as error:
            decode(tmp_path / name)
        assert error.value.reason == reason
    assert decode(tmp_path / "phone.jpg").shape == (8, 8, 3)  # the first picture


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [14_200, 60_000])
def test_huge_images_are_refused_on_their_header(tmp_path: Path, side: int) -> None:
    (tmp_path / "huge.png").write_bytes(png_bytes(side, side, 8, b"\0"))
    with pytest.raises(SkippedImageError) as error:
        decode(tmp_path / "huge.png")
    assert error.value.reason == TOO_LARGE


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("cut", [0.0, 0.01, 0.3, 0.8])
def test_truncated_files(tmp_path: Path, write_photo, suffix: str, cut: float) -> None:
    write_photo(tmp_path / f"a{suffix}", 200, 200, cut=cut)
    with pytest.raises(SkippedImageError, match=UNREADABLE):
        decode(tmp_path / f"a{suffix}")


def test_scan_counts_and_names(tmp_path: Path, write_photo) -> None:
    write_photo(tmp_path / "good.png")
    write_photo(tmp_path / "gray.png", mode="L")
    write_photo(tmp_path / "small.png", height=15)
    write_photo(tmp_path / "cut.png", 200, 200, cut=0.5)
    (tmp_path / "text.jpg").write_text("not an image")
    paths = find_photos(tmp_path)
    scan = scan_photos(paths, min_side=16, full=True)
    assert [path.name for path in scan.paths] == ["good.png"]
    assert scan.num_bytes == 3 * 40 * 48
    assert scan.skipped == {UNREADABLE: ["cut.png", "text.jpg"], NOT_RGB: ["gray.png"], TOO_SMALL: ["small.png"]}
    by_header = scan_photos(paths, min_side=16)
    assert [path.name for path in by_header.paths] == ["cut.png", "good.png"]


def test_image_list(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text('ImageID,Subset,Title\nab01,train,"one, two"\ncd02,train,\n')
    assert read_image_list(path) == {"ab01", "cd02"}
    path.write_text("name\nab01\n")
    with pytest.raises(ValueError, match="ImageID"):
        read_image_list(path)
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        read_image_list(tmp_path / "none.csv")
