"""Pillow's codecs at the size of a given file: the best quality that is not larger, or else the smallest they can."""

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

STEPS = 8
"""Halvings of the search over a quality of 0..100 or a compression ratio."""


class Peer(NamedTuple):
    pixels: np.ndarray
    """Decoded, uint8 [H, W, 3]."""
    num_bytes: int


def _encoded(pixels: np.ndarray, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def _jpeg2000(pixels: np.ndarray, quality: float) -> bytes:
    """A bare codestream; quality 0 is 1/4000 of the pixels' bytes, quality 100 all of them."""
    ratio = 4000 ** (1 - quality / 100)
    return _encoded(pixels, "JPEG2000", quality_mode="rates", quality_layers=[ratio], irreversible=True, no_jp2=True)


ENCODERS: dict[str, Callable[[np.ndarray, float], bytes]] = {
    "JPEG 2000": _jpeg2000,
    "WebP": lambda pixels, quality: _encoded(pixels, "WEBP", quality=round(quality), method=6),
    "AVIF": lambda pixels, quality: _encoded(pixels, "AVIF", quality=round(quality), speed=4),
}


def peers() -> list[str]:
    """Codecs that this Pillow was built with."""
    modules = {"JPEG 2000": "jpg_2000", "WebP": "webp", "AVIF": "avif"}
    return [name for name, module in modules.items() if features.check(module)]


def at_most(pixels: np.ndarray, name: str, num_bytes: int) -> Peer:
    """``pixels`` uint8 [H, W, 3] by the codec ``name`` in at most ``num_bytes``, if it can."""
    encode = ENCODERS[name]
    best, low, high = encode(pixels, 0), 0.0, 100.0
    for _ in range(STEPS):
        if len(best) > num_bytes:
            break
        middle = (low + high) / 2
        file = encode(pixels, middle)
        if len(file) <= num_bytes:
            best, low = max(best, file, key=len), middle
        else:
            high = middle
    with Image.open(io.BytesIO(best)) as image:
        return Peer(np.array(image.convert("RGB")), len(best))
