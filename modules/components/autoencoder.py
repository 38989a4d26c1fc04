"""The stride-8 auto-encoder of Theis et al. (ICLR 2017) as CPM and the compressed-domain networks use it.

Images [N, 3, H, W] in 0..255, H and W multiples of 8, become [N, outputs, H/8, W/8] and back. The two papers differ in
the body between the strided layers (``residual_body``, ``GroupedBody``) and in the norm of the last layer.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

STRIDE = 8
PIXEL_MEAN = (121.85369873, 113.58860779, 100.63715363)
"""Of ImageNet's training images, in 0..255, as the authors' code has them (imgcomp-cvpr, autoencoder.py)."""
PIXEL_VARIANCE = (4746.37695312, 4454.14013672, 4812.23388672)

Body = Callable[[int], nn.Module]
"""Width -> the layers between the strided ones; ``functools.partial`` gives other depths."""


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> list[nn.Module]:
    """Convolution without bias, batch norm, ReLU; symmetric padding."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if relu else [])]


def up(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Transposed convolution of stride 2 that doubles the sides exactly, batch norm, ReLU."""
    layer = nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, output_padding=1, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


class ResidualUnit(nn.Module):
    """conv3-BN-ReLU, conv3-BN, + input; without any activation for ``relu=False``."""

    def __init__(self, width: int, relu: bool = True) -> None:
        super().__init__()
        self.layers = nn.Sequential(*conv(width, width, 3, relu=relu), *conv(width, width, 3, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def residual_body(width: int, units: int = 3) -> nn.Module:
    """Plain residual units one after another (Theis et al.)."""
    return nn.Sequential(*(ResidualUnit(width) for _ in range(units)))


class GroupedBody(nn.Module):
    """CPM's body (imgcomp-cvpr, autoencoder.py).

    Groups of residual units with a skip around each group, a unit without activation, a skip around everything.
    """

    def __init__(self, width: int, groups: int = 5, units: int = 3) -> None:
        super().__init__()
        self.groups = nn.ModuleList(nn.Sequential(*(ResidualUnit(width) for _ in range(units))) for _ in range(groups))
        self.last = ResidualUnit(width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        start = x
        for group in self.groups:
            x = x + group(x)
        return start + self.last(x)


class PixelNorm(nn.Module):
    """0..255 to zero mean and unit variance by ImageNet's statistics, and back."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(1, 3, 1, 1), persistent=False)
        deviation = (torch.tensor(PIXEL_VARIANCE) + 1e-10).sqrt()
        self.register_buffer("deviation", deviation.view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.deviation + self.mean


class Encoder(nn.Module):
    """conv5/2 width/2, conv5/2 width, body, conv5/2 outputs with batch norm and no activation.

    Args:
        outputs: channels at 1/8 of the resolution.
        width: 128 in both papers.
        body: what stands at a quarter of the resolution.
    """

    def __init__(self, outputs: int, width: int = 128, body: Body = GroupedBody) -> None:
        super().__init__()
        self.norm = PixelNorm()
        self.layers = nn.Sequential(
            *conv(3, width // 2, 5, 2),
            *conv(width // 2, width, 5, 2),
            body(width),
            *conv(width, outputs, 5, 2, relu=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in 0..255 -> [N, outputs, H/8, W/8]."""
        out: Tensor = self.layers(self.norm(x))
        return out


class Decoder(nn.Module):
    """up3 width, body, up5 width/2, up5 3 channels in units of the normalised image, and back to 0..255, unclipped.

    Args:
        inputs: channels of the code.
        norm_output: batch norm behind the last layer too, as CPM's code has it; a bias where there is none.
        Others as for ``Encoder``.
    """

    def __init__(self, inputs: int, width: int = 128, body: Body = GroupedBody, norm_output: bool = True) -> None:
        super().__init__()
        self.norm = PixelNorm()
        last = nn.ConvTranspose2d(width // 2, 3, 5, 2, 2, output_padding=1, bias=not norm_output)
        self.layers = nn.Sequential(
            *up(inputs, width, 3),
            body(width),
            *up(width, width // 2, 5),
            last,
            *([nn.BatchNorm2d(3)] if norm_output else []),
        )

    def forward(self, code: Tensor) -> Tensor:
        """[N, inputs, h, w] -> [N, 3, 8 h, 8 w], about 0..255, float32."""
        return self.norm.inverse(self.layers(code).float())
