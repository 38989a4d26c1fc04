"""64x64 images to c x 16 bits and back to as many reconstructions as one likes.

The payload is the code itself, 2 c bytes: eight symbols a byte, channel by channel, row by row, the first symbol in
the highest bit. Nothing is entropy coded, so a file's size does not depend on the image. The container around it
(magic, model, size, checksums) comes on top and is the same for every rate.

The symbols decode exactly, everywhere: the checksum of the container covers them, and its field for the pixels holds
their own. Pixels are what a network makes of them and of noise: on the same machine the same seed gives the same
pixels; on another they may differ by rounding.
"""

import numpy as np
import torch
from torch import Tensor

from modules.components.coding.container import Container, CorruptFileError, Tile, digest
from modules.components.coding.model_file import fingerprint
from modules.components.devices import usable_device
from modules.dplc.losses import scaled, to_bytes
from modules.dplc.nets import GRID, SIZE, CompressionNet, GenerativeNet

MAX_SEED = 2**63 - 1


class Codec:
    """Lossy codec of 64x64 RGB images; with a network of stage 1 it only draws samples.

    Args:
        network: ``CompressionNet``, or ``GenerativeNet``; it is put into eval mode and moved.
        device: where the network runs.
        precision: "float32" or "float64", of the network.
    """

    extension = ".dplc"

    def __init__(
        self,
        network: CompressionNet | GenerativeNet,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self.fingerprint = fingerprint(network)
        self.dtype = getattr(torch, precision)
        self.device = usable_device(device)
        self.network = network.eval().to(self.device, self.dtype)
        self.precision = precision

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container:
        """The code of an image uint8 [64, 64, 3], or [64, 64] which is replicated.

        Raises:
            ValueError: for another size or type, and for a network of stage 1.
        """
        network = self._codes()
        if image.dtype != np.uint8 or image.shape not in ((SIZE, SIZE), (SIZE, SIZE, 3)):
            size = "x".join(map(str, image.shape[1::-1]))
            raise ValueError(f"this codec takes {SIZE}x{SIZE} pixels of 8 bits, not {size}: scale and crop it first")
        gray = image.ndim == 2
        pixels = np.broadcast_to(image[..., None], (SIZE, SIZE, 3)) if gray else image
        x = scaled(torch.tensor(pixels).permute(2, 0, 1)[None].to(self.device)).to(self.dtype)
        with torch.inference_mode():
            symbols = network.encoder(x).symbols[0].cpu().numpy().astype(np.uint8)
        payload = np.packbits(symbols.reshape(-1)).tobytes()
        tile = Tile(0, 0, SIZE, SIZE, payload)
        return Container(
            "dplc",
            self.fingerprint,
            "L" if gray else "RGB",
            self.precision,
            0,
            SIZE,
            SIZE,
            digest(payload),
            metadata or {},
            [tile],
            lossy=True,
        )

    def read(self, container: Container) -> Tensor:
        """int64 [1, c, 4, 4], 0 and 1.

        Raises:
            CorruptFileError: for a file of another model, and for one that cannot be of this codec.
        """
        network = self._codes()
        if container.model != self.fingerprint:
            raise CorruptFileError(f"the file needs model {container.model.hex()}, this is {self.fingerprint.hex()}")
        tiles = container.tiles
        count = network.channels * GRID**2
        if (container.width, container.height, len(tiles)) != (SIZE, SIZE, 1) or len(tiles[0].payload) != count // 8:
            raise CorruptFileError(f"not {count} bits for one image of {SIZE}x{SIZE} pixels")
        if digest(tiles[0].payload) != container.pixels:
            raise CorruptFileError("the checksum of the code does not match")
        bits = np.unpackbits(np.frombuffer(tiles[0].payload, np.uint8)).astype(np.int64)
        return torch.from_numpy(bits).view(1, network.channels, GRID, GRID).to(self.device)

    def decompress(self, container: Container) -> np.ndarray:
        """The first of ``draws`` with seed 0."""
        return self.draws(container)[0]

    def draws(self, container: Container, samples: int = 1, seed: int = 0) -> list[np.ndarray]:
        """``samples`` reconstructions, uint8 [64, 64, 3] or [64, 64] each, with noise that follows from ``seed``.

        Without noise channels all are the same.

        Raises:
            CorruptFileError: as ``read``.
            ValueError: for no samples or a negative seed.
        """
        generator = seeded(samples, seed)
        network, symbols = self._codes(), self.read(container)
        with torch.inference_mode():
            noises = [network.draw_noise(1, generator).to(self.dtype) for _ in range(samples)]
            return [as_image(network.decode(symbols, noise), container.mode == "L") for noise in noises]

    def sample(self, samples: int, seed: int = 0) -> list[np.ndarray]:
        """Random images uint8 [64, 64, 3], what is decoded of zero bits.

        Raises:
            ValueError: for no samples or a negative seed.
        """
        generator = seeded(samples, seed)
        decoder = self.network.generator
        with torch.inference_mode():
            latents = [decoder.draw_latents(1, generator) for _ in range(samples)]
            return [as_image(decoder(z.to(self.dtype))) for z in latents]

    def _codes(self) -> CompressionNet:
        if not isinstance(self.network, CompressionNet):
            raise ValueError("a generative model of stage 1 codes nothing, it only samples: train stage 2 on it first")
        return self.network


def seeded(samples: int, seed: int) -> torch.Generator:
    if samples < 1:
        raise ValueError(f"samples must be at least 1, not {samples}")
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be 0 to {MAX_SEED}, not {seed}")
    return torch.Generator().manual_seed(seed)


def as_image(x: Tensor, gray: bool = False) -> np.ndarray:
    """[1, 3, H, W] in [-1, 1] -> uint8 [H, W, 3], or the rounded mean of the channels [H, W]."""
    if gray:
        return to_bytes(x[0].mean(0)).cpu().numpy()
    return to_bytes(x[0]).permute(1, 2, 0).cpu().contiguous().numpy()
