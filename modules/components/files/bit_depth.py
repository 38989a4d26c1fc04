"""Samples as the file has them, where Pillow cuts or stretches other depths, or leaves channels out, without a word."""

import re
import struct
from collections.abc import Callable
from typing import IO

from PIL.ImageFile import ImageFile

from modules.components.files.jp2 import codestream

_PNG_PALETTE = 3
_TIFF_BITS, _TIFF_SAMPLES, _TIFF_SAMPLE_FORMAT, _TIFF_COLOUR_MAP = 258, 277, 339, 320
_NETPBM_HEADER = re.compile(
    rb"P[2356](?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+(\d+)\s"
)


def depth_complaint(image: ImageFile, file: IO[bytes]) -> str | None:
    """What of an opened image whose bytes are ``file`` is not 8 bits a sample, or not read; None if nothing is."""
    check = _CHECKS.get(image.format or "")
    return check(image, file) if check else None


def _not_eight(bits: int) -> str | None:
    return None if bits == 8 else f"{bits} bits per sample"


def _png(image: ImageFile, file: IO[bytes]) -> str | None:
    """IHDR: depth and colour type. Colours of a palette have 8 bits whatever the depth of its indices."""
    file.seek(24)
    depth, colour_type = file.read(2)
    return None if colour_type == _PNG_PALETTE else _not_eight(depth)


def _tiff(image: ImageFile, file: IO[bytes]) -> str | None:
    """Also the number of channels: Pillow leaves out those that are neither colour nor declared as alpha."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    bands = len(image.getbands())
    if (samples := tags.get(_TIFF_SAMPLES, bands)) != bands:
        return f"{samples} channels, of which {bands} would be read"
    if image.mode == "P":  # its colours have 16 bits; 8-bit ones are stored as v * 257 or v * 256
        colours = tags.get(_TIFF_COLOUR_MAP, ())
        exact = all(c % 257 == 0 for c in colours) or all(c % 256 == 0 for c in colours)
        return None if exact else "a palette of 16 bits"
    if set(tags.get(_TIFF_SAMPLE_FORMAT, (1,))) - {1, 4}:
        return "signed or floating-point samples"
    bits = tags.get(_TIFF_BITS, (1,))
    return _not_eight(next((b for b in bits if b != 8), 8))


def _netpbm(image: ImageFile, file: IO[bytes]) -> str | None:
    """PPM and PGM state their largest value, and Pillow stretches others to 255."""
    file.seek(0)
    header = _NETPBM_HEADER.match(file.read(1 << 16))
    if header is None:
        return "a header without a largest value"
    return None if int(header[1]) == 255 else f"values up to {int(header[1])}, not 255"


def _jpeg2000(image: ImageFile, file: IO[bytes]) -> str | None:
    """SIZ, the first marker of the codestream: a byte for each component, sign and depth - 1."""
    position = codestream(file)
    if position is None:
        return "no JPEG 2000 codestream"
    file.seek(position + 4)
    siz = file.read(38)
    depths = file.read(3 * struct.unpack_from(">H", siz, 36)[0])[::3]
    if any(depth & 0x80 for depth in depths):
        return "signed samples"
    return _not_eight(next((depth + 1 for depth in depths if depth != 7), 8))


def _bmp(image: ImageFile, file: IO[bytes]) -> str | None:
    """Pixels of 16 bits have samples of 5 or 6."""
    file.seek(14)
    (size,) = struct.unpack("<I", file.read(4))
    file.seek(24 if size == 12 else 28)
    bits = struct.unpack("<H", file.read(2))[0]
    return "5 or 6 bits per sample" if bits == 16 else None


_CHECKS: dict[str, Callable[[ImageFile, IO[bytes]], str | None]] = {
    "PNG": _png,
    "TIFF": _tiff,
    "PPM": _netpbm,
    "JPEG2000": _jpeg2000,
    "BMP": _bmp,
}
