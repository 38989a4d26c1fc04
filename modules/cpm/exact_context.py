"""The context model in whole numbers, for all symbols of an image in one parallel pass.

Letters as in nets.py. The float model stays what is trained; here its weights are rounded to multiples of a power of
two, as fine as components/exact.py can prove exact, the centres to multiples of 2^-6, and activations to multiples of
2^-5 of at most 64. The logits come out in units of 1/32, and a table turns them into intervals of 2^16. So encoder (one
pass, here) and decoder (symbol by symbol, incremental.py) find the same intervals on any machine. How many bits the
rounding costs says the README.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from modules.components.coding.logistic_mixture import WEIGHT
from modules.components.coding.rans import TOTAL
from modules.components.exact import InexactWeightsError, IntegerLayer, integer_layer, rounded
from modules.components.kernels import kernel
from modules.cpm.nets import REACH, CPMNet

CENTER_BITS, ACTIVATION_BITS = 6, 5
LARGEST = 2047
"""Centres and activations are whole numbers of at most this size: 32 and 64."""
LOGIT_BITS = 5
VALUES_AT_ONCE = 1 << 24
"""Activations of a layer that a pass holds at most, or those of one channel."""


class ExactContext(NamedTuple):
    centers: Tensor
    """[L] whole numbers in float32; outside of the volume all is the first."""
    first: IntegerLayer
    second: IntegerLayer
    third: IntegerLayer
    last: IntegerLayer
    relu_logits: bool

    @classmethod
    def of(cls, network: CPMNet) -> "ExactContext":
        """Raises InexactWeightsError for weights that cannot be made exact, or centres that are not numbers."""
        context = network.context
        centers = rounded(network.quantizer.levels.detach().cpu().double() * 2.0**CENTER_BITS)
        if not bool((centers.abs() <= LARGEST).all()):
            raise InexactWeightsError(f"centres must be numbers of at most {LARGEST >> CENTER_BITS}")
        second, third, last = (
            integer_layer(
                f"the context model's {name} layer",
                getattr(context, name).masked_weight(),
                getattr(context, name).bias,
                ACTIVATION_BITS,
                LARGEST,
                skip=LARGEST if name == "third" else 0.0,
            )
            for name in ("second", "third", "last")
        )
        largest = float(centers.abs().max())
        weight, bias = context.first.masked_weight(), context.first.bias
        first = integer_layer("the context model's first layer", weight, bias, CENTER_BITS, largest)
        return cls(centers.float(), first, second, third, last, context.relu_logits)


def scaled(sums: Tensor, bits: int, low: float, high: float) -> Tensor:
    """Sums in units of 2^-bits of what they become, rounded and clipped."""
    return rounded(sums * 2.0**-bits).clamp(low, high)


@torch.no_grad()
def logits(context: ExactContext, values: Tensor) -> Tensor:
    """Whole numbers [D, h, w, L], in 1/32, of values [D + 4, h + 8, w + 8] (centres, in whole numbers)."""
    with torch.autocast("cpu", enabled=False):
        x = values[None, None]
        _, first, second, third, last, _ = context
        a = functional.conv3d(x, first.weight, first.bias)
        a = scaled(a, CENTER_BITS + first.bits - ACTIVATION_BITS, 0, LARGEST)
        b = scaled(functional.conv3d(a, second.weight, second.bias), second.bits, 0, LARGEST)
        c = functional.conv3d(b, third.weight, third.bias) + a[:, :, 2:, 2:-2, 2:-2] * 2.0**third.bits
        c = scaled(c, third.bits, -LARGEST, LARGEST)
        sums = functional.conv3d(c, last.weight, last.bias)
        out = rounded(sums * 2.0 ** -(ACTIVATION_BITS + last.bits - LOGIT_BITS))
        return (out.clamp(min=0) if context.relu_logits else out)[0].permute(1, 2, 3, 0)


def all_logits(context: ExactContext, symbols: np.ndarray) -> Iterator[np.ndarray]:
    """Logits int64 [D, h, w, L] of a few channels at a time, of symbols uint8 [K, h, w]."""
    channels, height, width = symbols.shape
    features = len(context.first.bias)
    step = max(1, VALUES_AT_ONCE // (features * (height + 6) * (width + 6)))
    for start in range(0, channels, step):
        stop = min(start + step, channels)
        values = context.centers[:1].expand(stop - start + REACH, height + 2 * REACH, width + 2 * REACH).clone()
        known = torch.from_numpy(symbols[max(0, start - REACH) : stop].astype(np.int64))
        values[-len(known) :, REACH:-REACH, REACH:-REACH] = context.centers[known]
        yield logits(context, values).to(torch.int64).contiguous().numpy()


@kernel(inline="always")
def weigh(scores, weights):
    """Fill ``weights`` [L] from logits int64 [L]; their sum."""
    largest = scores[0]
    for symbol in range(1, len(scores)):
        largest = max(largest, scores[symbol])
    total = np.int64(0)
    for symbol in range(len(scores)):
        weights[symbol] = WEIGHT[min(largest - scores[symbol], len(WEIGHT) - 1)]
        total += weights[symbol]
    return total


@kernel(inline="always")
def edge(below, total, symbol, num_symbols):
    """Start of the interval of ``symbol``, all smaller ones weigh ``below``: 0 for the first, 65536 after the last."""
    return (below * (TOTAL - num_symbols)) // total + symbol


@kernel()
def _intervals(scores, symbols, starts, frequencies):
    num_symbols = scores.shape[1]
    weights = np.empty(num_symbols, np.int64)
    for i in range(len(symbols)):
        total = weigh(scores[i], weights)
        below = np.int64(0)
        for symbol in range(symbols[i]):
            below += weights[symbol]
        starts[i] = edge(below, total, symbols[i], num_symbols)
        frequencies[i] = edge(below + weights[symbols[i]], total, symbols[i] + 1, num_symbols) - starts[i]


def intervals_of(scores: np.ndarray, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and frequencies uint16 [n], in units of 2^-16, of n symbols uint8 [...] under logits int64 [..., L]."""
    starts, frequencies = np.empty(symbols.size, np.uint16), np.empty(symbols.size, np.uint16)
    _intervals(scores.reshape(symbols.size, -1), symbols.reshape(-1).astype(np.int64), starts, frequencies)
    return starts, frequencies


def intervals(context: ExactContext, symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and frequencies uint16 [K h w] of symbols uint8 [K, h, w], in units of 2^-16."""
    done = 0
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for scores in all_logits(context, symbols):
        parts.append(intervals_of(scores, symbols[done : done + len(scores)]))
        done += len(scores)
    starts, frequencies = (np.concatenate(part) for part in zip(*parts, strict=True))
    return starts, frequencies
