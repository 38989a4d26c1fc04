"""What an 8-bit image is: the one set of rules, for training (which skips and counts) and for codecs (which refuse).

Read are the formats of ``FORMATS``, told by their content. ``open_image`` judges a header before a pixel is decoded;
``read_exact`` returns pixels that no step has rounded, scaled or blended. Left out, by rule:

- ``unreadable``: truncated, damaged, or none of the formats;
- ``not 8-bit RGB``: CMYK and other colour spaces, other than 8 bits (where Pillow would cut or stretch them without a
  word), transparency, channels beyond the colours;
- ``over 200 megapixels``: on the header's word, before any pixel is allocated;
- ``animated``: several pictures of equal standing (a phone's MPO has a first one, which counts).
"""

import contextlib
import math
import struct
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, TiffTags
from PIL.ImageFile import ImageFile

from modules.components.files.bit_depth import depth_complaint
from modules.components.files.jp2 import icc_profile
from modules.components.files.png import KEPT_CHUNKS, chunks_of

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")
SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".mpo", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".jp2", ".j2k"}
)
MAX_PIXELS = 200_000_000

UNREADABLE = "unreadable"
NOT_RGB = "not 8-bit RGB"
TOO_LARGE = "over 200 megapixels"
ANIMATED = "animated"

_MODES = ("L", "RGB", "LA", "RGBA", "P")
_REMEDIES = {"1": "convert it to 8-bit grayscale first", "CMYK": "convert it to RGB first"}
_OTHER_METADATA = {"xmp": "XMP", "comment": "comment", "photoshop": "Photoshop resources"}
_TIFF_RESOLUTION = frozenset({282, 283})
# What says how the pixels are stored, how large they are, or is kept: all that a TIFF's reader needs (TIFF 6.0).
_TIFF_KEPT = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284}
    | {292, 293, 296, 317, 320, 322, 323, 324, 325, 338, 339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532}
    | {34675}
)
MAX_NAMED = 20
"""Of a file's tags that are dropped."""

# Pillow warns above this and only refuses at twice its value; the refusal at MAX_PIXELS is open_image's. Its other
# warnings are of metadata that it does not understand.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.filterwarnings("ignore", module="PIL")


class ImageError(ValueError):
    """A file that a rule leaves out; ``reason`` is one of the rules above, the message says more."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason)
        self.reason = reason


class ExactImage(NamedTuple):
    pixels: np.ndarray
    """uint8 [H, W] or [H, W, 3]."""
    metadata: dict[str, bytes]
    """"icc_profile", "exif" and the PNG chunks of ``png.KEPT_CHUNKS``."""
    notes: list[str]
    """What of the file is not kept, or kept in another form."""


def open_image(source: Path | BinaryIO, formats: tuple[str, ...] = FORMATS) -> ImageFile:
    """Open lazily: the header is read and judged, no pixel is decoded. The caller closes it.

    Of the modes that are let through, "L" and "RGB" without a transparent colour are what they say; the others may
    still turn out to be transparent when they are decoded.

    Raises:
        ImageError: by the rules at the top of this file.
        FileNotFoundError, OSError: if the file cannot be opened.
    """
    with decoder_errors():
        image = Image.open(source, formats=formats)
    try:
        with decoder_errors():
            _judge(image)
    except ImageError:
        image.close()
        raise
    return image


@contextlib.contextmanager
def decoder_errors() -> Iterator[None]:
    """ImageError in place of what Pillow raises: nearly anything, on damaged bytes."""
    try:
        yield
    except (ImageError, FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(TOO_LARGE) from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(UNREADABLE, f"damaged, or none of the known formats: {', '.join(FORMATS)}") from error
    except Exception as error:
        raise ImageError(UNREADABLE, f"it cannot be decoded: {error or type(error).__name__}") from error


def _judge(image: ImageFile) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(TOO_LARGE, f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}")
    if image.mode not in _MODES or (image.mode == "P" and image.format == "JPEG2000"):
        remedy = _REMEDIES.get(image.mode, "convert it to 8-bit RGB or grayscale first")
        raise ImageError(NOT_RGB, f"mode {image.mode} is not 8-bit RGB or grayscale; {remedy}")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise ImageError(ANIMATED, f"an animation or document of {frames} frames; save its frames first")
    with unmoved(image.fp) as file:
        complaint = depth_complaint(image, file)
    if complaint:
        raise ImageError(NOT_RGB, f"{complaint}; convert it to 8-bit RGB or grayscale first")


@contextlib.contextmanager
def unmoved(file: IO[bytes] | None) -> Iterator[IO[bytes]]:
    """``file``, which is put back to where it stood."""
    assert file is not None, "before its pixels are loaded an image is open"
    position = file.tell()
    yield file
    file.seek(position)


def read_exact(source: Path | BinaryIO) -> ExactImage:
    """Pixels as the file holds them, and what is kept and dropped beside them.

    Alpha is dropped where it is opaque everywhere, palettes are looked up, of an MPO the first picture counts; the
    notes say so.

    Raises:
        ImageError: for everything that would change, by the rules at the top of this file.
        FileNotFoundError, OSError: if the file cannot be opened.
    """
    with open_image(source) as image, decoder_errors():
        notes = _notes(image)
        with unmoved(image.fp) as file:
            chunks = dict(chunks_of(file)) if image.format == "PNG" else {}
            if image.format == "JPEG2000" and (profile := icc_profile(file)):
                image.info["icc_profile"] = profile
        image.load()
        pixels = _opaque_pixels(image)
        metadata, dropped = _metadata(image, chunks)
    return ExactImage(pixels, metadata, notes + ([f"dropped: {', '.join(dropped)}"] if dropped else []))


def has_transparency(image: ImageFile) -> bool:
    """Whether the header says that pixels may be transparent."""
    return image.mode in ("RGBA", "LA") or "transparency" in image.info


def _notes(image: ImageFile) -> list[str]:
    notes = []
    if (frames := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"only the first of its {frames} pictures is kept")
    if has_transparency(image):
        notes.append("its alpha, opaque everywhere, is dropped")
    if image.mode == "P":
        notes.append("its palette is looked up: RGB")
    return notes


def _opaque_pixels(image: ImageFile) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3]; raises ImageError for a pixel that is not opaque."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return np.array(image)
    gray = image.mode in ("L", "LA")
    pixels = np.array(image.convert("RGBA"))
    if pixels[..., 3].min() < 255:
        raise ImageError(NOT_RGB, "it has transparent pixels; remove its alpha channel first")
    return np.ascontiguousarray(pixels[..., 0] if gray else pixels[..., :3])


def _metadata(image: ImageFile, chunks: dict[str, bytes]) -> tuple[dict[str, bytes], list[str]]:
    """What is kept, and the names of what is not."""
    kept = {key: image.info[key] for key in ("icc_profile", "exif") if image.info.get(key)}
    if image.format == "PNG":
        kept |= {name: data for name, data in chunks.items() if len(data) == KEPT_CHUNKS.get(name)}
        handled = {"IHDR", "PLTE", "IDAT", "IEND", "tRNS", "iCCP", "eXIf", *kept}
        return kept, sorted(chunks.keys() - handled)
    if density := _pixels_per_metre(image):
        kept["pHYs"] = struct.pack(">IIB", *density, 1)
    if image.format == "TIFF":
        return kept, _dropped_tags(image.tag_v2)  # type: ignore[attr-defined]
    return kept, [name for key, name in _OTHER_METADATA.items() if image.info.get(key)]


def _dropped_tags(tags: Iterable[int]) -> list[str]:
    """Names of a TIFF's tags that say more than its pixels, numbers for those without one; of very many the first."""
    names = [(TiffTags.lookup(tag).name, tag) for tag in sorted(set(tags) - _TIFF_KEPT)]
    dropped = [f"tag {tag}" if name == "unknown" else name for name, tag in names]
    more = [f"{len(dropped) - MAX_NAMED} more tags"] if len(dropped) > MAX_NAMED else []
    return dropped[:MAX_NAMED] + more


def _pixels_per_metre(image: ImageFile) -> tuple[int, int] | None:
    """The resolution that the file states, rounded; None where it states none."""
    if "dpi" not in image.info or image.info.get("jfif_unit", 1) not in (1, 2):
        return None
    if image.format in ("JPEG", "MPO") and "jfif_unit" not in image.info:  # Pillow's own 72, or EXIF's, which is kept
        return None
    if image.format == "TIFF" and not set(image.tag_v2) >= _TIFF_RESOLUTION:  # type: ignore[attr-defined]  # Pillow's 1
        return None
    exact = [float(value) / 0.0254 for value in image.info["dpi"]]
    if not all(math.isfinite(value) for value in exact):
        return None
    x, y = (round(value) for value in exact)
    return (x, y) if 0 < x < 2**31 and 0 < y < 2**31 else None
