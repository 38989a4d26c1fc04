"""The networks of extreme compression (Agustsson et al., ICCV 2019): encoders, generator, patch discriminator.

Letters: N batch, H and W image size (multiples of 16), C code channels, K label channels, h and w code size.
Layer strings as in the paper: c7s1-k, dk, c3s1-k, Rk, uk (Johnson et al.; NVIDIA's pix2pixHD). Images are in [-1, 1].

    GC   x --encoder--> q --> w_hat [C, H/16, W/16] --generator--> x_hat
    SC   x --encoder--> q --> w_hat [C, H/8, W/8] * keep --code_features--┐
         labels, edges ------------label_encoder--------------------------┴-> generator --> x_hat
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.components.configured import ConfiguredNetwork
from modules.components.options import at_least
from modules.components.quantizers import Quantized, SoftHardQuantizer
from modules.extreme_gan.contexts import NUM_CONTEXTS, NUM_SYMBOLS, symbol_frequencies

MULTIPLE = 16
"""Height and width of an image must be multiples of this."""
NORM_EPSILON = 1e-5
RUNNING_MOMENTUM = 0.01
PRIOR_MOMENTUM = 0.01


class Reconstruction(NamedTuple):
    image: Tensor
    """[N, 3, H, W] in [-1, 1]."""
    symbols: Tensor
    """[N, C, h, w] int64 in 0..4; 2 stands for zero, also where nothing is kept."""


class Judgement(NamedTuple):
    """What one scale of the discriminator makes of an image."""

    features: list[Tensor]
    """Outputs of all layers but the last."""
    scores: Tensor
    """[N, 1, h, w]: about 1 for patches that look real, 0 otherwise."""


class FreezableInstanceNorm(nn.Module):
    """Instance normalisation without affine parameters whose statistics can be frozen.

    While it is not frozen it normalises by the instance, in training and in evaluation alike, and training averages
    the statistics; once frozen it normalises by these averages (the paper freezes the second half of a training on
    Open Images, to reduce artefacts and colour shifts).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.frozen = False
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        if self.frozen:
            return functional.batch_norm(x, self.running_mean, self.running_var, eps=NORM_EPSILON)
        averages = (self.running_mean, self.running_var) if self.training else (None, None)
        return instance_norm(x, *averages)


def instance_norm(x: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None) -> Tensor:
    """Without affine parameters; the averages, if given, follow the statistics.

    One image is a batch whose statistics are the instance's: that kernel keeps channels_last, the other copies.
    """
    if len(x) == 1:
        return functional.batch_norm(x, running_mean, running_var, None, None, True, RUNNING_MOMENTUM, NORM_EPSILON)
    return functional.instance_norm(x, running_mean, running_var, momentum=RUNNING_MOMENTUM, eps=NORM_EPSILON)


class InstanceNorm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x)


def conv(inputs: int, outputs: int, kernel: int, norm: bool = True) -> list[nn.Module]:
    """c7s1-k or c3s1-k; without ``norm`` only the padded convolution."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")
    return [layer, InstanceNorm(), nn.ReLU(inplace=True)] if norm else [layer]


def down(inputs: int, outputs: int) -> list[nn.Module]:
    """dk."""
    return [nn.Conv2d(inputs, outputs, 3, 2, 1), InstanceNorm(), nn.ReLU(inplace=True)]


def up(inputs: int, outputs: int, norm: nn.Module) -> list[nn.Module]:
    """uk."""
    return [nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1), norm, nn.ReLU(inplace=True)]


def pyramid(inputs: int, width: int, halvings: int) -> list[nn.Module]:
    """c7s1-width, d(2 width), d(4 width), ..."""
    layers = conv(inputs, width, 7)
    for i in range(halvings):
        layers += down(width << i, width << (i + 1))
    return layers


def to_code(inputs: int, code_channels: int) -> list[nn.Module]:
    """The layer before the quantiser, without norm and ReLU: with them two of the five levels would be unreachable."""
    return conv(inputs, code_channels, 3, norm=False)


@torch.no_grad()
def initialise_(network: nn.Module) -> None:
    """Convolution weights from N(0, 0.02), as pix2pixHD does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)


class ResidualBlock(nn.Module):
    """conv, IN, ReLU, conv, IN, + input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *conv(channels, channels, 3, norm=False),
            FreezableInstanceNorm(channels),
            nn.ReLU(inplace=True),
            *conv(channels, channels, 3, norm=False),
            FreezableInstanceNorm(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Generator(nn.Sequential):
    """c3s1-960, 9 x R960, u480, u240, u120, u60, c7s1-3, tanh: [N, inputs, h, w] -> [N, 3, 16 h, 16 w]."""

    def __init__(self, inputs: int, width: int, num_blocks: int) -> None:
        widest = 16 * width
        layers = [*conv(inputs, widest, 3, norm=False), FreezableInstanceNorm(widest), nn.ReLU(inplace=True)]
        layers += [ResidualBlock(widest) for _ in range(num_blocks)]
        for i in range(4, 0, -1):
            layers += up(width << i, width << (i - 1), FreezableInstanceNorm(width << (i - 1)))
        super().__init__(*layers, *conv(width, 3, 7, norm=False), nn.Tanh())


class CompressionNet(ConfiguredNetwork):
    """What the module and the codec need of a network.

    Subclasses set ``stride`` (pixels a code cell is wide), ``code_channels``, ``num_labels`` (0 if the decoder takes
    no labels), ``encoder`` and ``generator``, and give ``decode``.

    ``prior`` [C, 36, 5] averages the frequencies of symbols in their contexts; the codec starts from it.
    ``norm_is_frozen`` is 1 when the generator's normalisation is; ``freeze_norm`` sets it.
    """

    stride: int
    num_labels: int = 0
    encoder: nn.Sequential
    generator: Generator
    norm_is_frozen: Tensor
    prior: Tensor

    def __init__(self, code_channels: int, noise_channels: int, sigma: float) -> None:
        super().__init__()
        at_least(1, code_channels=code_channels)
        at_least(0, noise_channels=noise_channels)
        self.code_channels, self.noise_channels = code_channels, noise_channels
        self.quantizer = SoftHardQuantizer(NUM_SYMBOLS, -2.0, 2.0, sigma)
        self.register_buffer("norm_is_frozen", torch.zeros(()))
        self.register_buffer("prior", torch.zeros(code_channels, NUM_CONTEXTS, NUM_SYMBOLS))
        self.register_load_state_dict_post_hook(lambda module, _: module._set_norms(bool(module.norm_is_frozen)))

    def freeze_norm(self) -> None:
        """From now on the generator normalises by the averages of its statistics."""
        self.norm_is_frozen.fill_(1.0)
        self._set_norms(True)

    def _set_norms(self, frozen: bool) -> None:
        for module in self.generator.modules():
            if isinstance(module, FreezableInstanceNorm):
                module.frozen = frozen

    def update_prior(self, symbols: Tensor, keep: Tensor | None = None) -> None:
        """Let the prior follow the symbols [N, C, h, w] of a training batch."""
        self.prior.lerp_(symbol_frequencies(symbols, keep), PRIOR_MOMENTUM)

    def encode(self, x: Tensor) -> Quantized:
        """Values in -2..2 and symbols, [N, C, h, w], of images [N, 3, H, W].

        Raises:
            ValueError: if H or W is not a multiple of 16.
        """
        if x.shape[-1] % MULTIPLE or x.shape[-2] % MULTIPLE:
            raise ValueError(f"height and width must be multiples of {MULTIPLE}, got {tuple(x.shape[-2:])}")
        return self.quantizer(self.encoder(x).float())

    def decode(self, values: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        """Images [N, 3, H, W] from values [N, C, h, w], labels [N, K, H, W] and noise [N, V, H/16, W/16]."""
        raise NotImplementedError

    def noise(
        self, images: int, height: int, width: int, seed: int, device: torch.device | str = "cpu"
    ) -> Tensor | None:
        """Gaussian v [N, V, height/16, width/16] for images of that size; None without the noise option.

        Drawn on the device, whose numbers are its own: a decoder draws on the CPU, the same everywhere.
        """
        if not self.noise_channels:
            return None
        shape = images, self.noise_channels, height // MULTIPLE, width // MULTIPLE
        return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)

    def forward(
        self, x: Tensor, keep: Tensor | None = None, labels: Tensor | None = None, noise: Tensor | None = None
    ) -> Reconstruction:
        """Encode and decode; ``keep`` [N, 1, h, w] in {0, 1} says which cells of the code are sent."""
        values, symbols = self.encode(x)
        if keep is not None:
            values = values * keep
            symbols = torch.where(keep.bool(), symbols, NUM_SYMBOLS // 2)
        return Reconstruction(self.decode(values, labels, noise).float(), symbols)


class GCNet(CompressionNet):
    """Generative compression: the whole image is coded; 5.6 M and 154.9 M parameters as in the paper with C=8.

    Args:
        code_channels: C; the rate is at most C log2(5) / 256 bits per pixel.
        width: channels of the outermost layers, 60 in the paper; the innermost have 16 times as many.
        num_blocks: residual blocks of the generator.
        noise_channels: of the noise v beside the code; 0 in the published models.
        sigma: inverse temperature of the quantiser's gradient.
    """

    stride = 16

    def __init__(
        self,
        code_channels: int = 8,
        width: int = 60,
        num_blocks: int = 9,
        noise_channels: int = 0,
        sigma: float = 1.0,
    ) -> None:
        super().__init__(code_channels, noise_channels, sigma)
        at_least(1, width=width)
        at_least(0, num_blocks=num_blocks)
        self.encoder = nn.Sequential(*pyramid(3, width, 4), *to_code(16 * width, code_channels))
        self.generator = Generator(code_channels + noise_channels, width, num_blocks)
        initialise_(self)

    def decode(self, values: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        return self.generator(values if noise is None else torch.cat([values, noise.to(values)], 1))


class SCNet(CompressionNet):
    """Selective compression: kept regions are coded at H/8, the others are synthesised from labels.

    Args:
        num_labels: label ids; labels are one-hot with one channel more for instance edges.
        Others as for ``GCNet``; the rate of what is kept is at most C log2(5) / 64 bits per pixel.
    """

    stride = 8

    def __init__(
        self,
        code_channels: int = 8,
        num_labels: int = 34,
        width: int = 60,
        num_blocks: int = 9,
        noise_channels: int = 0,
        sigma: float = 1.0,
    ) -> None:
        super().__init__(code_channels, noise_channels, sigma)
        at_least(1, num_labels=num_labels, width=width)
        at_least(0, num_blocks=num_blocks)
        self.num_labels = num_labels
        self.encoder = nn.Sequential(*pyramid(3, width, 3), *to_code(8 * width, code_channels))
        self.code_features = nn.Sequential(*conv(code_channels, 8 * width, 3), *down(8 * width, 16 * width))
        self.label_encoder = nn.Sequential(*pyramid(num_labels + 1, width, 4))
        self.generator = Generator(32 * width + noise_channels, width, num_blocks)
        initialise_(self)

    def decode(self, values: Tensor, labels: Tensor | None = None, noise: Tensor | None = None) -> Tensor:
        assert labels is not None, "selective compression decodes with labels"
        parts = [self.code_features(values), self.label_encoder(labels)]
        return self.generator(torch.cat(parts if noise is None else [*parts, noise.to(parts[0])], 1))


class PatchDiscriminator(nn.Module):
    """Five 4x4 convolutions, strides 2, 2, 2, 1, 1, padding 2, as in pix2pixHD."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()

        def layer(inputs: int, outputs: int, stride: int, norm: bool = True) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 4, stride, 2), *([InstanceNorm()] if norm else []), nn.LeakyReLU(0.2)
            )

        self.layers = nn.ModuleList(
            [
                layer(inputs, width, 2, norm=False),
                layer(width, 2 * width, 2),
                layer(2 * width, 4 * width, 2),
                layer(4 * width, 8 * width, 1),
                nn.Conv2d(8 * width, 1, 4, 1, 2),
            ]
        )

    def forward(self, x: Tensor) -> Judgement:
        outputs = []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x.float())
        return Judgement(outputs[:-1], outputs[-1])


class MultiscaleDiscriminator(nn.Module):
    """Patch discriminators with weights of their own on x, x/2, x/4.

    Args:
        num_labels: label ids it sees beside the image, with one channel more for instance edges (GC(D+) and SC); 0
            for images only.
        num_scales: 2 or 3 in pix2pixHD.
        width: channels of the first layer.
    """

    def __init__(self, num_labels: int = 0, num_scales: int = 3, width: int = 64) -> None:
        super().__init__()
        at_least(1, num_scales=num_scales, width=width)
        at_least(0, num_labels=num_labels)
        self.num_labels = num_labels
        inputs = 3 + (num_labels + 1 if num_labels else 0)
        self.scales = nn.ModuleList(PatchDiscriminator(inputs, width) for _ in range(num_scales))
        initialise_(self)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> list[Judgement]:
        """Judgements, fine to coarse, of images [N, 3, H, W] under labels [N, K + 1, H, W]."""
        if self.num_labels:
            assert labels is not None, "this discriminator judges images under labels"
            x = torch.cat([x, labels.to(x)], 1)
        judgements = []
        for scale in self.scales:
            judgements.append(scale(x))
            x = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return judgements
