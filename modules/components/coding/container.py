"""The file that every codec writes: a header, optional metadata, tiles, checksums.

All integers little endian::

    magic         4  "PSMY"
    version       1  format version, 2
    body length   8  bytes that follow, checksum excluded
    body
      method      1 + n  name of the method's folder, ASCII
      model       16     fingerprint of the network that wrote the file
      mode        1      1 grayscale, 3 RGB; plus 16 if the pixels are not kept exactly
      precision   1      1 float32, 2 float64 (of the network passes)
      threads     2      CPU threads of the network passes, 0 on an accelerator
      width       4
      height      4
      pixels      8      BLAKE2b of the pixels, or of a lossy method's symbols, for the decoder's last check
      metadata    4 + n  zlib-compressed (name, bytes) records: ICC profile, EXIF, PNG chunks
      tile count  4
      tiles       16 + n each: left, top, width, height (4 each), then 4 + n bytes of payload
    checksum      8  BLAKE2b of everything before

``unpack`` trusts nothing: every length is checked against the bytes that are there, the tiles must cover the image
exactly once, and the image may not be larger than its payload could possibly describe. Only a lossy method may make
more of few bytes; it has to know itself which sizes it accepts.
"""

import hashlib
import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from modules.components.files.images import MAX_PIXELS

MAGIC = b"PSMY"
VERSION = 2
MAX_METADATA = 1 << 24
METHOD_NAME_LENGTH = 40
LOSSY = 16
PRECISIONS = {1: "float32", 2: "float64"}

# A flat tile of a megapixel takes some fifty bytes in the plain format that a codec may fall back to.
MIN_BITS_PER_SYMBOL = 5e-5
ROUND_OFF = 1e-6


class CorruptFileError(ValueError):
    """The bytes are not an intact file of this format."""


class DecodeMismatchError(ValueError):
    """The file is intact, but this machine's network outputs differ from those of the machine that wrote it."""


class Tile(NamedTuple):
    left: int
    top: int
    width: int
    height: int
    payload: bytes


class Container(NamedTuple):
    method: str
    model: bytes
    mode: str
    """"L" or "RGB"."""
    precision: str
    threads: int
    width: int
    height: int
    pixels: bytes
    """``digest`` of the image, or of what a lossy method keeps exactly."""
    metadata: dict[str, bytes]
    tiles: list[Tile]
    lossy: bool = False
    """Whether decoding gives other pixels than those that were compressed."""


def digest(data: bytes | memoryview) -> bytes:
    """8 bytes of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=8).digest()


def _key_of(names: dict[int, str], name: str) -> int:
    return next(key for key, value in names.items() if value == name)


def pack(container: Container) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: for more metadata than the format holds.
    """
    method = container.method.encode("ascii")
    metadata = zlib.compress(_pack_metadata(container.metadata), 9) if container.metadata else b""
    body = b"".join(
        (
            struct.pack("<B", len(method)),
            method,
            container.model,
            struct.pack("<B", {"L": 1, "RGB": 3}[container.mode] + (LOSSY if container.lossy else 0)),
            struct.pack("<BH", _key_of(PRECISIONS, container.precision), container.threads),
            struct.pack("<II", container.width, container.height),
            container.pixels,
            struct.pack("<I", len(metadata)),
            metadata,
            struct.pack("<I", len(container.tiles)),
            *(struct.pack("<5I", *tile[:4], len(tile.payload)) + tile.payload for tile in container.tiles),
        )
    )
    file = MAGIC + struct.pack("<BQ", VERSION, len(body)) + body
    return file + digest(file)


def _pack_metadata(metadata: dict[str, bytes]) -> bytes:
    records = b"".join(
        struct.pack("<BI", len(name), len(data)) + name.encode("ascii") + data for name, data in metadata.items()
    )
    if len(records) > MAX_METADATA:
        raise ValueError(f"{len(records)} bytes of metadata are more than the format's {MAX_METADATA}")
    return records


class _Reader:
    """Takes bytes off the front and raises CorruptFileError instead of reading past the end."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise CorruptFileError("the file ends in the middle of a field")
        taken, self.data = bytes(self.data[:count]), self.data[count:]
        return taken

    def numbers(self, layout: str) -> tuple[int, ...]:
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout)))

    def number(self, layout: str) -> int:
        return self.numbers(layout)[0]


def unpack(file: bytes) -> Container:
    """The contents of a file.

    Raises:
        CorruptFileError: if it is not of this format, of a newer version, cut short, altered, or inconsistent.
    """
    if file[:4] != MAGIC:
        raise CorruptFileError("not a Parsimony file (it does not start with PSMY)")
    if len(file) < 21:
        raise CorruptFileError("the file is cut short")
    version, length = struct.unpack("<BQ", file[4:13])
    if version != VERSION:
        older = "; decompress it with the release that wrote it" if version < VERSION else ""
        raise CorruptFileError(f"format version {version}; this program reads version {VERSION}{older}")
    if length != len(file) - 21:
        raise CorruptFileError(f"the file holds {len(file)} bytes and should hold {length + 21}: cut short or appended")
    if digest(memoryview(file)[:-8]) != file[-8:]:
        raise CorruptFileError("the checksum does not match: the file was altered or damaged")
    return _unpack_body(_Reader(memoryview(file)[13:-8]))


def _unpack_body(reader: _Reader) -> Container:
    name_length = reader.number("B")
    if not 0 < name_length <= METHOD_NAME_LENGTH:
        raise CorruptFileError("the name of the method is empty or too long")
    method = reader.take(name_length).decode("ascii", errors="replace")
    if not (method.isidentifier() and method.islower() and method.isascii()):
        raise CorruptFileError("the name of the method is not a name")
    model = reader.take(16)
    mode, precision, threads, width, height = reader.numbers("BBHII")
    lossy, mode = bool(mode & LOSSY), mode & ~LOSSY
    if mode not in (1, 3) or precision not in PRECISIONS:
        raise CorruptFileError("an unknown mode or precision")
    if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
        raise CorruptFileError(f"an image of {width} x {height} pixels, more than {MAX_PIXELS} in all, or none")
    pixels = reader.take(8)
    metadata = _unpack_metadata(reader.take(reader.number("I")))
    tiles = list(_unpack_tiles(reader, 0 if lossy else MIN_BITS_PER_SYMBOL * mode))
    if reader.data:
        raise CorruptFileError("bytes are left after the last tile")
    _check_cover(tiles, width, height)
    return Container(
        method,
        model,
        {1: "L", 3: "RGB"}[mode],
        PRECISIONS[precision],
        threads,
        width,
        height,
        pixels,
        metadata,
        tiles,
        lossy,
    )


def _unpack_metadata(compressed: bytes) -> dict[str, bytes]:
    if not compressed:
        return {}
    inflater = zlib.decompressobj()
    try:
        reader = _Reader(memoryview(inflater.decompress(compressed, MAX_METADATA)))
    except zlib.error as error:
        raise CorruptFileError("the metadata does not decompress") from error
    if not inflater.eof:
        raise CorruptFileError("the metadata is cut short or too large")
    metadata = {}
    while reader.data:
        name_length, length = reader.numbers("BI")
        name = reader.take(name_length).decode("ascii", errors="replace")
        metadata[name] = reader.take(length)
    return metadata


def _unpack_tiles(reader: _Reader, min_bits_per_pixel: float) -> Iterator[Tile]:
    count = reader.number("I")
    if count * 20 > len(reader.data):
        raise CorruptFileError(f"{count} tiles cannot be in {len(reader.data)} bytes")
    for _ in range(count):
        left, top, width, height, length = reader.numbers("5I")
        payload = reader.take(length)
        if 8 * length < math.ceil(min_bits_per_pixel * width * height - ROUND_OFF):
            raise CorruptFileError(f"{length} bytes cannot describe a tile of {width} x {height} pixels")
        yield Tile(left, top, width, height, payload)


def _check_cover(tiles: list[Tile], width: int, height: int) -> None:
    """Raises CorruptFileError unless the tiles are a grid that covers the image exactly once, row by row."""
    top, i = 0, 0
    while top < height:
        left, row_height = 0, None
        while left < width:
            if i == len(tiles):
                raise CorruptFileError("the tiles do not cover the image")
            tile = tiles[i]
            row_height = tile.height if row_height is None else row_height
            fits = tile.left == left and tile.top == top and tile.height == row_height
            if not (fits and 0 < tile.width <= width - left and 0 < tile.height <= height - top):
                raise CorruptFileError("the tiles overlap, leave a gap or stick out of the image")
            left += tile.width
            i += 1
        top += tiles[i - 1].height
    if i != len(tiles):
        raise CorruptFileError("there are more tiles than the image needs")
