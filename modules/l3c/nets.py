"""The networks of L3C and of its RGB baselines (Mentzer et al., CVPR 2019, section 3 and figure A4).

Letters: N batch, H and W image size, C latent channels, F feature channels, K mixtures, S scales.
Scale 0 is the image; scale s has H/2^s x W/2^s positions. Nothing here is normalised or stochastic.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.components.configured import ConfiguredNetwork
from modules.components.options import above, at_least
from modules.components.quantizers import SoftHardQuantizer

RGB_MEAN = (0.4488, 0.4371, 0.4040)
MIN_LOG_SCALE = -7.0
"""Lower clamp of the logistics' log scales."""
MIN_PROBABILITY = 1e-12
"""Floor of a bin's mass in one logistic, the bins at the ends excepted."""


class Alphabet(NamedTuple):
    """What a coded tensor may hold: ``channels`` tensors of values ``low + step * symbol``."""

    channels: int
    num_symbols: int
    low: float
    step: float
    is_rgb: bool
    """Channels are R, G, B and the means of G and B follow from the channels before (eq. 8)."""

    def num_parameters(self, num_mixtures: int) -> int:
        """Channels of the mixture head: weights, means, log scales and, for RGB, coefficients."""
        return (4 if self.is_rgb else 3) * self.channels * num_mixtures


RGB = Alphabet(channels=3, num_symbols=256, low=0.0, step=1.0, is_rgb=True)


class Latent(NamedTuple):
    values: Tensor
    """[N, C, H/2^s, W/2^s] on the alphabet's grid; carries a gradient for learned encoders."""
    symbols: Tensor
    """The same as int64 indices."""


class Prediction(NamedTuple):
    """The distribution of one scale."""

    parameters: Tensor
    """[N, P * C * K, h, w]: raw head output, parameter type outermost, then channel, then mixture."""
    feature: Tensor
    """[N, F, h, w]: what the next finer predictor receives."""


class PyramidOutput(NamedTuple):
    """All targets of an image with the distribution predicted for each, fine to coarse."""

    targets: list[Tensor]
    """Scale 0..S-1: values in the units of the alphabet."""
    parameters: list[Tensor]
    """Scale 0..S-1: mixture parameters for ``targets``."""
    last: Latent
    """The coarsest latent, whose prior is uniform."""


class FixedAffine(nn.Conv2d):
    """A frozen 1x1 convolution: identity / ``divisor`` + ``bias`` per channel.

    In the authors' code these layers were meant to be frozen and are trained; here their 12 numbers stay
    parameters without gradient. Computed in float32 even under autocast, since bfloat16 cannot hold x - mean.
    """

    def __init__(self, bias: tuple[float, ...], divisor: float = 1.0) -> None:
        super().__init__(len(bias), len(bias), 1)
        self.weight = nn.Parameter(torch.eye(len(bias))[:, :, None, None] / divisor, requires_grad=False)
        self.bias: nn.Parameter = nn.Parameter(torch.tensor(bias), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.diagonal()[0, 0].view(1, -1, 1, 1)
        return x * scale + self.bias.view(1, -1, 1, 1)


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation if dilation > 1 else kernel // 2
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation)


class ResidualBlock(nn.Module):
    """conv, ReLU, conv, + input (EDSR's block without residual scaling)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(functional.relu(self.conv1(x), inplace=True))


def residual_body(channels: int, num_blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(num_blocks)), conv(channels, channels, 3))


class ScaleEncoder(nn.Module):
    """E_s: halve the resolution, refine, project to C channels, quantise."""

    def __init__(self, inputs: int, channels: int, num_blocks: int, quantizer: SoftHardQuantizer, latent: int) -> None:
        super().__init__()
        self.head = conv(inputs, channels, 3)
        self.down = conv(channels, channels, 5, stride=2)
        self.body = residual_body(channels, num_blocks)
        self.to_latent = conv(channels, latent, 1)
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> tuple[Tensor, Latent]:
        h = self.down(self.head(x))
        feature = h + self.body(h)
        return feature, Latent(*self.quantizer(self.to_latent(feature).float()))


class MixtureHead(nn.Conv2d):
    """The last 1x1 convolution, its RGB means in units of ``mean_unit``.

    The paper predicts means of 0..255 directly (unit 1), for which weights must grow far beyond their initial size.
    """

    unit: Tensor

    def __init__(self, inputs: int, target: Alphabet, num_mixtures: int, mean_unit: float) -> None:
        super().__init__(inputs, target.num_parameters(num_mixtures), 1)
        means = slice(target.channels * num_mixtures, 2 * target.channels * num_mixtures)
        unit = torch.ones(self.out_channels)
        unit[means] = mean_unit if target.is_rgb else 1.0
        self.register_buffer("unit", unit, persistent=False)
        self.is_rgb = target.is_rgb
        self.mean_unit = mean_unit

    def forward(self, x: Tensor) -> Tensor:
        if not self.is_rgb or self.mean_unit == 1.0:
            return super().forward(x)
        assert self.bias is not None
        return functional.conv2d(x, self.weight * self.unit[:, None, None, None], self.bias * self.unit)


class ScalePredictor(nn.Module):
    """D_s with its mixture head: from z_s (and the coarser feature) to the distribution of z_(s-1)."""

    def __init__(
        self, latent: int, channels: int, num_blocks: int, target: Alphabet, num_mixtures: int, mean_unit: float
    ) -> None:
        super().__init__()
        self.from_latent = conv(latent, channels, 1)
        self.body = residual_body(channels, num_blocks)
        self.up = nn.Sequential(conv(channels, 4 * channels, 3), nn.PixelShuffle(2))
        self.atrous = nn.ModuleList(conv(channels, channels, 3, dilation=dilation) for dilation in (1, 2, 4))
        self.to_parameters = MixtureHead(3 * channels, target, num_mixtures, mean_unit)

    def forward(self, values: Tensor, coarser_feature: Tensor | None) -> Prediction:
        g = self.from_latent(values)
        if coarser_feature is not None:
            g = g + coarser_feature
        feature = self.up(g + self.body(g))
        parameters = self.to_parameters(torch.cat([layer(feature) for layer in self.atrous], dim=1))
        return Prediction(parameters, feature)


class Pyramid(ConfiguredNetwork):
    """What the module, the codec and the sampler need of a network, learned or not.

    Subclasses set ``alphabets`` (scale 0..S) and ``num_mixtures`` and give ``encode`` and ``predict``::

        x --encode--> z_1, ..., z_S          z_S --predict--> p(z_(S-1)), f_S
                                   z_(S-1), f_S --predict--> p(z_(S-2)), f_(S-1)  ...  p(x)
    """

    alphabets: list[Alphabet]
    num_mixtures: int

    @property
    def num_scales(self) -> int:
        return len(self.alphabets) - 1

    @property
    def multiple(self) -> int:
        """Height and width of an input must be multiples of this."""
        return 2**self.num_scales

    def encode(self, x: Tensor) -> list[Latent]:
        """z_1, ..., z_S of images ``x`` [N, 3, H, W] in 0..255 (any dtype)."""
        raise NotImplementedError

    def predict(self, scale: int, values: Tensor, coarser_feature: Tensor | None) -> Prediction:
        """The distribution of scale ``scale - 1`` from the values of scale ``scale`` (1..S)."""
        raise NotImplementedError

    def values(self, scale: int, symbols: Tensor) -> Tensor:
        """Values of integer symbols: the one table that encoder and decoder share."""
        alphabet = self.alphabets[scale]
        return symbols.float() * alphabet.step + alphabet.low

    def forward(self, x: Tensor) -> PyramidOutput:
        """Predict every scale of images ``x`` [N, 3, H, W], uint8 or float in 0..255.

        Targets are not detached: the code length of z_s also trains the encoder that made z_s (section 3.4).

        Raises:
            ValueError: if H or W is not a multiple of 2^S.
        """
        if x.shape[-1] % self.multiple or x.shape[-2] % self.multiple:
            raise ValueError(f"height and width must be multiples of {self.multiple}, got {tuple(x.shape[-2:])}")
        x = x.float()
        latents = self.encode(x)
        targets = [x, *(latent.values for latent in latents[:-1])]
        parameters: list[Tensor] = []
        feature = None
        for scale in range(len(latents), 0, -1):
            prediction = self.predict(scale, latents[scale - 1].values, feature)
            parameters.insert(0, prediction.parameters)
            feature = prediction.feature
        return PyramidOutput(targets, parameters, latents[-1])


@torch.no_grad()
def variance_preserving_(network: nn.Module) -> None:
    """Re-scale PyTorch's initial weights, which shrink the signal by 0.58 per layer, so that latents fill [-1, 1].

    Residual branches start small. All logistics start at the mean colour, so that all learn to follow the image
    (spread over 0..255 they become a histogram first), with scales from 7 to 90, so that every pixel has a gradient.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and not isinstance(module, FixedAffine):
            module.weight *= 3**0.5
            if module.bias is not None and not isinstance(module, MixtureHead):
                module.bias.zero_()
        if isinstance(module, ResidualBlock):
            module.conv2.weight *= 0.3
        if isinstance(module, ScaleEncoder):
            module.to_latent.weight *= 1.5
        if isinstance(module, MixtureHead) and module.is_rgb:
            assert module.bias is not None
            module.weight *= 0.3
            _, means, log_scales, _ = module.bias.view(4, 3, -1)
            means.zero_()
            means[0] = 255 * RGB_MEAN[0] / module.mean_unit
            log_scales.copy_(torch.linspace(2.0, 4.5, log_scales.shape[1]))


class L3CNet(Pyramid):
    """The learned pyramid; 5,008,395 parameters with the paper's values (24 of them frozen).

    Args:
        channels: feature width F.
        num_blocks: residual blocks in each encoder and predictor.
        num_scales: learned scales S.
        latent_channels: channels C of each z.
        num_levels: levels L of each z, on [-1, 1].
        num_mixtures: logistics K per sub-pixel.
        sigma: inverse temperature of the soft quantiser.
        mean_unit: unit of the predicted RGB means; 1 in the paper.
        fast_start: start from ``variance_preserving_`` weights instead of PyTorch's. Not in the paper: with
            ``mean_unit`` about 64 it saves the first thousands of steps, which matter to short trainings.
    """

    def __init__(
        self,
        channels: int = 64,
        num_blocks: int = 8,
        num_scales: int = 3,
        latent_channels: int = 5,
        num_levels: int = 25,
        num_mixtures: int = 10,
        sigma: float = 2.0,
        mean_unit: float = 1.0,
        fast_start: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, channels=channels, num_scales=num_scales, latent_channels=latent_channels)
        at_least(1, num_mixtures=num_mixtures)
        at_least(0, num_blocks=num_blocks)
        at_least(2, num_levels=num_levels)
        above(0, mean_unit=mean_unit)
        z = Alphabet(latent_channels, num_levels, -1.0, 2.0 / (num_levels - 1), is_rgb=False)
        self.alphabets = [RGB] + [z] * num_scales
        self.num_mixtures = num_mixtures
        self.subtract_mean = FixedAffine(tuple(-255.0 * m for m in RGB_MEAN))
        self.rescale = FixedAffine((0.0, 0.0, 0.0), divisor=128.0)
        self.quantizer = SoftHardQuantizer(num_levels, sigma=sigma)
        self.encoders = nn.ModuleList(
            ScaleEncoder(3 if s == 0 else channels, channels, num_blocks, self.quantizer, latent_channels)
            for s in range(num_scales)
        )
        self.predictors = nn.ModuleList(
            ScalePredictor(latent_channels, channels, num_blocks, self.alphabets[s], num_mixtures, mean_unit)
            for s in range(num_scales)
        )
        if fast_start:
            variance_preserving_(self)

    def encode(self, x: Tensor) -> list[Latent]:
        feature = self.rescale(self.subtract_mean(x.float()))
        latents = []
        for encoder in self.encoders:
            feature, latent = encoder(feature)
            latents.append(latent)
        return latents

    def predict(self, scale: int, values: Tensor, coarser_feature: Tensor | None) -> Prediction:
        return self.predictors[scale - 1](values, coarser_feature)

    def values(self, scale: int, symbols: Tensor) -> Tensor:
        return super().values(0, symbols) if scale == 0 else self.quantizer.levels[symbols]


class BicubicPyramid(Pyramid):
    """The RGB baselines: coarser scales are the image itself, halved by a bicubic filter and rounded (section 4).

    ``RGBNet`` has one predictor per scale (2,729,076 parameters), ``RGBSharedNet`` one for all (909,700). Features
    pass from coarse to fine only between different predictors. Predictors see values minus the mean, about -128..128.
    """

    def __init__(self, channels: int, num_blocks: int, num_mixtures: int, num_scales: int, shared: bool) -> None:
        super().__init__()
        at_least(1, channels=channels, num_scales=num_scales, num_mixtures=num_mixtures)
        at_least(0, num_blocks=num_blocks)
        self.alphabets = [RGB] * (num_scales + 1)
        self.num_mixtures = num_mixtures
        self.shared = shared
        self.subtract_mean = FixedAffine(tuple(-255.0 * m for m in RGB_MEAN))
        self.predictors = nn.ModuleList(
            ScalePredictor(3, channels, num_blocks, RGB, num_mixtures, mean_unit=1.0)
            for _ in range(1 if shared else num_scales)
        )

    def encode(self, x: Tensor) -> list[Latent]:
        return [Latent(values, values.long()) for values in halvings(x, self.num_scales)]

    def predict(self, scale: int, values: Tensor, coarser_feature: Tensor | None) -> Prediction:
        predictor = self.predictors[0 if self.shared else scale - 1]
        return predictor(self.subtract_mean(values), None if self.shared else coarser_feature)


class RGBNet(BicubicPyramid):
    """A different predictor for each of ``num_scales`` scales."""

    def __init__(self, channels: int = 64, num_blocks: int = 8, num_scales: int = 3, num_mixtures: int = 10) -> None:
        super().__init__(channels, num_blocks, num_mixtures, num_scales, shared=False)


class RGBSharedNet(BicubicPyramid):
    """One predictor, trained on one scale (x from its half) and applied ``num_scales`` times at test."""

    def __init__(self, channels: int = 64, num_blocks: int = 8, num_scales: int = 4, num_mixtures: int = 10) -> None:
        super().__init__(channels, num_blocks, num_mixtures, num_scales, shared=True)

    def encode(self, x: Tensor) -> list[Latent]:
        return super().encode(x)[:1] if self.training else super().encode(x)


def halvings(x: Tensor, count: int) -> list[Tensor]:
    """Bicubic (antialiased, as PIL's) halvings of images in 0..255, rounded to integers each time; no gradient."""
    halved = []
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        x = x.float()
        for _ in range(count):
            size = (x.shape[-2] // 2, x.shape[-1] // 2)
            x = functional.interpolate(x, size, mode="bicubic", antialias=True).round().clamp(0, 255)
            halved.append(x)
    return halved
