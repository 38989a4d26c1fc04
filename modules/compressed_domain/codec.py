"""Images to bytes and back with a trained codec, and the code of a file alone.

    compress    image -> pad -> encoder -> symbols -> payload
    read        payload -> symbols, without any network
    decompress  symbols -> centres -> decoder -> crop

Symbols are the encoder's, on every machine: the payload is integers and the file holds their checksum. Decoded pixels
come from floating point and are equal within one level on one machine, and close on others.
"""

from typing import Any

import numpy as np
import torch

from modules.components.autoencoder import STRIDE
from modules.components.coding.container import Container, CorruptFileError, Tile, digest
from modules.components.coding.model_file import fingerprint
from modules.components.coding.rans import CorruptStreamError
from modules.components.devices import usable_device
from modules.compressed_domain.nets import CompressionNet
from modules.compressed_domain.symbol_coder import read_symbols, write_symbols

MAX_PIXELS = 1 << 24
"""Encoder and decoder look at the whole image at once."""


def grid_of(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the code of an image."""
    return -(-height // STRIDE), -(-width // STRIDE)


def read_code(container: Container, model: bytes, channels: int, num_centers: int) -> np.ndarray:
    """Symbols int64 [C, h, w] of a file, without any network.

    Args:
        container: what ``unpack`` gives.
        model: fingerprint of the codec that must have written it.
        channels, num_centers: of that codec.

    Raises:
        CorruptFileError: if the file was written by another codec or is damaged.
    """
    if container.model != model:
        raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {model.hex()}")
    rows, columns = grid_of(container.height, container.width)
    if rows * columns * STRIDE**2 > MAX_PIXELS or len(container.tiles) != 1:
        raise CorruptFileError("the file has more tiles or pixels than this codec writes")
    try:
        flat = read_symbols(container.tiles[0].payload, channels * rows * columns, num_centers)
    except CorruptStreamError as error:
        raise CorruptFileError(str(error)) from error
    if digest(flat.astype(np.int8).tobytes()) != container.pixels:
        raise CorruptFileError("the payload does not decode to what the file was made from")
    return flat.reshape(channels, rows, columns)


class Codec:
    """Codec of 8-bit RGB [H, W, 3] and grayscale [H, W] images; grayscale is coded as RGB.

    Args:
        network: a trained ``CompressionNet``; it is put into eval mode and moved.
        device: where the network runs.
        precision: "float32" or "float64", of the network.
    """

    extension = ".cdom"

    def __init__(self, network: CompressionNet, device: str = "cpu", precision: str = "float32") -> None:
        self.fingerprint = fingerprint(network)
        self.network = network.eval()
        self.device, self.precision = usable_device(device), precision

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        """The image as a container, not yet decoded again.

        Raises:
            ValueError: for other than uint8 [H, W] or [H, W, 3] with at least one pixel, or for more pixels than a
                decoder accepts.
        """
        gray = image.ndim == 2
        if image.dtype != np.uint8 or image.size == 0 or not (gray or (image.ndim == 3 and image.shape[2] == 3)):
            raise ValueError(f"need uint8 pixels [H, W] or [H, W, 3], got {image.dtype} {image.shape}")
        height, width = image.shape[:2]
        rows, columns = grid_of(height, width)
        if rows * columns * STRIDE**2 > MAX_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than the {MAX_PIXELS} of this codec")
        padding = (0, rows * STRIDE - height), (0, columns * STRIDE - width), (0, 0)
        rgb = image[..., None].repeat(3, -1) if gray else image
        symbols = self._encode(np.pad(rgb, padding, mode="edge"))
        tile = Tile(0, 0, width, height, write_symbols(symbols, self.network.num_centers))
        checksum = digest(symbols.astype(np.int8).tobytes())
        header: dict[str, Any] = {"mode": "L" if gray else "RGB", "precision": self.precision, "threads": 0}
        size = {"width": width, "height": height, "pixels": checksum}
        return Container(
            "compressed_domain", self.fingerprint, **header, **size, metadata=metadata or {}, tiles=[tile], lossy=True
        )

    def read(self, container: Container) -> np.ndarray:
        """Symbols int64 [C, h, w], without the network.

        Raises:
            CorruptFileError: if the file was written by another codec or is damaged.
        """
        return read_code(container, self.fingerprint, self.network.channels, self.network.num_centers)

    def decompress(self, container: Container) -> np.ndarray:
        """The pixels, uint8 [H, W] or [H, W, 3].

        Raises:
            CorruptFileError: as ``read``.
        """
        pixels = self._decode(self.read(container))[: container.height, : container.width]
        return pixels.mean(-1).round().astype(np.uint8) if container.mode == "L" else np.ascontiguousarray(pixels)

    def _place(self) -> torch.dtype:
        dtype = getattr(torch, self.precision)
        self.network.to(self.device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return dtype

    @torch.inference_mode()
    def _encode(self, image: np.ndarray) -> np.ndarray:
        """Symbols int64 [C, h, w] of pixels [H, W, 3]."""
        dtype = self._place()
        x = torch.from_numpy(image).to(self.device, dtype).permute(2, 0, 1)[None]
        return self.network.encode(x).symbols[0].cpu().numpy()

    @torch.inference_mode()
    def _decode(self, symbols: np.ndarray) -> np.ndarray:
        """Pixels uint8 of the padded size."""
        self._place()
        values = self.network.quantizer.levels[torch.from_numpy(symbols).to(self.device)]
        x_hat = self.network.decode(values[None])[0]
        return x_hat.round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
