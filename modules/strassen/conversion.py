"""Replace ordinary layers of any network by sum-product-network layers, by rules.

``convert(model, rules)`` changes a user's own model in place; ``SPNNetwork`` does the same from a config and adds the
stages of training, which it hands to every layer.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from modules.strassen.layers import SPNLSTM, STAGES, SPNConv1d, SPNConv2d, SPNLayer, SPNLinear

KINDS: dict[str, type[nn.Module]] = {"conv": nn.Conv2d, "conv1d": nn.Conv1d, "linear": nn.Linear, "lstm": nn.LSTM}


@dataclass
class Rule:
    """Which layers become what. The first rule that fits a layer decides; a layer that none fits stays.

    Args:
        layers: regular expression that the layer's whole name matches, such as ``layer[1-4].*``.
        kind: ``conv``, ``conv1d``, ``linear`` or ``lstm``; None for all four.
        kernel: only convolutions of this kernel; None for any.
        keep: leave the layer as it is.
        ratio: r over the output channels or features.
        units: r itself, instead of ``ratio``.
        patch: p of 2-d convolutions.
        groups: g of 2-d convolutions.
        quantizer: ``rescaled`` or ``fixed``.
        norm: whether a dense layer has a batch norm before its scalings.
        magnitude: of the Xavier initialisation of dense, 1-d and LSTM layers: 2 for images, 3 for language.

    Raises:
        ValueError: for a pattern that is no regular expression, an unknown kind, a number out of range, or an option
            that layers of the ``kind`` do not have.
    """

    layers: str = ".*"
    kind: Literal["conv", "conv1d", "linear", "lstm"] | None = None
    kernel: int | None = None
    keep: bool = False
    ratio: float = 1.0
    units: int | None = None
    patch: int = 1
    groups: int = 1
    quantizer: Literal["rescaled", "fixed"] = "rescaled"
    norm: bool = True
    magnitude: float = 2.0

    def __post_init__(self) -> None:
        try:
            re.compile(self.layers)
        except re.error as error:
            raise ValueError(f"layers {self.layers!r} is no regular expression: {error}") from None
        if self.kind not in (None, *KINDS):
            raise ValueError(f"kind must be {', '.join(KINDS)} or nothing, got {self.kind!r}")
        if not (0 < self.ratio < math.inf and 0 < self.magnitude < math.inf):
            raise ValueError(f"ratio and magnitude must be above 0, got {self.ratio} and {self.magnitude}")
        if self.units is not None and (self.units < 1 or self.ratio != 1.0):
            raise ValueError(f"units must be at least 1 and without a ratio, got {self.units} and {self.ratio}")
        if self.kind not in (None, "conv") and (self.patch, self.groups) != (1, 1):
            raise ValueError(f"a {self.kind} layer has neither patch nor groups, got {self.patch} and {self.groups}")
        if self.kind in ("linear", "lstm") and self.kernel is not None:
            raise ValueError(f"a {self.kind} layer has no kernel, got {self.kernel}")

    def fits(self, name: str, layer: nn.Module) -> bool:
        wanted = tuple(KINDS.values()) if self.kind is None else KINDS[self.kind]
        if not isinstance(layer, wanted) or re.fullmatch(self.layers, name) is None:
            return False
        return self.kernel is None or getattr(layer, "kernel_size", (None,))[0] == self.kernel

    def hidden_units(self, outputs: int) -> int:
        units = int(self.ratio * outputs) if self.units is None else self.units
        if units < 1:
            raise ValueError(f"ratio {self.ratio} of {outputs} outputs leaves no hidden unit")
        return units


def replacement(name: str, layer: nn.Module, rule: Rule) -> SPNLayer:
    """The SPN layer in the place of ``layer``, with new weights.

    Raises:
        ValueError: for a layer that has no such form (grouped, dilated, rectangular, two directions, a class derived
            from the ordinary one, which may compute something else), naming it.
    """
    if type(layer) not in KINDS.values():
        raise ValueError(f"{name}: a {type(layer).__name__} is more than an ordinary layer: keep it")
    if isinstance(layer, nn.Linear):
        units, bias = rule.hidden_units(layer.out_features), layer.bias is not None
        inputs, outputs = layer.in_features, layer.out_features
        return SPNLinear(inputs, outputs, units, rule.quantizer, rule.norm, bias, rule.magnitude)
    if isinstance(layer, nn.LSTM):
        if layer.bidirectional or layer.batch_first or layer.proj_size or not layer.bias:
            raise ValueError(f"{name}: only a plain LSTM in one direction, time first, with biases, becomes an SPN")
        sizes = (layer.input_size, layer.hidden_size, layer.num_layers, rule.hidden_units(layer.hidden_size))
        return SPNLSTM(*sizes, rule.quantizer, layer.dropout, rule.magnitude)
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    if (
        layer.groups != 1
        or set(layer.dilation) != {1}
        or isinstance(layer.padding, str)
        or layer.padding_mode != "zeros"
    ):
        raise ValueError(
            f"{name}: a grouped or dilated convolution, or one with other padding than zeros, stays: keep it"
        )
    if any(len(set(size)) != 1 for size in (layer.kernel_size, layer.stride, layer.padding)):
        raise ValueError(f"{name}: a convolution with unequal sides has no SPN form here: keep it")
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    if isinstance(layer, nn.Conv1d):
        if stride != 1 or padding != 0 or rule.hidden_units(layer.out_channels) != layer.out_channels:
            raise ValueError(f"{name}: a 1-d convolution becomes an SPN with ratio 1, stride 1 and no padding only")
        bias = layer.bias is not None
        return SPNConv1d(layer.in_channels, layer.out_channels, kernel, rule.quantizer, bias, rule.magnitude)
    return SPNConv2d(
        layer.in_channels,
        layer.out_channels,
        rule.hidden_units(layer.out_channels),
        kernel,
        stride,
        padding,
        rule.patch,
        rule.groups,
        rule.quantizer,
        layer.bias is not None,
    )


def convert(model: nn.Module, rules: Sequence[Rule]) -> nn.Module:
    """Replace the layers of ``model`` that a rule fits, in place, and return it.

    A layer that is used in several places is replaced in all of them by one SPN layer. The new ones are where the old
    ones were, in their type and mode.

    Raises:
        ValueError: if no layer is replaced, or one cannot be.
    """
    made: dict[nn.Module, SPNLayer] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        rule = next((rule for rule in rules if rule.fits(name, layer)), None)
        if rule is None or rule.keep:
            continue
        if not name:
            raise ValueError("the model is a single layer: put it into a Sequential to convert it")
        if layer not in made:
            old = next(layer.parameters())
            made[layer] = replacement(name, layer, rule).to(old.device, old.dtype).train(layer.training)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made[layer])
    if not made:
        raise ValueError("no layer of the network fits a rule: nothing would be an SPN")
    return model


class SPNNetwork(nn.Module):
    """A network with SPN layers, and the stage of its training: ``full``, ``quantized`` or ``frozen``.

    The stage is part of the state, so that a checkpoint evaluates as it was trained.

    Args:
        network: the ordinary one; inputs and outputs stay its own.
        rules: of ``convert``.
    """

    def __init__(self, network: nn.Module, rules: Sequence[Rule]) -> None:
        super().__init__()
        self.network = convert(network, list(rules))
        self._stage = "full"

    def spn_layers(self) -> list[SPNLayer]:
        return [layer for layer in self.modules() if isinstance(layer, SPNLayer)]

    @property
    def stage(self) -> str:
        return self._stage

    @stage.setter
    def stage(self, stage: str) -> None:
        if stage not in STAGES:
            raise ValueError(f"stage must be {', '.join(STAGES)}, got {stage!r}")
        self._stage = stage
        for layer in self.spn_layers():
            layer.advance(stage)

    def get_extra_state(self) -> Tensor:
        return torch.tensor(STAGES.index(self._stage))

    def set_extra_state(self, state: Tensor) -> None:
        """The weights that come with it are in that stage already: frozen ones must not be rounded again."""
        index = int(state)
        if not 0 <= index < len(STAGES):
            raise ValueError(f"the checkpoint names the unknown stage {index} of an SPN network")
        self._stage = STAGES[index]
        for layer in self.spn_layers():
            layer.stage = self._stage

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self.network(*inputs, **options)
