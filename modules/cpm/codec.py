"""Images to bytes and back with a trained CPM.

    compress    image -> pad -> encoder -> symbols -> intervals, all in one pass -> rANS stream
    decompress  stream -> symbols, one after another -> centres -> decoder -> crop

A lossy codec cannot promise pixels. It promises the symbols: the context model computes in whole numbers, so that every
machine decodes the symbols that the encoder coded, and the file holds their checksum. The auto-encoder computes in
floating point: pixels are equal within one level on one machine, and close on others. It takes large images in strips
that overlap by as much as a layer's output can depend on, so memory is bounded and there are no seams.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from modules.components.autoencoder import STRIDE
from modules.components.coding.container import Container, CorruptFileError, Tile, digest
from modules.components.coding.model_file import fingerprint
from modules.components.coding.rans import PRECISION, CorruptStreamError, encode_intervals
from modules.components.devices import usable_device
from modules.cpm.exact_context import ExactContext, intervals
from modules.cpm.incremental import decode
from modules.cpm.nets import CPMNet, pad_to_stride

MAX_PIXELS = 1 << 26
STRIP_PIXELS = 1 << 21
"""Pixels that the auto-encoder looks at together, or eight rows and their surroundings."""
STATE_BITS = 32
"""Bits that a stream's first state can hold beyond its words."""


class Codec:
    """Codec of 8-bit RGB [H, W, 3] and grayscale [H, W] images; grayscale is coded as RGB.

    Args:
        network: a trained ``CPMNet``; it is put into eval mode and moved.
        device: where encoder and decoder run; the context model computes on the CPU.
        precision: "float32" or "float64", of encoder and decoder.

    Raises:
        InexactWeightsError: for a context model that cannot be made exact.
    """

    extension = ".cpm"

    def __init__(self, network: CPMNet, device: str = "cpu", precision: str = "float32") -> None:
        self.fingerprint = fingerprint(network)
        self.context = ExactContext.of(network)
        self.network = network.eval()
        self.device = usable_device(device)
        self.precision = precision

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        """The image as a container, not yet decoded again.

        Raises:
            ValueError: for other than uint8 [H, W] or [H, W, 3] with at least one pixel, or more pixels than a decoder
                accepts.
        """
        gray = image.ndim == 2
        if image.dtype != np.uint8 or image.size == 0 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"need uint8 pixels [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        if height * width > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} of this codec")
        symbols = self.encode(image[..., None].repeat(3, -1) if gray else image)
        payload = encode_intervals(*intervals(self.context, symbols))
        return Container(
            "cpm",
            self.fingerprint,
            "L" if gray else "RGB",
            self.precision,
            0,
            width,
            height,
            digest(symbols.data),
            metadata or {},
            [Tile(0, 0, width, height, payload)],
            lossy=True,
        )

    def read(self, container: Container) -> np.ndarray:
        """Symbols uint8 [K, h, w], which is what the file holds exactly, without running the decoder.

        Raises:
            CorruptFileError: if the file was written by another model or is damaged.
        """
        if container.model != self.fingerprint:
            raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {self.fingerprint.hex()}")
        if container.width * container.height > MAX_PIXELS or len(container.tiles) != 1:
            raise CorruptFileError("the file has more tiles or pixels than this codec writes")
        payload = container.tiles[0].payload
        shape = self.network.channels, -(-container.height // STRIDE), -(-container.width // STRIDE)
        if int(np.prod(shape)) * least_bits(len(self.context.centers)) > 8 * len(payload) + STATE_BITS:
            raise CorruptFileError(
                f"{len(payload)} bytes cannot describe {container.width} x {container.height} pixels"
            )
        try:
            symbols = decode(payload, shape, self.context)
        except CorruptStreamError as error:
            raise CorruptFileError(str(error)) from error
        if digest(symbols.data) != container.pixels:
            raise CorruptFileError("the payload does not decode to what the file was made from")
        return symbols

    def decompress(self, container: Container) -> np.ndarray:
        """The pixels, uint8 [H, W] or [H, W, 3].

        Raises:
            CorruptFileError: as ``read``.
        """
        pixels = self.decode(self.read(container))[: container.height, : container.width]
        return pixels.mean(-1).round().astype(np.uint8) if container.mode == "L" else np.ascontiguousarray(pixels)

    def symbol_bits(self, symbols: np.ndarray) -> float:
        """Bits of symbols uint8 [K, h, w] by the intervals of the exact context model: the estimate of the payload."""
        _, frequencies = intervals(self.context, symbols)
        return float((PRECISION - np.log2(frequencies.astype(np.float64))).sum())

    @torch.inference_mode()
    def encode(self, image: np.ndarray) -> np.ndarray:
        """Symbols uint8 [K, h, w] of pixels [H, W, 3]."""
        dtype = self._place()

        def symbols(x: Tensor) -> Tensor:
            x = x.to(self.device, dtype).contiguous(memory_format=torch.channels_last)
            return self.network.encode(x).symbols.byte().cpu()

        x = pad_to_stride(torch.from_numpy(image).permute(2, 0, 1)[None].float()).byte()
        margin = STRIDE * self.network.reach
        return in_strips(symbols, x, STRIDE, margin, 1 / STRIDE, STRIP_PIXELS)[0].numpy()

    @torch.inference_mode()
    def decode(self, symbols: np.ndarray) -> np.ndarray:
        """Pixels uint8 [8 h, 8 w, 3] of symbols uint8 [K, h, w]."""
        dtype = self._place()

        def pixels(part: Tensor) -> Tensor:
            values = self.network.quantizer.levels[part.to(self.device).int()].to(dtype)
            x_hat = self.network.decoder(values.contiguous(memory_format=torch.channels_last))
            return x_hat.round().clamp(0, 255).byte().cpu()

        code = torch.from_numpy(symbols)[None]
        x_hat = in_strips(pixels, code, 1, self.network.reach, STRIDE, STRIP_PIXELS // STRIDE**2)
        return x_hat[0].permute(1, 2, 0).numpy()

    def _place(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.precision)
        self.network.to(self.device, dtype)
        return dtype


def least_bits(num_symbols: int) -> float:
    """What the likeliest symbol costs at least: the others keep 2^-16 each."""
    return float(PRECISION - np.log2(2**PRECISION - num_symbols + 1))


def in_strips(
    function: Callable[[Tensor], Tensor], x: Tensor, multiple: int, margin: int, scale: float, limit: int
) -> Tensor:
    """``function`` of x [N, C, H, W], which returns H * scale rows; in strips of rows if H * W is above ``limit``.

    Args:
        multiple: of rows that a strip begins and ends at.
        margin: rows on each side that a strip's result depends on.
        limit: places of x that are looked at together, where one multiple of rows and its margins have no more.
    """
    height, width = x.shape[-2:]
    rows = max(multiple, (limit // width - 2 * margin) // multiple * multiple)
    if height * width <= limit:
        rows = height
    parts = []
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        first, last = max(0, top - margin), min(height, bottom + margin)
        part = function(x[..., first:last, :])
        parts.append(part[..., int((top - first) * scale) : int((bottom - first) * scale), :])
    return torch.cat(parts, dim=-2)
