"""The codec, and the networks that classify and segment its code or its decoded images.

Letters: N batch, C channels of the code, K classes; the code stands at h = H/8, w = W/8.

    x -> Encoder -> z -> quantiser -> code [N, C, h, w] -> CodeResNet, CodeResNetD
                                       `-> Decoder -> x_hat [N, 3, H, W] -> RGBResNet, RGBResNetD
"""

from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from modules.components.autoencoder import STRIDE, Decoder, Encoder, PixelNorm, residual_body
from modules.components.configured import ConfiguredNetwork
from modules.components.options import at_least, within
from modules.components.quantizers import LearnedQuantizer
from modules.compressed_domain.residual import ASPP, StrideIn, initialise, stages

CODE_BLOCKS = {39: (4, 6, 3), 51: (4, 10, 3), 72: (4, 17, 3)}
"""Bottleneck units of conv3_x, conv4_x and conv5_x; the name counts the convolutions in them."""
RGB_BLOCKS = {50: (3, 4, 6, 3), 71: (3, 4, 13, 3)}
"""With conv2_x; the name also counts the first convolution and the last layer."""
MAX_CENTERS, MAX_CHANNELS = 127, 1 << 12
"""Of a code: what files and the checkpoints that read them can hold."""


class Code(NamedTuple):
    values: Tensor
    """float32 [N, C, h, w]: centre of each symbol; the gradient is that of the soft assignment."""
    symbols: Tensor
    """int64, same shape: index of the centre."""
    z: Tensor
    """float32, same shape: before quantisation."""


class Compressed(NamedTuple):
    x_hat: Tensor
    """float32 [N, 3, H, W], about 0..255, unclipped."""
    code: Code


class CompressionNet(ConfiguredNetwork):
    """Auto-encoder after Theis et al. (2017) with one set of learned centres for all channels (sheet 3.1).

    2,331,849 parameters at C = 32, of which the encoder has 1,198,720 and the decoder 1,133,123.

    Args:
        channels: C.
        num_centers: L.
        width: of the inner layers, 128 in the paper; the outer ones have half of it.
        units: residual units in the encoder, and as many in the decoder.

    Raises:
        ValueError: for sizes below 1, fewer than two centres, or more centres or channels than files can hold.
    """

    def __init__(self, channels: int = 32, num_centers: int = 6, width: int = 128, units: int = 3) -> None:
        super().__init__()
        at_least(1, units=units)
        at_least(2, width=width)
        within(1, MAX_CHANNELS, channels=channels)
        within(2, MAX_CENTERS, num_centers=num_centers)
        self.channels, self.num_centers = channels, num_centers
        body = partial(residual_body, units=units)
        self.encoder = Encoder(channels, width, body)
        self.quantizer = LearnedQuantizer(num_centers)
        self.decoder = Decoder(channels, width, body, norm_output=False)

    def encode(self, x: Tensor) -> Code:
        """[N, 3, H, W] in 0..255, H and W multiples of 8.

        Raises:
            ValueError: for other sides.
        """
        if x.shape[-2] % STRIDE or x.shape[-1] % STRIDE:
            raise ValueError(f"sides must be multiples of {STRIDE}, got {x.shape[-2]} x {x.shape[-1]}")
        z = self.encoder(x).to(self.quantizer.levels.dtype)  # autocast's 16 bits are too coarse for a choice
        quantized = self.quantizer(z)
        return Code(quantized.values, quantized.symbols, z)

    def decode(self, values: Tensor) -> Tensor:
        """[N, C, h, w] -> x_hat [N, 3, H, W], about 0..255, unclipped."""
        x_hat: Tensor = self.decoder(values)
        return x_hat

    def forward(self, x: Tensor) -> Compressed:
        code = self.encode(x)
        return Compressed(self.decode(code.values), code)


def code_trunk(
    channels: int, depth: int, width: int, stride_in: StrideIn, norm_input: bool, dilated: bool = False
) -> nn.Sequential:
    """cResNet without its head: the code enters conv3_x, whose first unit has stride 1 (sheet 3.2).

    Raises:
        ValueError: for an unknown depth.
    """
    if depth not in CODE_BLOCKS:
        raise ValueError(f"depth of a cResNet must be one of {', '.join(map(str, CODE_BLOCKS))}, got {depth}")
    at_least(1, channels=channels, width=width)
    norm = [nn.BatchNorm2d(channels)] if norm_input else []
    body = stages(channels, (2 * width, 4 * width, 8 * width), CODE_BLOCKS[depth], 1, stride_in, dilated)
    return nn.Sequential(*norm, *body)


def rgb_trunk(depth: int, width: int, stride_in: StrideIn, dilated: bool = False) -> nn.Sequential:
    """ResNet without its head, for images in 0..255, which it normalises.

    Raises:
        ValueError: for an unknown depth.
    """
    if depth not in RGB_BLOCKS:
        raise ValueError(f"depth of a ResNet must be one of {', '.join(map(str, RGB_BLOCKS))}, got {depth}")
    at_least(1, width=width)
    root = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    body = stages(width, (width, 2 * width, 4 * width, 8 * width), RGB_BLOCKS[depth], 1, stride_in, dilated)
    return nn.Sequential(PixelNorm(), *root, *body)


class WithClassifier(nn.Module):
    """A trunk, the mean over all places, a linear layer."""

    on_code: bool
    """Whether it works on codes, or on images."""

    def __init__(self, trunk: nn.Sequential, width: int, num_classes: int) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes)
        self.num_classes = num_classes
        self.features = trunk
        self.classifier = nn.Linear(32 * width, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Code [N, C, h, w], or images [N, 3, H, W] in 0..255 -> logits [N, K]."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits


class WithASPP(nn.Module):
    """A dilated trunk at 1/8 of the resolution, ASPP, and up to the pixels (sheet 3.3)."""

    on_code: bool

    def __init__(self, trunk: nn.Sequential, width: int, num_classes: int) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes)
        self.num_classes = num_classes
        self.features = trunk
        initialise(self)
        self.head = ASPP(32 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Code [N, C, h, w], or images [N, 3, H, W] in 0..255 -> logits [N, K, H, W], H = 8 h."""
        return to_pixels(self.head(self.features(x)))


class CodeResNet(WithClassifier):
    """cResNet-39, -51 or -72 on the centre values of a code.

    Args:
        channels: C.
        num_classes: K.
        depth: 39, 51 or 72.
        width: of conv2_x, which is not there; 64 in the paper, and conv3_x has twice as much.
        stride_in: convolution of a unit that strides, ``1x1`` as in the paper or ``3x3`` as in torchvision.
        norm_input: batch norm on the code, which the paper does not have.

    Raises:
        ValueError: for an unknown depth.
    """

    on_code = True

    def __init__(
        self,
        channels: int = 32,
        num_classes: int = 1000,
        depth: int = 51,
        width: int = 64,
        stride_in: StrideIn = "1x1",
        norm_input: bool = False,
    ) -> None:
        super().__init__(code_trunk(channels, depth, width, stride_in, norm_input), width, num_classes)
        self.channels = channels


class RGBResNet(WithClassifier):
    """ResNet-50 or -71 on images, 25,557,032 parameters for depth 50.

    Args:
        num_classes: K.
        depth: 50 or 71.
        width: of conv2_x.
        stride_in: as for ``CodeResNet``.

    Raises:
        ValueError: for an unknown depth.
    """

    on_code = False

    def __init__(self, num_classes: int = 1000, depth: int = 50, width: int = 64, stride_in: StrideIn = "1x1") -> None:
        super().__init__(rgb_trunk(depth, width, stride_in), width, num_classes)


class CodeResNetD(WithASPP):
    """cResNet-d: dilated conv4_x and conv5_x, so that every layer works at the code's resolution; ASPP.

    Args:
        channels, depth, width, stride_in, norm_input: as for ``CodeResNet``, whose weights it starts from.
        num_classes: K, 21 for VOC.
    """

    on_code = True

    def __init__(
        self,
        channels: int = 32,
        num_classes: int = 21,
        depth: int = 51,
        width: int = 64,
        stride_in: StrideIn = "1x1",
        norm_input: bool = False,
    ) -> None:
        super().__init__(code_trunk(channels, depth, width, stride_in, norm_input, dilated=True), width, num_classes)
        self.channels = channels


class RGBResNetD(WithASPP):
    """ResNet-d: everything behind conv2_x works at 1/8 of the resolution; ASPP.

    Args:
        num_classes: K, 21 for VOC.
        depth, width, stride_in: as for ``RGBResNet``, whose weights it starts from.
    """

    on_code = False

    def __init__(self, num_classes: int = 21, depth: int = 50, width: int = 64, stride_in: StrideIn = "1x1") -> None:
        super().__init__(rgb_trunk(depth, width, stride_in, dilated=True), width, num_classes)


def check_channels(network: nn.Module, channels: int) -> None:
    """Raise a ValueError for a network on codes of another number of channels."""
    if network.on_code and network.channels != channels:
        raise ValueError(
            f"the codec's code has {channels} channels, {type(network).__name__} takes {network.channels}: "
            "make their init_args.channels equal"
        )


def to_pixels(logits: Tensor) -> Tensor:
    """Bilinear, times 8, float32."""
    return functional.interpolate(logits.float(), scale_factor=STRIDE, mode="bilinear", align_corners=False)
