"""The boxes of a JPEG 2000 file: where its codestream starts, and its ICC profile, which Pillow passes over.

A box is its length and type, 4 bytes each, and its content; a length of 1 means 8 more bytes with the length, 0 the end
of the file (ISO/IEC 15444-1, annex I).
"""

import struct
from collections.abc import Iterator
from typing import IO

_SIZ = b"\xff\x4f\xff\x51"
_ICC_METHODS = (2, 3)
"""Of "colr": a restricted profile, and JPX's any profile."""
_MAX_BOXES = 10_000
"""In one file: more are damage or malice."""


def codestream(file: IO[bytes]) -> int | None:
    """Where the codestream starts: at once, or in its box "jp2c"; None if there is none."""
    file.seek(0)
    if file.read(4) == _SIZ:
        return 0
    return next((start for kind, start, _ in _boxes(file, 0, _size(file)) if kind == b"jp2c"), None)


def icc_profile(file: IO[bytes]) -> bytes:
    """The first ICC profile among the colour boxes "colr" of the header box "jp2h"; empty if there is none."""
    for kind, start, end in _boxes(file, 0, _size(file)):
        if kind == b"jp2h":
            for inner, inner_start, inner_end in _boxes(file, start, end):
                file.seek(inner_start)
                if inner == b"colr" and inner_end - inner_start > 3 and file.read(3)[0] in _ICC_METHODS:
                    return file.read(inner_end - inner_start - 3)
        if kind in (b"jp2h", b"jp2c"):
            return b""
    return b""


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _boxes(file: IO[bytes], position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type and content, as a range of the file, of the boxes that lie whole between two places; up to a damaged one."""
    for _ in range(_MAX_BOXES):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8 or position + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", head)
        header = 8
        if length == 1 and len(head) == 16:
            length, header = struct.unpack_from(">Q", head, 8)[0], 16
        following = end if length == 0 else position + length
        if kind == b"jp2c":  # which Pillow reads even if the file is cut short
            following = end
        if following < position + header or following > end:
            return
        yield kind, position + header, following
        position = following
