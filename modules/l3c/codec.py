"""Images to bytes and back with a trained pyramid.

    compress    image -> tiles -> encode -> z_S .. z_1 ─┐
                                                        v
    both        z_S (uniform) -> predict -> z_(S-1) -> predict -> ... -> predict -> x

``_predict`` is the only place where parameters are made, for both directions, from the same integer symbols in the
same shapes: batch 1, one tile, a given precision and number of threads, which the file records. Floating-point
convolutions are only then reproducible; where they are not (another machine or build, another accelerator), the
checksum of the pixels turns a wrong image into an error. Who writes a file decodes its bytes first
(``components/coding/checked_file.py``).
"""

import contextlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modules.components.coding.container import Container, CorruptFileError, DecodeMismatchError, Tile, digest
from modules.components.coding.model_file import fingerprint
from modules.components.coding.rans import CorruptStreamError, decode_uniform, encode_uniform
from modules.components.devices import usable_device
from modules.l3c.integer_mixture import Grid, decode_mixture, encode_mixture
from modules.l3c.losses import image_bits
from modules.l3c.nets import Pyramid
from modules.l3c.sampling import pad_to_multiple

MAX_TILE = 768
"""Longest side of a tile by default: a Kodak image is one tile, the full-size network stays below 2 GiB."""

LARGEST_TILE = 1024
"""Longest side that a decoder accepts: a file's word must not decide how much memory the network takes."""

MAX_THREADS = 256


class Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int


def tile_boxes(width: int, height: int, longest: int, multiple: int) -> list[Box]:
    """A grid of nearly equal boxes, row by row, with sides of at most about ``longest``."""

    def cuts(length: int) -> list[tuple[int, int]]:
        count = -(-length // longest)
        side = -(-length // (count * multiple)) * multiple
        return [(start, min(side, length - start)) for start in range(0, length, side)]

    return [Box(x, y, w, h) for y, h in cuts(height) for x, w in cuts(width)]


def estimated_bits(network: Pyramid, image: Tensor, max_tile: int = MAX_TILE) -> Tensor:
    """Bits [S + 1] of an image [1, 3, H, W] by the likelihood, in the tiles of a file and thus in bounded memory.

    Padding counts in the latents but not in the pixels.
    """
    bits = []
    for box in tile_boxes(image.shape[-1], image.shape[-2], max_tile, network.multiple):
        tile = image[..., box.top : box.top + box.height, box.left : box.left + box.width]
        output = network(pad_to_multiple(tile, network.multiple).contiguous(memory_format=torch.channels_last))
        bits.append(image_bits(output, network.alphabets, network.num_mixtures, tile.shape[-2:]))
    return torch.stack(bits).sum(0)


@contextlib.contextmanager
def reproducible_arithmetic(threads: int) -> Iterator[None]:
    """Fixed CPU threads (0 leaves them), no autocast, no gradients, no autotuned or reduced-precision kernels."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_num_threads(before)


class Codec:
    """Lossless codec of 8-bit RGB [H, W, 3] and grayscale [H, W] images.

    Args:
        network: a trained pyramid; it is put into eval mode and moved.
        device: where the network runs. The entropy coder always runs on the CPU.
        precision: "float32", or "float64" for files that also decode elsewhere: slower, and rounding differences
            then all but never reach the integer parameters.
        max_tile: longest side of a tile in pixels.
    """

    extension = ".l3c"

    def __init__(
        self,
        network: Pyramid,
        device: str = "cpu",
        precision: str = "float32",
        max_tile: int = MAX_TILE,
    ) -> None:
        if not network.multiple <= max_tile <= LARGEST_TILE:
            raise ValueError(f"max_tile must be within {network.multiple}..{LARGEST_TILE} pixels, not {max_tile}")
        self.fingerprint = fingerprint(network)
        self.network = network.eval()
        self.device = usable_device(device)
        self.precision = precision
        self.max_tile = max_tile
        self._grids = [Grid.of(alphabet, network.num_mixtures) for alphabet in network.alphabets]

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        """The image as a container, not yet decoded again.

        Raises:
            ValueError: for other than uint8 [H, W] or [H, W, 3] with at least one pixel.
        """
        gray = image.ndim == 2
        if image.dtype != np.uint8 or image.size == 0 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"need uint8 pixels [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        threads = min(torch.get_num_threads(), MAX_THREADS) if self.device.type == "cpu" else 0
        tiles = []
        with reproducible_arithmetic(threads):
            self._place(self.precision)
            for box in tile_boxes(width, height, self.max_tile, self.network.multiple):
                pixels = image[box.top : box.top + box.height, box.left : box.left + box.width]
                tiles.append(Tile(*box, self._encode_tile(pixels[..., None] if gray else pixels)))
        return Container(
            "l3c",
            self.fingerprint,
            "L" if gray else "RGB",
            self.precision,
            threads,
            width,
            height,
            digest(np.ascontiguousarray(image).data),
            metadata or {},
            tiles,
        )

    @torch.inference_mode()
    def estimated_bits(self, pixels: np.ndarray) -> float:
        """Bits of an image uint8 [H, W, 3] by the likelihood in float32, as the training objective counts them."""
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        return float(estimated_bits(self.network.float(), x, self.max_tile).sum())

    def decompress(self, container: Container) -> np.ndarray:
        """The pixels, uint8 [H, W] or [H, W, 3].

        Raises:
            CorruptFileError: if the file was written by another model or holds impossible tiles.
            DecodeMismatchError: if the network's outputs are not those of the machine that wrote the file.
        """
        if container.model != self.fingerprint:
            raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {self.fingerprint.hex()}")
        if container.threads > MAX_THREADS:
            raise CorruptFileError(f"the file asks for {container.threads} threads")
        if max((max(tile.width, tile.height) for tile in container.tiles), default=0) > LARGEST_TILE:
            raise CorruptFileError(f"the file holds a tile of more than {LARGEST_TILE} pixels a side")
        channels = 1 if container.mode == "L" else 3
        image = np.empty((container.height, container.width, channels), np.uint8)
        try:
            with reproducible_arithmetic(container.threads):
                self._place(container.precision)
                for tile in container.tiles:
                    pixels = self._decode_tile(tile, channels)
                    image[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = pixels
        except CorruptStreamError as error:
            raise self._mismatch(container) from error
        if digest(image.data) != container.pixels:
            raise self._mismatch(container)
        return image[..., 0] if channels == 1 else image

    def _mismatch(self, container: Container) -> DecodeMismatchError:
        return DecodeMismatchError(
            f"the file is intact but does not decode here: its {container.precision} network outputs came from other "
            f"hardware or another PyTorch build ({'CPU' if container.threads else 'an accelerator'}); decode it where "
            "it was written, or compress it again there with --precision float64"
        )

    def _place(self, precision: str) -> None:
        dtype = getattr(torch, precision)
        self.network.to(self.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _predict(self, scale: int, symbols: np.ndarray, feature: Tensor | None) -> tuple[np.ndarray, Tensor]:
        """Parameters [H, W, Q] float32 of scale ``scale - 1`` and the feature, from symbols [h, w, C] of ``scale``."""
        dtype = next(self.network.parameters()).dtype
        on_device = torch.from_numpy(symbols.astype(np.int64)).permute(2, 0, 1)[None].to(self.device)
        values = self.network.values(scale, on_device).to(dtype, memory_format=torch.channels_last)
        prediction = self.network.predict(scale, values, feature)
        parameters = prediction.parameters[0].permute(1, 2, 0).float().contiguous()
        return parameters.cpu().numpy(), prediction.feature

    def _encode_tile(self, pixels: np.ndarray) -> bytes:
        """Payload of pixels [h, w, 1 or 3]: one stream per scale, coarse to fine, each after its length."""
        height, width, _ = pixels.shape
        multiple = self.network.multiple
        padding = (0, -height % multiple), (0, -width % multiple), (0, 0)
        padded = np.pad(np.broadcast_to(pixels, (height, width, 3)), padding, mode="edge")
        dtype = next(self.network.parameters()).dtype
        x = torch.from_numpy(padded).to(self.device, dtype).permute(2, 0, 1)[None]
        latents = [latent.symbols[0].permute(1, 2, 0).cpu().numpy() for latent in self.network.encode(x)]
        symbols = [pixels, *latents]
        last = len(latents)
        streams = [encode_uniform(symbols[last], self._grids[last].num_symbols)]
        feature = None
        for scale in range(last, 0, -1):
            parameters, feature = self._predict(scale, symbols[scale], feature)
            streams.append(encode_mixture(parameters, symbols[scale - 1], self._grids[scale - 1]))
        return b"".join(struct.pack("<I", len(stream)) + stream for stream in streams)

    def _decode_tile(self, tile: Tile, channels: int) -> np.ndarray:
        """Pixels [h, w, channels] of a payload."""
        last = self.network.num_scales
        streams = split_streams(tile.payload, last + 1)
        height, width = (-(-side // self.network.multiple) for side in (tile.height, tile.width))
        alphabet = self.network.alphabets[last]
        symbols = decode_uniform(streams[0], height * width * alphabet.channels, alphabet.num_symbols)
        symbols = symbols.reshape(height, width, alphabet.channels)
        feature = None
        for scale in range(last, 0, -1):
            parameters, feature = self._predict(scale, symbols, feature)
            size = parameters.shape[:2] if scale > 1 else (tile.height, tile.width)
            count = self.network.alphabets[scale - 1].channels if scale > 1 else channels
            symbols = decode_mixture(streams[last - scale + 1], parameters, (*size, count), self._grids[scale - 1])
        return symbols


def split_streams(payload: bytes, count: int) -> list[bytes]:
    """The ``count`` streams of a tile's payload.

    Raises:
        CorruptFileError: if their lengths do not add up.
    """
    streams, position = [], 0
    for _ in range(count):
        if position + 4 > len(payload):
            raise CorruptFileError("a tile's payload is cut short")
        (length,) = struct.unpack_from("<I", payload, position)
        position += 4
        if length > len(payload) - position:
            raise CorruptFileError("a tile's payload is cut short")
        streams.append(payload[position : position + length])
        position += length
    if position != len(payload):
        raise CorruptFileError("bytes are left after a tile's last stream")
    return streams
