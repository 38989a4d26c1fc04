"""Multiplications, additions and bits of a network, layer by layer, in the paper's way of counting.

- A batch norm is not folded: C H W multiplications and as many additions, for the baseline too.
- An SPN convolution has r H W / p^2 multiplications and r (C_in / g) k_B^2 H W / p^2 + C_out r H W additions; H x W is
  the size of its output, which p need not divide. Zeros of the ternary matrices are not discounted.
- A dense SPN has r multiplications and r n_in + n_out r additions.
- An ordinary layer has as many additions as multiplications; biases, activations and pooling are not counted.
- 2 bits for a ternary weight, 32 for a real one. The norm inside an SPN layer is absorbed by its scalings.

- A dense layer counts at every position of its input, a batch or layer norm at every entry of its output.
- An embedding takes bits alone. Any other layer with parameters of its own is listed as not counted, with its bits.

Characters are counted at the L - k + 1 windows within a word, as Kim et al. place them.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from modules.strassen.layers import SPNLSTM, InnerNorm, SPNConv1d, SPNConv2d, SPNLayer, SPNLinear

TERNARY_BITS, REAL_BITS = 2, 32


@dataclass
class Cost:
    """Of one layer and one input; additions and multiplications may be fractions where p does not divide."""

    layer: str
    kind: str
    multiplications: Fraction
    additions: Fraction
    bits: int


def conv_cost(layer: nn.Conv2d, height: int, width: int) -> tuple[int, int]:
    each = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
    products = layer.out_channels * each * height * width
    return products, products


def spn_conv_cost(layer: SPNConv2d, height: int, width: int) -> tuple[Fraction, Fraction]:
    hidden = Fraction(layer.units * height * width, layer.patch**2)
    inner = layer.inputs // layer.groups * layer.wide_kernel**2
    return hidden, hidden * inner + layer.outputs * layer.units * height * width


def lstm_cost(layer: nn.LSTM) -> int:
    """Matrices of one step, and three products of vectors a layer and direction."""
    matrices = sum(parameter.numel() for parameter in layer.parameters() if parameter.dim() == 2)
    return matrices + 3 * layer.hidden_size * layer.num_layers * (1 + layer.bidirectional)


def spn_lstm_cost(layer: SPNLSTM) -> tuple[int, int]:
    gates = 3 * layer.hidden * layer.layers
    additions = sum(4 * layer.units * (width + layer.hidden) for width in layer.widths)
    return 8 * layer.layers * layer.units + gates, additions + gates


def layer_cost(layer: nn.Module, output: Any) -> tuple[Fraction | int, Fraction | int] | None:
    """Multiplications and additions for one input; None for what is not counted."""
    if isinstance(layer, SPNConv2d):
        return spn_conv_cost(layer, *output.shape[-2:])
    if isinstance(layer, SPNConv1d):
        hidden = layer.units * output.shape[-1]
        return hidden, hidden * layer.inputs * layer.kernel
    if isinstance(layer, SPNLinear):
        hidden = layer.units * positions(output)
        return hidden, hidden * (layer.inputs + layer.outputs)
    if isinstance(layer, SPNLSTM):
        multiplications, additions = spn_lstm_cost(layer)
        return multiplications * positions(output[0]), additions * positions(output[0])
    if isinstance(layer, nn.Conv2d):
        return conv_cost(layer, *output.shape[-2:])
    if isinstance(layer, nn.Conv1d):
        products = layer.weight.numel() * output.shape[-1]
        return products, products
    if isinstance(layer, nn.Linear):
        products = layer.weight.numel() * positions(output)
        return products, products
    if isinstance(layer, nn.LSTM):
        products = lstm_cost(layer) * positions(output[0])
        return products, products
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d | nn.LayerNorm | nn.GroupNorm):
        return output[0].numel(), output[0].numel()
    if isinstance(layer, nn.Embedding):
        return 0, 0
    if is_highway(layer):
        return 2 * output.shape[-1], 2 * output.shape[-1]
    return None


def positions(output: Tensor) -> int:
    """How often a layer was applied whose features are the last dimension."""
    return output[..., 0].numel()


def is_highway(layer: nn.Module) -> bool:
    """gate * transform(x) + (1 - gate) * x has two products of its own, known by the names of its parts."""
    return isinstance(getattr(layer, "gate", None), nn.Module) and isinstance(
        getattr(layer, "transform", None), nn.Module
    )


def overhanging_windows(model: nn.Module) -> dict[nn.Module, int]:
    """How many windows reach over the end of a word: networks of characters pad by the widest window, k - 1."""
    found: dict[nn.Module, int] = {}
    for parent in model.modules():
        windows = getattr(parent, "convolutions", None)
        if isinstance(windows, nn.ModuleList):
            found |= dict.fromkeys(windows, len(windows) - 1)
    return found


def spn_bits(layer: SPNLayer) -> int:
    """Ternary matrices, scalings and the bias of the collapsed layer."""
    ternary = sum(matrix.numel() for name in layer.ternary_names for matrix in layer.matrices(name))
    scales = list(layer.scale) if isinstance(layer, SPNLSTM) else [layer.inner.scale]  # type: ignore[union-attr]
    bias = getattr(layer, "bias", None)
    biases = [] if bias is None else list(bias) if isinstance(bias, nn.ParameterList) else [bias]
    return TERNARY_BITS * ternary + REAL_BITS * sum(value.numel() for value in [*scales, *biases])


def real_bits(layer: nn.Module) -> int:
    return REAL_BITS * sum(parameter.numel() for parameter in layer.parameters(recurse=False))


@torch.no_grad()
def count(model: nn.Module, *inputs: Tensor) -> list[Cost]:
    """The cost of every layer that has one, in the order of their calls.

    Args:
        model: any network; its mode, weights and statistics stay as they are.
        inputs: one example each, with a leading batch dimension of 1; their values do not matter.
    """
    found, hooks, overhang = list[Cost](), [], overhanging_windows(model)

    def note(name: str, layer: nn.Module, output: Any) -> None:
        cost = layer_cost(layer, output[..., : -overhang[layer]] if overhang.get(layer) else output)
        bits, kind = spn_bits(layer) if isinstance(layer, SPNLayer) else real_bits(layer), type(layer).__name__
        if cost is None and bits and not isinstance(layer, InnerNorm):
            cost, kind = (0, 0), f"{kind} (not counted)"
        if cost is not None:
            found.append(Cost(name, kind, Fraction(cost[0]), Fraction(cost[1]), bits))

    for name, layer in model.named_modules():
        hooks.append(layer.register_forward_hook(lambda m, _, output, name=name: note(name, m, output)))
    was_training = [module for module in model.modules() if module.training]
    try:
        model.eval()(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
        for module in was_training:
            module.training = True
    return found


def total(costs: list[Cost]) -> Cost:
    """The sum of all layers."""
    sums = [sum((getattr(cost, name) for cost in costs), Fraction(0)) for name in ("multiplications", "additions")]
    return Cost("total", "", sums[0], sums[1], sum(cost.bits for cost in costs))
