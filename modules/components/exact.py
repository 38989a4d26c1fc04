"""Whole numbers in floating-point tensors: networks that compute the same on every machine.

A float32 holds every whole number below 2^24, and sums of products of such numbers are exact in any order as long as
they stay below that: with any thread count, batch, instruction set and device. Weights are made multiples of a power of
two, activations whole numbers, and ``integer_layer`` proves from the weights that no sum can leave the range. What
follows a sum may be: times a power of two, add, floor, clamp. No division, no exp; no bfloat16 and no TF32.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

EXACT_LIMIT = 2**24
MOST_BITS, LEAST_BITS = 12, 4


class InexactWeightsError(ValueError):
    """Weights whose sums could leave the whole numbers that float32 holds."""


class IntegerLayer(NamedTuple):
    weight: Tensor
    """Whole numbers in float32, in units of 2^-bits."""
    bias: Tensor
    """Whole numbers, in units of the sum that it is added to: of an input's times 2^-bits."""
    bits: int


def rounded(x: Tensor) -> Tensor:
    """The nearest whole number, halves upwards."""
    return torch.floor(x + 0.5)


def check_sums(sums: Iterable[tuple[str, float]]) -> None:
    """Raise an InexactWeightsError for the first (name, largest possible sum) that float32 could not hold, or NaN."""
    for name, size in sums:
        if not size < EXACT_LIMIT:
            raise InexactWeightsError(f"{name} can sum up to {size:.0f}; exact are whole numbers below 2^24")


def check_products(device: torch.device) -> None:
    """See that ``device`` multiplies matrices of whole numbers exactly, as it is set now.

    TF32 and bfloat16 do not: ``torch.set_float32_matmul_precision("high")`` allows them, on CPUs too.

    Raises:
        RuntimeError: if it does not.
    """
    x, weight = torch.arange(256 * 128).view(256, 128) % 4093, torch.arange(128 * 128).view(128, 128) % 61 - 30
    with torch.autocast(device.type, enabled=False):
        product = x.to(device, torch.float32) @ weight.to(device, torch.float32)
    if not torch.equal(product.cpu(), (x @ weight).float()):
        raise RuntimeError(
            f"matrix products on {device} are not exact: TF32 or bfloat16 is allowed for them; set "
            'torch.set_float32_matmul_precision("highest")'
        )


def integer_layer(
    name: str, weight: Tensor, bias: Tensor, input_bits: int, largest: float, skip: float = 0.0
) -> IntegerLayer:
    """The layer with weights of as many bits as its largest possible sum allows, 12 at most.

    Args:
        name: for the message.
        weight, bias: [outputs, ...] and [outputs].
        input_bits: inputs are whole numbers in units of 2^-input_bits,
        largest: of at most this size.
        skip: largest input that is also added to the sum with weight 1.

    Raises:
        InexactWeightsError: if fewer than 4 bits would be left, or a weight is not a number.
    """
    weight, bias = weight.detach().cpu().double(), bias.detach().cpu().double()
    for bits in range(MOST_BITS, LEAST_BITS - 1, -1):
        whole, shift = rounded(weight * 2.0**bits), rounded(bias * 2.0 ** (bits + input_bits))
        worst = float((whole.abs().flatten(1).sum(1) * largest + shift.abs()).max()) + skip * 2.0**bits
        if worst < EXACT_LIMIT:
            return IntegerLayer(whole.float(), shift.float(), bits)
    raise InexactWeightsError(f"{name} can sum up to {worst:.0f}; exact are whole numbers below 2^24")
