"""The networks of CPM (Mentzer et al., CVPR 2018): auto-encoder with importance map, quantiser, 3D context model.

Letters: N batch, H and W image size, h = H/8, w = W/8, K code channels, L centres, F features of the context model.

    x --encoder--> y [1, h, w] --> importance map m [K, h, w] in 0..1
                   z [K, h, w] --> * m --> quantiser --> z_hat [K, h, w], symbols 0..L-1 --decoder--> x_hat
                                                           '--> context model --> P(symbol | earlier symbols)

Symbols are in the order channel, row, column. The mask is not transmitted: where it is 0 the symbol is that of the
centre nearest to 0, which the context model learns to expect. Sources: the paper and the authors' code (imgcomp-cvpr).
"""

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.components.autoencoder import STRIDE, Decoder, Encoder, GroupedBody
from modules.components.configured import ConfiguredNetwork
from modules.components.options import at_least, within
from modules.components.quantizers import LearnedQuantizer

REACH = 4
"""A symbol is predicted from those up to four channels, rows and columns away."""
ImportanceMap = Literal["soft", "ceil", "none"]


class Code(NamedTuple):
    """What the encoder makes of images; all [N, K, h, w]."""

    values: Tensor
    """z_hat, with the gradient of the soft assignment."""
    symbols: Tensor
    """int64 in 0..L-1."""
    mask: Tensor
    """m, 1 everywhere without a map."""


class Coded(NamedTuple):
    code: Code
    logits: Tensor
    """[N, L, K, h, w], of the context model; no gradient flows from them into the encoder."""
    x_hat: Tensor
    """[N, 3, H, W], about 0..255, neither clipped nor rounded."""


def importance_mask(y: Tensor, channels: int, ceil: bool) -> Tensor:
    """Mask [N, K, h, w] of logits [N, 1, h, w]: clip(K sigmoid(y) - k, 0, 1) for channel k = 0..K-1.

    Args:
        ceil: round up, with the gradient of the identity (the paper); the authors' code leaves the one fraction.
    """
    k = torch.arange(channels, device=y.device, dtype=y.dtype).view(1, -1, 1, 1)
    mask = (channels * torch.sigmoid(y) - k).clamp(0, 1)
    return mask + (mask.ceil() - mask).detach() if ceil else mask


class CausalConv3d(nn.Module):
    """A 2x3x3 convolution over (channel, row, column) that sees what comes before a position, without padding.

    The first plane is the channel before: nine taps. The second is the channel at hand: the row above, the place to
    the left and, for ``centre``, the place itself. The other weights exist, as in the authors' code, and are masked.
    """

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, centre: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(outputs, inputs, 2, 3, 3)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        mask = torch.ones(2, 3, 3)
        mask[1, 2] = 0
        mask[1, 1, 1 + centre :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def masked_weight(self) -> Tensor:
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, D + 1, h + 2, w + 2] -> [N, outputs, D, h, w]."""
        return functional.conv3d(x, self.masked_weight(), self.bias)


class ContextModel(nn.Module):
    """P(symbol | the symbols before it), four causal convolutions with a skip around the second and third.

    Outside of the volume (in front of the first channel, and around each) all values are those of symbol 0.

    Args:
        num_symbols: L.
        features: F, 24 in the paper.
        relu_logits: the authors' code has a ReLU on the logits, almost surely unintended.
    """

    def __init__(self, num_symbols: int = 6, features: int = 24, relu_logits: bool = False) -> None:
        super().__init__()
        self.first = CausalConv3d(1, features, centre=False)
        self.second = CausalConv3d(features, features, centre=True)
        self.third = CausalConv3d(features, features, centre=True)
        self.last = CausalConv3d(features, num_symbols, centre=True)
        self.relu_logits = relu_logits

    def forward(self, values: Tensor, outside: Tensor) -> Tensor:
        """Logits [N, L, K, h, w] of values [N, K, h, w]; ``outside`` is the value of symbol 0, a tensor of one."""
        number, channels, height, width = values.shape
        shape = number, 1, channels + REACH, height + 2 * REACH, width + 2 * REACH
        x = outside.to(values.dtype).expand(shape).clone()
        x[:, 0, REACH:, REACH:-REACH, REACH:-REACH] = values
        x = functional.relu(self.first(x))
        x = x[:, :, 2:, 2:-2, 2:-2] + self.third(functional.relu(self.second(x)))
        logits = self.last(x)
        return functional.relu(logits) if self.relu_logits else logits


class CPMNet(ConfiguredNetwork):
    """One rate point: encoder, importance map, quantiser, context model, decoder.

    Args:
        channels: K; 32 for the paper's low and medium rates, 64 for the high one.
        width, groups, units: of the auto-encoder, see ``GroupedBody``.
        num_centers: L.
        features, relu_logits: of the context model.
        centers: how the centres begin, ``random`` in -2..2 (the authors' code) or ``even``ly spaced there.
        importance_map: ``soft`` multiplies by the mask as it is (the authors' code), ``ceil`` rounds it up (the
            paper), ``none`` codes all channels everywhere.

    Raises:
        ValueError: for sizes below 1, fewer than two centres or more than 256, an unknown map or beginning.
    """

    def __init__(
        self,
        channels: int = 32,
        width: int = 128,
        groups: int = 5,
        units: int = 3,
        num_centers: int = 6,
        features: int = 24,
        centers: Literal["random", "even"] = "random",
        importance_map: ImportanceMap = "soft",
        relu_logits: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, channels=channels, groups=groups, units=units, features=features)
        at_least(2, width=width)
        within(2, 256, num_centers=num_centers)
        if importance_map not in ("soft", "ceil", "none"):
            raise ValueError(f"importance_map must be soft, ceil or none, got {importance_map!r}")
        if centers not in ("random", "even"):
            raise ValueError(f"centers must be random or even, got {centers!r}")
        body = partial(GroupedBody, groups=groups, units=units)
        self.channels, self.importance_map = channels, importance_map
        self.reach = reach(2 * (groups * units + 1))
        self.encoder = Encoder(channels + (importance_map != "none"), width, body)
        self.decoder = Decoder(channels, width, body)
        self.quantizer = LearnedQuantizer(num_centers)
        if centers == "even":
            with torch.no_grad():
                self.quantizer.levels.copy_(torch.linspace(-2, 2, num_centers))
        self.context = ContextModel(num_centers, features, relu_logits)
        for part in (self.encoder, self.decoder):
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.xavier_uniform_(module.weight)
            part.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, x: Tensor) -> Code:
        """The code of images [N, 3, H, W] in 0..255, H and W multiples of 8."""
        return self.quantize(self.encoder(x))

    def quantize(self, out: Tensor) -> Code:
        """The code of the encoder's output [N, K + 1 (the map's logits first), h, w]."""
        out = out.float()
        if self.importance_map == "none":
            z, mask = out, torch.ones_like(out)
        else:
            mask = importance_mask(out[:, :1], self.channels, self.importance_map == "ceil")
            z = mask * out[:, 1:]
        values, symbols = self.quantizer(z)
        return Code(values, symbols, mask)

    def context_logits(self, values: Tensor) -> Tensor:
        """Logits [N, L, K, h, w] of z_hat [N, K, h, w], from which nothing flows back into it or the centres."""
        return self.context(values.detach(), self.quantizer.levels[:1].detach())

    def forward(self, x: Tensor) -> Coded:
        """Images [N, 3, H, W] in 0..255 of any size: they are repeated beyond their borders to multiples of 8."""
        height, width = x.shape[-2:]
        code = self.encode(pad_to_stride(x))
        x_hat = self.decoder(code.values)[..., :height, :width]
        return Coded(code, self.context_logits(code.values), x_hat)


def take_common_weights(network: CPMNet, other: CPMNet) -> None:
    """Begin ``network`` with the weights of one that may have other code channels: both have the first ones in common.

    Raises:
        ValueError: if anything but the number of channels differs.
    """
    ours, theirs = network.init_args, other.init_args
    if unlike := [name for name in ours if name != "channels" and ours[name] != theirs[name]]:
        said = ", ".join(f"{name} {theirs[name]}, not {ours[name]}" for name in unlike)
        raise ValueError(f"only the channels may differ from the network to begin with, which has {said}")
    found = other.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            common = tuple(slice(min(sizes)) for sizes in zip(value.shape, found[name].shape, strict=True))
            value[common] = found[name][common]


def reach(convolutions: int) -> int:
    """Code cells, at most, between a cell and a pixel that depend on each other; so many 3x3 layers are in a body.

    In pixels: 2 and 4 for the outer strided layers of the encoder (as many for the decoder's), 4 for each 3x3 layer, 8
    for the layer at the code.
    """
    return -(-(2 + 4 + 4 * convolutions + 8) // STRIDE) + 1


def pad_to_stride(x: Tensor) -> Tensor:
    """[N, C, H, W] with the last rows and columns repeated up to multiples of 8."""
    height, width = x.shape[-2:]
    return functional.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
