"""Image files with a trained PixelMLP: tiles, each coded by the network or, where that is smaller, stored as WebP.

Encoder and decoder compute in whole numbers, so a file decodes to the same pixels on any machine, with any number of
threads. Tiles know nothing of each other; several are coded at once, one on each CPU core.
"""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from threadpoolctl import threadpool_limits
from torch import Tensor

from modules.components.coding.container import Container, CorruptFileError, Tile, digest
from modules.components.coding.model_file import fingerprint
from modules.components.coding.rans import CorruptStreamError
from modules.pixel_mlp.context import REACH, contexts, pad
from modules.pixel_mlp.losses import mixtures_bits
from modules.pixel_mlp.nets import PixelMLP
from modules.pixel_mlp.wavefront import decode_tile, encode_tile, predictors

MAX_TILE = 1024
"""Longest side of a tile: a file's word must not decide how much memory is taken."""

STRIP = 64
"""Rows that an estimate looks at together."""

NETWORK, STORED = 0, 1
"""First byte of a tile's payload: what follows is a stream of the entropy coder, or a WebP file without loss."""

WORTH_TRYING = 1.12
"""A thorough WebP is tried where the quick one takes at most so many times the network's bytes."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def spans(length: int) -> list[tuple[int, int]]:
    """(start, size) of nearly equal parts of at most ``MAX_TILE``."""
    count = -(-length // MAX_TILE)
    edges = [length * i // count for i in range(count + 1)]
    return [(start, stop - start) for start, stop in itertools.pairwise(edges)]


def on_all_cores(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map`` in order over as many threads as torch may use; the kernels run outside of the interpreter's lock."""
    with threadpool_limits(1), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        yield from pool.map(function, items)


def quietly(tiles: Iterable[Result], total: int) -> Iterable[Result]:
    """The tiles as they come, without a word."""
    return tiles


def store(pixels: np.ndarray, rival: int) -> bytes:
    """A lossless WebP of uint8 [h, w, 1 or 3]: a quick one, or a thorough one where that may beat ``rival`` bytes."""
    colour = Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3))))
    for quality, method in ((0, 2), (75, 6)):
        buffer = io.BytesIO()
        colour.save(buffer, "WEBP", lossless=True, quality=quality, method=method)
        if buffer.tell() > WORTH_TRYING * rival:
            break
    return buffer.getvalue()


def restore(stored: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Pixels uint8 ``shape`` of a ``store``.

    Raises:
        CorruptStreamError: if it is damaged or of another size.
    """
    try:
        with Image.open(io.BytesIO(stored), formats=["WEBP"]) as image:
            if image.size != (shape[1], shape[0]):
                raise CorruptStreamError("a stored tile has another size than the file says")
            return np.array(image.convert("RGB"))[..., : shape[2]]
    except CorruptStreamError:
        raise
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged bytes
        raise CorruptStreamError("a stored tile is damaged") from error


def estimated_bits(network: PixelMLP, image: Tensor) -> Tensor:
    """Bits of images uint8 [N, 3, H, W], each as one tile, in the exact arithmetic, strip by strip."""
    padded = pad(image)
    strips = (padded[:, :, top : top + STRIP + REACH] for top in range(0, image.shape[2], STRIP))
    return torch.stack([mixtures_bits(network, contexts(strip), exact=True).sum() for strip in strips]).sum()


class Codec:
    """Lossless codec of 8-bit RGB [H, W, 3] and grayscale [H, W] images.

    Args:
        network: a trained network.
        device, precision: for the interface of codec.py; the kernels run on the CPU, in whole numbers.

    Raises:
        InexactWeightsError: for weights whose sums float32 could not hold.
        ValueError: for another device or precision.
    """

    extension = ".pmlp"
    progress: Callable[[Iterable, int], Iterable] = staticmethod(quietly)
    """What the tiles of an image go through as they are done, with their number: a program may show a bar."""

    def __init__(self, network: PixelMLP, device: str = "cpu", precision: str = "float32") -> None:
        if device != "cpu" or precision != "float32":
            raise ValueError(f"this codec computes in whole numbers on the CPU: no {device}, no {precision}")
        self.network = network
        self.predictors = predictors(network)
        self.fingerprint = fingerprint(network)

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        """The image as a container.

        Raises:
            ValueError: for other than uint8 [H, W] or [H, W, 3] with at least one pixel.
        """
        gray = image.ndim == 2
        if image.dtype != np.uint8 or image.size == 0 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"need uint8 pixels [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        whole = image[..., None] if gray else image
        boxes = [(x, y, w, h) for y, h in spans(height) for x, w in spans(width)]

        def encode(box: tuple[int, int, int, int]) -> Tile:
            x, y, w, h = box
            return Tile(*box, self.encode(np.ascontiguousarray(whole[y : y + h, x : x + w])))

        return Container(
            "pixel_mlp",
            self.fingerprint,
            "L" if gray else "RGB",
            "float32",
            0,
            width,
            height,
            digest(np.ascontiguousarray(image).data),
            metadata or {},
            list(self.progress(on_all_cores(encode, boxes), len(boxes))),
        )

    @torch.inference_mode()
    def estimated_bits(self, pixels: np.ndarray) -> float:
        """Bits of an image uint8 [H, W, 3] by the mixtures, as one tile of the network's."""
        return float(estimated_bits(self.network, torch.from_numpy(pixels).permute(2, 0, 1)[None]))

    def encode(self, pixels: np.ndarray) -> bytes:
        """The payload of a tile uint8 [h, w, 1 or 3]: the shorter of the network's stream and a stored tile."""
        stream = encode_tile(pixels, self.predictors)
        stored = store(pixels, len(stream))
        return bytes([STORED]) + stored if len(stored) < len(stream) else bytes([NETWORK]) + stream

    def decompress(self, container: Container) -> np.ndarray:
        """The pixels, uint8 [H, W] or [H, W, 3].

        Raises:
            CorruptFileError: if the file was written by another model, or is damaged.
        """
        if container.model != self.fingerprint:
            raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {self.fingerprint.hex()}")
        if max((max(tile.width, tile.height) for tile in container.tiles), default=0) > MAX_TILE:
            raise CorruptFileError(f"the file holds a tile of more than {MAX_TILE} pixels a side")
        channels = 1 if container.mode == "L" else 3
        image = np.empty((container.height, container.width, channels), np.uint8)

        def decode(tile: Tile) -> None:
            pixels = self.decode(tile.payload, (tile.height, tile.width, channels))
            image[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = pixels

        try:
            for _ in self.progress(on_all_cores(decode, container.tiles), len(container.tiles)):
                pass
        except CorruptStreamError as error:
            raise CorruptFileError(str(error)) from error
        if digest(image.data) != container.pixels:
            raise CorruptFileError("the pixels are not those that were compressed")
        return image[..., 0] if channels == 1 else image

    def decode(self, payload: bytes, shape: tuple[int, int, int]) -> np.ndarray:
        """Pixels uint8 ``shape`` [h, w, 1 or 3] of a tile's payload. Raises CorruptStreamError if it is damaged."""
        if payload[:1] == bytes([NETWORK]):
            return decode_tile(payload[1:], shape, self.predictors)
        if payload[:1] == bytes([STORED]):
            return restore(payload[1:], shape)
        raise CorruptStreamError("a tile is coded in an unknown way")
