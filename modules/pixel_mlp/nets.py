"""A small causal network for every pixel, exact in whole numbers.

For each of green, red and blue::

    differences [F] -> compressed, with the log activity -> linear -> clipped ReLU -> linear -> clipped ReLU -> linear
                 \\-> linear ---------------------------------> mean of all mixtures            logits, means, scales

What comes out is a mixture of logistics whose means are relative to the nearest neighbours and to the activity around
the pixel, and whose scales are relative to the activity (log). Nothing else is learned: no convolution, no memory of
the image further away than ``context.REACH`` pixels.

Two arithmetics. The trainable one is in real numbers and any precision. The exact one rounds weights to multiples of
a power of two and activations to whole numbers, so that every product and every sum is a whole number below 2^24,
which float32 holds exactly: any order of summation, any thread count, batch, instruction set or device gives the same
numbers. ``check_bounds`` refuses weights for which that does not hold. Rounding after the training costs 0.02 % of
the file, so nothing is trained in whole numbers.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.components.configured import ConfiguredNetwork
from modules.components.exact import check_sums, rounded
from modules.components.options import at_least, within
from modules.pixel_mlp.context import COMPRESSED, LIMIT, LOG_ACTIVITY, NUM_DIFFERENCES, SCALE_STEPS, Context, looked_up

INPUT_BITS = 5
"""Inputs are whole numbers in units of 2^-5."""
ACTIVATION_BITS = 6
MAX_ACTIVATION = 511
"""Hidden activations are whole numbers 0..511 in units of 2^-6: the ReLU is clipped at 8."""
FIRST_WEIGHT_BITS, WEIGHT_BITS, SKIP_BITS = 10, 8, 12
"""Weights are multiples of 2^-10 in the first layer, of 2^-8 in the others, of 2^-12 in the linear skip."""
MEAN_STEPS = 256
"""Means are multiples of 1/256 of a grey level."""
OFFSET_STEPS = 64
MIN_LOG_SCALE, MAX_LOG_SCALE = -3.5, 6.0


class Mixture(NamedTuple):
    """K logistics for each of M pixels, each [K, M]: logits, means in grey levels, natural logarithms of scales."""

    logits: Tensor
    means: Tensor
    log_scales: Tensor


def whole_sums(
    layers: list[tuple[Tensor, Tensor]], skip: Tensor, x: Tensor, differences: Tensor
) -> tuple[Tensor, Tensor]:
    """The exact arithmetic of one channel up to its last sums, on any device.

    Args:
        layers, skip: ``ChannelPredictor.integer_layers`` and ``integer_skip``.
        x, differences: inputs [M, F + 1] and differences [M, F] of a ``Context``.

    Returns:
        whole numbers [M, 3 K] in units of 2^-14 and [M] in units of 2^-12.
    """
    *hidden, last = layers
    shift = INPUT_BITS + FIRST_WEIGHT_BITS
    for weight, bias in hidden:
        x = functional.linear(x, weight, bias) * 2.0 ** (ACTIVATION_BITS - shift)
        x = rounded(x).clamp(0, MAX_ACTIVATION)
        shift = ACTIVATION_BITS + WEIGHT_BITS
    return functional.linear(x, *last), differences @ skip


class ChannelPredictor(nn.Module):
    """The mixture of one channel.

    Args:
        hidden: units of each hidden layer.
        num_layers: hidden layers.
        num_mixtures: logistics, K.
    """

    log_activity: Tensor

    def __init__(self, hidden: int, num_layers: int, num_mixtures: int) -> None:
        super().__init__()
        sizes = [NUM_DIFFERENCES + 1, *[hidden] * num_layers, 3 * num_mixtures]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.skip = nn.Parameter(torch.zeros(NUM_DIFFERENCES))
        self.num_mixtures = num_mixtures
        self.register_buffer("log_activity", torch.from_numpy(LOG_ACTIVITY), persistent=False)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, std=0.01)
        with torch.no_grad():  # spread over the activity, narrower than it
            spread = torch.linspace(-0.5, 0.5, num_mixtures) if num_mixtures > 1 else torch.zeros(1)
            last.bias.copy_(torch.cat((torch.zeros(num_mixtures), spread, torch.full((num_mixtures,), -1.0))))

    def forward(self, context: Context, exact: bool) -> Mixture:
        """The mixtures [K, M] of the pixels of ``context``, with ``exact`` in whole numbers."""
        log_activity = looked_up(self.log_activity, context.activity)
        raw, skip = (self._exact if exact else self._real)(context.inputs, context.differences)
        logits, offsets, log_scales = raw.T.contiguous().split(self.num_mixtures)
        means = context.base + skip + (context.activity + 4) / 8 * offsets
        log_scales = log_activity / SCALE_STEPS + log_scales
        if exact:
            means = rounded(means * MEAN_STEPS - 0.5) / MEAN_STEPS  # the shift by one bit rounds down
        return Mixture(logits, means, log_scales.clamp(MIN_LOG_SCALE, MAX_LOG_SCALE))

    def _real(self, x: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
        unit = 2.0**-INPUT_BITS  # on the first weights, which are fewer numbers than the inputs
        for layer in self.layers[:-1]:
            assert isinstance(layer, nn.Linear)
            x = functional.linear(x, layer.weight * unit, layer.bias)
            x, unit = functional.hardtanh(x, 0.0, MAX_ACTIVATION * 2.0**-ACTIVATION_BITS), 1.0
        with torch.autocast(x.device.type, enabled=False):
            skip = differences @ self.skip
        return self.layers[-1](x).float(), skip

    def _exact(self, x: Tensor, differences: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            raw, skip = whole_sums(self.integer_layers(), self.integer_skip(), x, differences)
            logits, offsets, log_scales = (raw * 2.0 ** -(ACTIVATION_BITS + WEIGHT_BITS)).split(
                self.num_mixtures, dim=1
            )
            raw = torch.cat(
                (
                    rounded(logits * SCALE_STEPS) / SCALE_STEPS,
                    rounded(offsets * OFFSET_STEPS) / OFFSET_STEPS,
                    rounded(log_scales * SCALE_STEPS) / SCALE_STEPS,
                ),
                dim=1,
            )
            return raw, rounded(skip * (MEAN_STEPS * 2.0**-SKIP_BITS)) / MEAN_STEPS

    def integer_skip(self) -> Tensor:
        """Weights of the linear skip, whole numbers in units of 2^-12."""
        return rounded(self.skip * 2.0**SKIP_BITS)

    def integer_layers(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases of the layers as whole numbers; a bias is in units of the sum that it is added to."""
        result = []
        in_bits, weight_bits = INPUT_BITS, FIRST_WEIGHT_BITS
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            wide = torch.promote_types(layer.weight.dtype, torch.float32)
            weight = rounded(layer.weight.to(wide) * 2.0**weight_bits)
            result.append((weight, rounded(layer.bias.to(wide) * 2.0 ** (weight_bits + in_bits))))
            in_bits, weight_bits = ACTIVATION_BITS, WEIGHT_BITS
        return result

    def check_bounds(self) -> None:
        """See that no sum can leave the whole numbers of float32, whatever the pixels are.

        Raises:
            InexactWeightsError: naming the layer and its largest possible sum.
        """
        largest = float(max(abs(COMPRESSED).max(), (abs(LOG_ACTIVITY) / 2).max()))
        skip = self.integer_skip().abs().sum() * LIMIT
        sums = [("the linear skip", float(skip.detach()))]
        for number, (weight, bias) in enumerate(self.integer_layers(), 1):
            worst = weight.detach().double().abs().sum(1) * largest + bias.detach().double().abs()
            sums.append((f"layer {number}", float(worst.max())))
            largest = float(MAX_ACTIVATION)
        check_sums(sums)


class PixelMLP(ConfiguredNetwork):
    """Mixtures of logistics for the three channels of every pixel.

    Args:
        hidden: units of each hidden layer.
        num_layers: hidden layers.
        num_mixtures: logistics for each channel.

    Raises:
        ValueError: for sizes below 1 or more than 32 mixtures.
    """

    def __init__(self, hidden: int = 128, num_layers: int = 2, num_mixtures: int = 4) -> None:
        super().__init__()
        at_least(1, hidden=hidden, num_layers=num_layers)
        within(1, 32, num_mixtures=num_mixtures)
        self.channels = nn.ModuleList(ChannelPredictor(hidden, num_layers, num_mixtures) for _ in range(3))

    def forward(self, contexts: list[Context], exact: bool = True) -> list[Mixture]:
        """Mixtures of green, red and blue; ``exact`` computes in whole numbers, as the codec does."""
        return [predictor(context, exact) for predictor, context in zip(self.channels, contexts, strict=True)]

    def check_bounds(self) -> None:
        """Raises InexactWeightsError unless the exact arithmetic is exact with these weights."""
        for predictor in self.channels:
            predictor.check_bounds()  # type: ignore[operator]
