"""The networks of DPLC, all for 64x64 images (the authors' models.py at kernel 4, padding 1).

Letters: N images, W width (the paper's 64), m latent dimension (the paper's 128), c channels of bits.

    stage 1   x [N, 3, 64, 64] -> Encoder -> z [N, m, 1, 1] -> Generator -> x_hat [N, 3, 64, 64]
              x -> Critic -> [N, 1, 1, 1]
    stage 2   x -> BitEncoder -> w [N, c, 4, 4] in {-1/2, 1/2} ─┐
                          noise [N, 8, 4, 4] in [-1/2, 1/2] ────┴─> StochasticMap -> z -> Generator -> x_hat

Images are in [-1, 1] here. 16 c bits are sent for an image.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modules.components.configured import ConfiguredNetwork
from modules.components.options import at_least
from modules.components.quantizers import Quantized, SoftHardQuantizer

SIZE = 64
GRID = 4
"""Side of the code, the image's by four halvings."""
LATENT = 128


def initialise(network: nn.Module) -> None:
    """Convolutions N(0, 0.02), batch norms N(1, 0.02) and 0; the rest stays PyTorch's (the authors' train.py)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)


def draw(
    source: Callable[..., Tensor], shape: tuple[int, ...], network: nn.Module, generator: torch.Generator | None
) -> Tensor:
    """Random numbers on the network's device, drawn there, or by a ``generator`` of the CPU: the same everywhere."""
    device = next(network.parameters()).device
    return source(shape, device=device) if generator is None else source(shape, generator=generator).to(device)


def halvings(width: int) -> list[nn.Module]:
    """x [N, 3, 64, 64] -> [N, 8 W, 4, 4]; the trunk of both encoders."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.ReLU()]
    for channels in (width, 2 * width, 4 * width):
        layers += [
            nn.Conv2d(channels, 2 * channels, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
        ]
    return layers


class Encoder(nn.Sequential):
    """F: x [N, 3, 64, 64] -> z [N, m, 1, 1], deterministic; 3,806,208 parameters at W = 64 and m = 128."""

    def __init__(self, width: int = 64, latent: int = LATENT) -> None:
        super().__init__(*halvings(width), nn.Conv2d(8 * width, latent, GRID, 1, 0, bias=False), nn.BatchNorm2d(latent))
        initialise(self)


class Generator(nn.Sequential):
    """G: z [N, m, 1, 1] -> x_hat [N, 3, 64, 64] in [-1, 1]; 3,870,403 parameters at W = 64 and m = 128."""

    def __init__(self, width: int = 64, latent: int = LATENT) -> None:
        widths = (8 * width, 4 * width, 2 * width, width, width)
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip((latent, *widths), widths, strict=False)):
            stride, padding = (1, 0) if i == 0 else (2, 1)
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        super().__init__(*layers, nn.Conv2d(width, 3, 3, 1, 1), nn.Tanh())
        self.latent = latent
        initialise(self)

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """z ~ N(0, I), [count, m, 1, 1]; see ``draw`` for the generator."""
        return draw(torch.randn, (count, self.latent, 1, 1), self, generator)


class Critic(nn.Sequential):
    """f: x [N, 3, 64, 64] -> [N, 1, 1, 1]; 3,073,792 parameters at W = 64.

    Layer norms, since a batch norm would make the gradient penalty of one image depend on the others.
    """

    def __init__(self, width: int = 64) -> None:
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.LeakyReLU(0.2)]
        before, side = width, SIZE
        for after in (width, 2 * width, 4 * width, 8 * width):
            side //= 2
            layers += [
                nn.Conv2d(before, after, 4, 2, 1, bias=False),
                nn.LayerNorm([after, side, side]),
                nn.LeakyReLU(0.2),
            ]
            before = after
        super().__init__(*layers, nn.Conv2d(before, 1, GRID, 1, 0, bias=False))
        initialise(self)


class BitEncoder(nn.Module):
    """E: x [N, 3, 64, 64] -> bits [N, c, 4, 4] with values -1/2 and 1/2."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(*halvings(width), nn.Conv2d(8 * width, channels, 3, 1, 1))
        self.quantizer = SoftHardQuantizer(2, -0.5, 0.5, sigma=1.0)
        initialise(self)

    def forward(self, x: Tensor) -> Quantized:
        return self.quantizer(self.layers(x).float())


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, plus the input, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


class StochasticMap(nn.Sequential):
    """B: bits and noise [N, c + q, 4, 4] -> z [N, m, 1, 1]. The last batch norm pulls z towards the prior."""

    def __init__(self, channels: int, width: int = 64, latent: int = LATENT, num_blocks: int = 2) -> None:
        wide = 8 * width
        super().__init__(
            nn.ConvTranspose2d(channels, wide, 3, 1, 1),
            *(ResidualBlock(wide) for _ in range(num_blocks)),
            nn.Conv2d(wide, latent, GRID, 1, 0, bias=False),
            nn.BatchNorm2d(latent),
        )
        initialise(self)


class GenerativeNet(ConfiguredNetwork):
    """What stage 1 trains: G, and for WAE and Wasserstein++ also F.

    Args:
        width, latent: W and m.
        encoder: whether there is F.
    """

    def __init__(self, width: int = 64, latent: int = LATENT, encoder: bool = True) -> None:
        super().__init__()
        at_least(1, width=width, latent=latent)
        self.generator = Generator(width, latent)
        self.encoder = Encoder(width, latent) if encoder else None


class Coded(NamedTuple):
    x_hat: Tensor
    """[N, 3, 64, 64] in [-1, 1]."""
    z: Tensor
    """[N, m, 1, 1]."""
    symbols: Tensor
    """int64 [N, c, 4, 4], 0 and 1."""


class CompressionNet(ConfiguredNetwork):
    """E, B and G; E and B have 13,358,600 parameters at c = 8 and W = 64.

    Args:
        channels: c, 1 to m.
        width, latent: W and m.
        noise: whether B gets ceil(m / 16) channels of noise beside the bits; without, decoding is deterministic.
        num_blocks: residual blocks of B.

    Raises:
        ValueError: for c outside of 1..m; more than m channels tell a generator with m inputs nothing more.
    """

    def __init__(
        self, channels: int = 8, width: int = 64, latent: int = LATENT, noise: bool = True, num_blocks: int = 2
    ) -> None:
        super().__init__()
        at_least(1, width=width, latent=latent)
        at_least(0, num_blocks=num_blocks)
        if not 1 <= channels <= latent:
            raise ValueError(f"channels must be 1 to {latent}, the latent dimension, not {channels}")
        self.channels = channels
        self.noise_channels = math.ceil(latent / GRID**2) if noise else 0
        self.encoder = BitEncoder(channels, width)
        self.map = StochasticMap(channels + self.noise_channels, width, latent, num_blocks)
        self.generator = Generator(width, latent)

    def draw_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Uniform on [-1/2, 1/2], half a quantiser's step: [count, q, 4, 4]; see ``draw`` for the generator."""
        return draw(torch.rand, (count, self.noise_channels, GRID, GRID), self, generator) - 0.5

    def latents(self, values: Tensor, noise: Tensor) -> Tensor:
        """B: bits -1/2 and 1/2 [N, c, 4, 4] and noise [N, q, 4, 4] -> z [N, m, 1, 1]."""
        return self.map(torch.cat([values, noise], 1).contiguous(memory_format=torch.channels_last))

    def decode(self, symbols: Tensor, noise: Tensor) -> Tensor:
        """Symbols int64 [N, c, 4, 4] -> x_hat [N, 3, 64, 64]."""
        return self.generator(self.latents(self.encoder.quantizer.levels[symbols], noise))

    def forward(self, x: Tensor, noise: Tensor) -> Coded:
        bits = self.encoder(x)
        z = self.latents(bits.values, noise)
        return Coded(self.generator(z), z, bits.symbols)
