"""PNG's chunks: those that say what the pixels mean are kept, byte for byte."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np
from PIL import Image

KEPT_CHUNKS = {"gAMA": 4, "cHRM": 32, "sRGB": 1, "cICP": 4, "mDCV": 24, "cLLI": 8, "pHYs": 9}
"""Colour space, light level and pixel size, with the bytes that each has."""
_AFTER_HEADER = 8 + 25
"""Signature and IHDR."""


def chunks_of(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Type and data of every chunk; of those that are not in ``KEPT_CHUNKS`` no data."""
    position = 8
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        name = kind.decode("ascii", errors="replace")
        yield name, file.read(min(length, 64)) if name in KEPT_CHUNKS else b""
        if name == "IEND":
            return
        position += length + 12


def png_bytes(pixels: np.ndarray, metadata: dict[str, bytes]) -> bytes:
    """A PNG of uint8 pixels [H, W] or [H, W, 3] with profile, EXIF and the chunks that are kept."""
    buffer = io.BytesIO()
    profile_and_exif = {name: metadata[name] for name in ("icc_profile", "exif") if name in metadata}
    Image.fromarray(pixels).save(buffer, "PNG", **profile_and_exif)
    chunks = b"".join(
        struct.pack(">I", length) + name.encode() + data + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, length in KEPT_CHUNKS.items()
        if len(data := metadata.get(name, b"")) == length
    )
    png = buffer.getvalue()
    return png[:_AFTER_HEADER] + chunks + png[_AFTER_HEADER:]
