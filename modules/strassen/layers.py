"""Sum-product-network layers: a ternary linear map, r scalings, a ternary linear map (sections 2 and 3 of the paper).

Letters: r hidden units, one multiplication each; p x p output patches that share them; g groups of the first map; k
kernel, s stride of the layer that is replaced, k_B = (p - 1) s + k the kernel of the first map; N batch, C channels.

Each layer goes through three stages: ``full`` (real matrices), ``quantized`` (ternary forward, real shadow weights
learn by straight-through gradients) and ``frozen`` (the ternary matrices stay, only scalings, norms and biases learn).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.strassen.quantizers import check_quantizer, straight_through, ternarize

STAGES = ("full", "quantized", "frozen")
MAX_SCALE = 100.0
"""The scalings are kept in 0 .. 100, as in the authors' code."""
INNER_EPS = 1e-3
"""Of the norm inside a layer: the default of the authors' framework."""


def draw_xavier(weight: Tensor, fan_in: int, fan_out: int, magnitude: float = 2.0) -> None:
    """U(-b, b) with b = sqrt(magnitude / ((fan_in + fan_out) / 2)); ``magnitude`` is 2 for images, 3 for language."""
    bound = math.sqrt(2.0 * magnitude / (fan_in + fan_out))
    with torch.no_grad():
        weight.uniform_(-bound, bound)


class InnerNorm(nn.Module):
    """Batch norm of the r hidden units with a fixed gain of 1 and a learned shift, then the scalings, in one step.

    ``forward`` maps u [N, r, ...] to scale * ((u - mean) / sqrt(variance + 1e-3) + shift); without ``norm`` to
    scale * u.
    """

    def __init__(self, units: int, norm: bool = True) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(units))
        self.shift = nn.Parameter(torch.zeros(units)) if norm else None
        self.norm = nn.BatchNorm1d(units, INNER_EPS, affine=False) if norm else None

    def forward(self, u: Tensor) -> Tensor:
        self.scale.data.clamp_(0.0, MAX_SCALE)  # outside of the gradient, as in the authors' code
        if self.norm is None or self.shift is None:
            return u * self.scale.view(1, -1, *[1] * (u.dim() - 2))
        norm = self.norm
        if self.training and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        mean, variance = norm.running_mean, norm.running_var
        bias, momentum = self.scale * self.shift, norm.momentum or 0.0
        return functional.batch_norm(u, mean, variance, self.scale, bias, self.training, momentum, norm.eps)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Gain and offset [r], float64, of the whole step in evaluation: ``forward(u) = gain * u + offset``."""
        scale = self.scale.detach().double().clamp(0.0, MAX_SCALE)
        if self.norm is None or self.shift is None:
            return scale, torch.zeros_like(scale)
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        gain = scale / (self.norm.running_var.double() + self.norm.eps).sqrt()
        return gain, scale * self.shift.detach().double() - gain * self.norm.running_mean.double()


class SPNLayer(nn.Module):
    """What the layers share: stages, and the ternary form of the parameters that ``ternary_names`` lists."""

    ternary_names: tuple[str, ...] = ("first", "second")

    def __init__(self, quantizer: str) -> None:
        super().__init__()
        check_quantizer(quantizer)
        self.quantizer = quantizer
        self.stage = "full"

    def advance(self, stage: str) -> None:
        """Enter a stage. Entering ``frozen`` overwrites the shadow weights by their ternary values."""
        if stage == "frozen" and self.stage != "frozen":
            with torch.no_grad():
                for name in self.ternary_names:
                    for weight in self.matrices(name):
                        pattern, scale = ternarize(weight, self.quantizer)
                        weight.copy_(scale * pattern)
        self.stage = stage

    def matrices(self, name: str) -> list[Tensor]:
        """The parameters called ``name``; a list holds several."""
        value = getattr(self, name)
        return list(value) if isinstance(value, nn.ParameterList) else [value]

    def in_use(self, weight: Tensor) -> Tensor:
        """The weight as the stage has it. A frozen one takes no gradient."""
        if self.stage == "full":
            return weight
        return straight_through(weight, self.quantizer) if self.stage == "quantized" else weight.detach()

    def extra_repr(self) -> str:
        return f"stage={self.stage}, quantizer={self.quantizer}"


def check_sizes(**sizes: int) -> None:
    """Raise a ValueError for a size below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} of an SPN layer must be at least 1, got {value}")


class SPNLinear(SPNLayer):
    """x [..., inputs] -> [..., outputs], with r multiplications.

    Args:
        inputs, outputs: features.
        units: r.
        quantizer: ``rescaled`` or ``fixed``.
        norm: whether a batch norm stands before the scalings.
        bias: real, added at the end.
        magnitude: of the Xavier initialisation.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        units: int,
        quantizer: str = "rescaled",
        norm: bool = True,
        bias: bool = True,
        magnitude: float = 2.0,
    ) -> None:
        super().__init__(quantizer)
        check_sizes(inputs=inputs, outputs=outputs, units=units)
        self.inputs, self.outputs, self.units, self.magnitude = inputs, outputs, units, magnitude
        self.first = nn.Parameter(torch.empty(units, inputs))
        self.inner = InnerNorm(units, norm)
        self.second = nn.Parameter(torch.empty(outputs, units))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_xavier(self.first, self.inputs, self.units, self.magnitude)
        draw_xavier(self.second, self.units, self.outputs, self.magnitude)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.linear(x.reshape(-1, self.inputs), self.in_use(self.first))
        y = functional.linear(self.inner(hidden), self.in_use(self.second), self.bias)
        return y.view(*x.shape[:-1], self.outputs)


class PatchGeometry:
    """Sizes of a convolution whose outputs are made in p x p patches."""

    kernel: int
    stride: int
    padding: int
    patch: int
    wide_kernel: int

    def output_size(self, size: int) -> int:
        """Of one side, given the input's."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1

    def fit(self, x: Tensor) -> Tensor:
        """Pad (or cut) x so that the first map gives exactly the patches needed."""
        step, pads = self.patch * self.stride, []
        for size in (x.shape[-1], x.shape[-2]):
            patches = -(-self.output_size(size) // self.patch)
            pads += [self.padding, (patches - 1) * step + self.wide_kernel - self.padding - size]
        return functional.pad(x, pads)


class SPNConv2d(SPNLayer, PatchGeometry):
    """x [N, C_in, H, W] -> [N, C_out, H', W'] with the output size of the convolution that it replaces.

    A p x p patch of outputs shares r hidden units, which see all k_B x k_B inputs that those outputs would see. Patches
    start at the output's upper left corner; where p does not divide the output's size, the last ones stick out and
    are cut. (The authors pad evenly and cut on the left, which shifts the patches against the windows for s = 2.)

    Args:
        inputs, outputs: channels.
        units: r.
        kernel, stride, padding: of the replaced convolution, equal in both directions.
        patch: p.
        groups: g, of the first map only.
        quantizer: ``rescaled`` or ``fixed``.
        bias: real, added at the end.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        units: int,
        kernel: int = 3,
        stride: int = 1,
        padding: int = 0,
        patch: int = 1,
        groups: int = 1,
        quantizer: str = "rescaled",
        bias: bool = False,
    ) -> None:
        super().__init__(quantizer)
        check_sizes(inputs=inputs, outputs=outputs, units=units, kernel=kernel, stride=stride, patch=patch)
        if padding < 0:
            raise ValueError(f"padding of an SPN layer must be at least 0, got {padding}")
        if groups < 1 or inputs % groups or units % groups:
            raise ValueError(f"groups {groups} must divide the {inputs} input channels and the {units} hidden units")
        self.inputs, self.outputs, self.units = inputs, outputs, units
        self.kernel, self.stride, self.padding, self.patch, self.groups = kernel, stride, padding, patch, groups
        self.wide_kernel = (patch - 1) * stride + kernel
        self.first = nn.Parameter(torch.empty(units, inputs // groups, self.wide_kernel, self.wide_kernel))
        self.inner = InnerNorm(units)
        self.second = nn.Parameter(torch.empty(units, outputs, patch, patch))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        window, patch = self.wide_kernel**2, self.patch**2
        draw_xavier(self.first, self.inputs // self.groups * window, self.units * window)
        draw_xavier(self.second, self.units * patch, self.outputs * patch)

    def spread(self, hidden: Tensor, second: Tensor, height: int, width: int) -> Tensor:
        """Hidden units [N, r, h, w] to outputs [N, C_out, height, width]."""
        if self.patch == 1:  # the same map, and several times faster than as a transposed convolution
            return functional.conv2d(hidden, second.transpose(0, 1), self.bias)
        return functional.conv_transpose2d(hidden, second, self.bias, self.patch)[..., :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self.output_size(size) for size in x.shape[-2:])
        first, step = self.in_use(self.first), self.patch * self.stride
        if self.patch == 1:
            hidden = functional.conv2d(x, first, None, step, self.padding, groups=self.groups)
        else:
            hidden = functional.conv2d(self.fit(x), first, None, step, groups=self.groups)
        return self.spread(self.inner(hidden), self.in_use(self.second), height, width)


class SPNConv1d(SPNLayer):
    """x [N, C_in, L] -> [N, C_out, L - k + 1] with r = C_out and no second map, as the language model has it."""

    ternary_names = ("first",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        quantizer: str = "rescaled",
        bias: bool = True,
        magnitude: float = 3.0,
    ) -> None:
        super().__init__(quantizer)
        check_sizes(inputs=inputs, outputs=outputs, kernel=kernel)
        self.inputs, self.outputs, self.units, self.kernel, self.magnitude = inputs, outputs, outputs, kernel, magnitude
        self.first = nn.Parameter(torch.empty(outputs, inputs, kernel))
        self.inner = InnerNorm(outputs)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        draw_xavier(self.first, self.inputs * self.kernel, self.outputs * self.kernel, self.magnitude)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(functional.conv1d(x, self.in_use(self.first)))
        return y if self.bias is None else y + self.bias.unsqueeze(1)


class SPNLSTM(SPNLayer):
    """An LSTM whose eight matrices a layer (four gates, input and recurrent) are SPNs without norm.

    The effective matrices W_c diag(scale) W_b are formed once a window and given to an ordinary LSTM; x [T, N, inputs]
    and the state (h, c), [D, N, H] each, are those of ``torch.nn.LSTM``.

    Args:
        inputs: features of x.
        hidden: H.
        layers: D.
        units: r of each matrix.
        quantizer: ``rescaled`` or ``fixed``.
        dropout: between the layers.
        magnitude: of the Xavier initialisation.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int,
        units: int,
        quantizer: str = "rescaled",
        dropout: float = 0.0,
        magnitude: float = 3.0,
    ) -> None:
        super().__init__(quantizer)
        check_sizes(inputs=inputs, hidden=hidden, layers=layers, units=units)
        self.inputs, self.hidden, self.layers, self.units, self.magnitude = inputs, hidden, layers, units, magnitude
        self.dropout = dropout
        self.widths = [width for layer in range(layers) for width in (inputs if layer == 0 else hidden, hidden)]
        # One entry for the input and one for the recurrent matrix of each layer, with the four gates i, f, g, o inside.
        self.first = nn.ParameterList(torch.empty(4, units, width) for width in self.widths)
        self.scale = nn.ParameterList(torch.ones(4, units) for _ in self.widths)
        self.second = nn.ParameterList(torch.empty(4, hidden, units) for _ in self.widths)
        self.bias = nn.ParameterList(torch.zeros(4 * hidden) for _ in self.widths)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for first, second, width in zip(self.first, self.second, self.widths, strict=True):
            draw_xavier(first, width, self.units, self.magnitude)
            draw_xavier(second, self.units, self.hidden, self.magnitude)

    def matrices(self, name: str) -> list[Tensor]:
        """Every gate's matrix alone: each has a scale of its own."""
        return [gate for stacked in getattr(self, name) for gate in stacked.unbind(0)]

    def gates_in_use(self, stacked: Tensor) -> Tensor:
        return torch.stack([self.in_use(gate) for gate in stacked.unbind(0)])

    def effective(self) -> list[Tensor]:
        """The matrices [4 H, width] of the ordinary LSTM."""
        found = []
        for first, scale, second in zip(self.first, self.scale, self.second, strict=True):
            scale.data.clamp_(0.0, MAX_SCALE)
            product = (self.gates_in_use(second) * scale.unsqueeze(1)) @ self.gates_in_use(first)
            found.append(product.flatten(0, 1))
        return found

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Any]:
        if state is None:
            zeros = x.new_zeros(self.layers, x.shape[1], self.hidden)
            state = (zeros, zeros)
        flat: list[Tensor] = []
        matrices = self.effective()
        for layer in range(0, 2 * self.layers, 2):
            flat += [*matrices[layer : layer + 2], *self.bias[layer : layer + 2]]
        y, h, c = torch._VF.lstm(  # type: ignore[attr-defined]
            x, state, flat, True, self.layers, self.dropout, self.training, False, False
        )
        return y, (h, c)
