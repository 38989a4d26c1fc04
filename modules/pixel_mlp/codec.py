"""Image files with a trained PixelMLP: tiles, each coded by the network or, where that is smaller, stored as WebP.

Encoder and decoder compute in whole numbers, so a file decodes to the same pixels on any machine, with any number of
threads, on any device. Tiles know nothing of each other; several are coded at once: on a CPU one on each core by the
kernels of wavefront.py, on another device all together by the tensors of batched.py, which write the same bytes.
"""

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from modules.components.devices import usable_device
from modules.pixel_mlp.batched import BatchCoder, Shape, batches
from modules.pixel_mlp.context import REACH, contexts, pad
from modules.pixel_mlp.losses import mixtures_bits
from modules.pixel_mlp.nets import PixelMLP
from modules.pixel_mlp.wavefront import decode_tile, encode_tile, predictors

MAX_TILE = 1024
"""Longest side of a tile: a file's word must not decide how much memory is taken."""

STRIP = 64
"""Rows that an estimate looks at together."""

NETWORK, STORED, WITHOUT_HISTOGRAMS = 2, 1, 0
"""First byte of a tile's payload: what follows is a stream of the entropy coder, or a WebP file without loss; the last
is a stream as it was before histograms corrected the mixtures, which is not read any more."""

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


def shorter(pixels: np.ndarray, stream: bytes) -> bytes:
    """The payload of a tile: ``stream``, or the tile stored where that takes fewer bytes."""
    stored = store(pixels, len(stream))
    return bytes([STORED]) + stored if len(stored) < len(stream) else bytes([NETWORK]) + stream


def restore(stored: bytes, shape: Shape) -> np.ndarray:
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
        device: where the network computes; the entropy coder runs on the CPU.
        precision: for the interface of codec.py; there are only whole numbers.

    Raises:
        InexactWeightsError: for weights whose sums float32 could not hold.
        ValueError: for another precision, or a device that is not there.
    """

    extension = ".pmlp"
    progress: Callable[[Iterable, int], Iterable] = staticmethod(quietly)
    """What the tiles of an image go through as they are done, with their number: a program may show a bar."""

    def __init__(self, network: PixelMLP, device: str = "cpu", precision: str = "float32") -> None:
        if precision != "float32":
            raise ValueError(f"this codec computes in whole numbers: no {precision}")
        self.network = network
        self.predictors = predictors(network)
        where = usable_device(device)
        self.batched = None if where.type == "cpu" else BatchCoder(network, where)
        self.fingerprint = fingerprint(network)

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        """The image as a container.

        Raises:
            ValueError: for other than uint8 [H, W] or [H, W, 3] with at least one pixel.
        """
        [container] = self.compress_all([image])
        return container._replace(metadata=metadata or {})

    def compress_all(self, images: Sequence[np.ndarray]) -> list[Container]:
        """The containers of several images, whose tiles are coded together. Raises ValueError as ``compress``."""
        for image in images:
            colour = image.ndim == 3 and image.shape[2] == 3
            if image.dtype != np.uint8 or image.size == 0 or not (image.ndim == 2 or colour):
                raise ValueError(f"need uint8 pixels [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
        boxes = [[(x, y, w, h) for y, h in spans(len(i)) for x, w in spans(i.shape[1])] for i in images]
        whole = [image[..., None] if image.ndim == 2 else image for image in images]
        tiles = [i[y : y + h, x : x + w] for i, own in zip(whole, boxes, strict=True) for x, y, w, h in own]
        payloads = iter(list(self.progress(self.encoded(tiles), len(tiles))))
        return [
            Container(
                "pixel_mlp",
                self.fingerprint,
                "L" if image.ndim == 2 else "RGB",
                "float32",
                0,
                image.shape[1],
                image.shape[0],
                digest(np.ascontiguousarray(image).data),
                {},
                [Tile(*box, next(payloads)) for box in own],
            )
            for image, own in zip(images, boxes, strict=True)
        ]

    @torch.inference_mode()
    def estimated_bits(self, pixels: np.ndarray) -> float:
        """Bits of an image uint8 [H, W, 3] by the mixtures, as one tile of the network's."""
        return float(estimated_bits(self.network, torch.from_numpy(pixels).permute(2, 0, 1)[None]))

    def encoded(self, tiles: Sequence[np.ndarray]) -> Iterator[bytes]:
        """The payloads of tiles uint8 [h, w, 1 or 3]: the shorter of the network's stream and a stored tile each."""
        if self.batched is None:
            return on_all_cores(self.encode, tiles)
        return on_all_cores(lambda pair: shorter(*pair), zip(tiles, self.batched.encode(tiles), strict=True))

    def encode(self, pixels: np.ndarray) -> bytes:
        """The payload of one tile, by the kernels."""
        return shorter(pixels, encode_tile(pixels, self.predictors))

    def decompress(self, container: Container) -> np.ndarray:
        """The pixels, uint8 [H, W] or [H, W, 3].

        Raises:
            CorruptFileError: if the file was written by another model, or is damaged.
        """
        return self.decompress_all([container])[0]

    def decompress_all(self, containers: Sequence[Container]) -> list[np.ndarray]:
        """The pixels of several files, whose tiles are decoded together. Raises CorruptFileError as ``decompress``."""
        images, places = [], []
        for container in containers:
            self._check(container)
            images.append(np.empty((container.height, container.width, 1 if container.mode == "L" else 3), np.uint8))
            places += [(tile, images[-1]) for tile in container.tiles]
        shapes = [(tile.height, tile.width, image.shape[2]) for tile, image in places]
        try:
            decoded = self.decoded([tile.payload for tile, _ in places], shapes)
            for number, pixels in self.progress(decoded, len(places)):
                tile, image = places[number]
                image[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = pixels
        except CorruptStreamError as error:
            raise CorruptFileError(str(error)) from error
        for container, image in zip(containers, images, strict=True):
            if digest(image.data) != container.pixels:
                raise CorruptFileError("the pixels are not those that were compressed")
        return [image[..., 0] if image.shape[2] == 1 else image for image in images]

    def _check(self, container: Container) -> None:
        """Raises CorruptFileError for a file of another model, or with a tile that no encoder makes."""
        if container.model != self.fingerprint:
            raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {self.fingerprint.hex()}")
        if max((max(tile.width, tile.height) for tile in container.tiles), default=0) > MAX_TILE:
            raise CorruptFileError(f"the file holds a tile of more than {MAX_TILE} pixels a side")

    def decoded(self, payloads: Sequence[bytes], shapes: Sequence[Shape]) -> Iterator[tuple[int, np.ndarray]]:
        """(number, pixels uint8 of that shape) of the payloads, in any order. Raises CorruptStreamError."""
        rest: Sequence[int] = range(len(payloads))
        if self.batched is not None:
            coded = [i for i in rest if payloads[i][:1] == bytes([NETWORK])]
            for run in batches([shapes[i] for i in coded]):
                own = coded[run.start : run.stop]
                yield from zip(
                    own, self.batched.decode([payloads[i][1:] for i in own], [shapes[i] for i in own]), strict=True
                )
            rest = [i for i in rest if payloads[i][:1] != bytes([NETWORK])]
        yield from zip(rest, on_all_cores(lambda i: self.decode(payloads[i], shapes[i]), rest), strict=True)

    def decode(self, payload: bytes, shape: Shape) -> np.ndarray:
        """Pixels uint8 ``shape`` of one payload, by the kernels. Raises CorruptStreamError if it is damaged."""
        if payload[:1] == bytes([NETWORK]):
            return decode_tile(payload[1:], shape, self.predictors)
        if payload[:1] == bytes([STORED]):
            return restore(payload[1:], shape)
        if payload[:1] == bytes([WITHOUT_HISTOGRAMS]):
            raise CorruptStreamError("a tile was written by an earlier version of this codec, which alone can read it")
        raise CorruptStreamError("a tile is coded in an unknown way")
