"""The additions-only form of a trained network: ternary matrices as integers, r real scalings, one bias.

With u = t_b x the hidden units of a layer in evaluation are gain * (alpha_b u) + offset (see ``InnerNorm.affine``), so
the layer is t_c (scale * u) + bias with scale = alpha_c alpha_b gain and bias = bias + alpha_c t_c offset. Outputs
agree to 1e-5 with the network that was trained.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.strassen.layers import SPNLSTM, PatchGeometry, SPNConv1d, SPNConv2d, SPNLayer, SPNLinear
from modules.strassen.quantizers import ternarize

Product = Callable[[Tensor, Tensor], Tensor]


def dense_product(matrix: Tensor, columns: Tensor) -> Tensor:
    """Ternary int8 [R, K] times real [K, L], by an ordinary matrix product."""
    return matrix.to(columns.dtype) @ columns


class Collapsed(nn.Module):
    """What the collapsed layers share: t_b ``first``, t_c ``second`` (int8 [rows, columns]), ``scale`` [r], ``bias``.

    ``product`` computes ternary times real; ``kernels.PackedProduct`` takes the place of the default for inference on
    packed bytes.
    """

    first: Tensor
    second: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, first: Tensor, second: Tensor | None, scale: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("first", first.to(torch.int8).contiguous())
        self.register_buffer("second", None if second is None else second.to(torch.int8).contiguous())
        self.register_buffer("scale", scale.float())
        self.register_buffer("bias", bias.float())
        self.product: Product = dense_product

    def hidden(self, columns: Tensor) -> Tensor:
        """[K, L] -> scaled hidden units [r, L]."""
        return self.product(self.first, columns) * self.scale.unsqueeze(1)


class CollapsedLinear(Collapsed):
    """x [..., inputs] -> [..., outputs]."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(self.second, self.hidden(x.reshape(-1, x.shape[-1]).T))
        return y.T.reshape(*x.shape[:-1], -1) + self.bias


class CollapsedConv2d(Collapsed, PatchGeometry):
    """x [N, C_in, H, W] -> [N, C_out, H', W']; ``shape`` is an ``SPNConv2d`` without its weights.

    ``first`` is [r, C_in / g k_B^2] and ``second`` [C_out p^2, r]; ``bias`` is [C_out, p, p], since the constant part
    of the hidden units reaches each place of a patch differently.
    """

    def __init__(self, layer: SPNConv2d, first: Tensor, second: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__(first, second, scale, bias)
        self.inputs, self.outputs, self.units, self.groups = layer.inputs, layer.outputs, layer.units, layer.groups
        self.kernel, self.stride, self.padding, self.patch = layer.kernel, layer.stride, layer.padding, layer.patch
        self.wide_kernel = layer.wide_kernel

    def forward(self, x: Tensor) -> Tensor:
        height, width = (self.output_size(size) for size in x.shape[-2:])
        high, wide = -(-height // self.patch), -(-width // self.patch)
        columns = functional.unfold(self.fit(x), self.wide_kernel, stride=self.patch * self.stride)
        columns = columns.unflatten(1, (self.groups, -1)).permute(1, 2, 0, 3).flatten(2)  # [g, K, N L]
        rows = self.first.view(self.groups, self.units // self.groups, -1)
        hidden = torch.cat([self.product(row, column) for row, column in zip(rows, columns, strict=True)])
        y = self.product(self.second, hidden * self.scale.unsqueeze(1))
        y = y.view(self.outputs, self.patch**2, len(x), high * wide).permute(2, 0, 1, 3)
        y = y + self.bias.flatten(1).unsqueeze(2)
        y = functional.pixel_shuffle(y.reshape(len(x), -1, high, wide), self.patch)
        return y[..., :height, :width]


class CollapsedConv1d(Collapsed):
    """x [N, C_in, L] -> [N, C_out, L - k + 1]; there is no second map."""

    def __init__(self, kernel: int, first: Tensor, scale: Tensor, bias: Tensor) -> None:
        super().__init__(first, None, scale, bias)
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        columns = x.unfold(2, self.kernel, 1).permute(1, 3, 0, 2).flatten(0, 1).flatten(1)
        y = self.hidden(columns).view(len(self.first), len(x), -1).transpose(0, 1)
        return y + self.bias.unsqueeze(1)


def collapse_layer(layer: SPNLayer) -> nn.Module:
    """The form of one layer.

    Raises:
        ValueError: for a layer in the stage ``full``, an LSTM, or weights or statistics that are not finite.
    """
    if layer.stage == "full":
        raise ValueError("only ternary layers collapse: train the stages quantized and frozen first")
    if isinstance(layer, SPNLSTM):
        raise ValueError("the matrices of an SPN LSTM are multiplied out and not exported in ternary form")
    assert isinstance(layer, SPNLinear | SPNConv2d | SPNConv1d)
    if not all(tensor.is_meta or tensor.isfinite().all() for tensor in layer.state_dict().values()):
        raise ValueError("a layer has weights or statistics that are not finite: export a checkpoint of before that")
    first, alpha = ternarize(layer.first, layer.quantizer)
    gain, offset = layer.inner.affine()
    scale, constant = gain * alpha.double(), offset
    bias = None if layer.bias is None else layer.bias.detach().double()
    if isinstance(layer, SPNConv1d):
        return CollapsedConv1d(layer.kernel, first.flatten(1), scale, constant + (0 if bias is None else bias))
    second, beta = ternarize(layer.second, layer.quantizer)
    scale, constant = scale * beta.double(), constant * beta.double()
    if isinstance(layer, SPNLinear):
        joined = second.double() @ constant
        return CollapsedLinear(first, second, scale, joined if bias is None else joined + bias)
    rows = second.permute(1, 2, 3, 0).flatten(0, 2)  # [C_out p^2, r]
    joined = (rows.double() @ constant).view(layer.outputs, layer.patch, layer.patch)
    joined = joined if bias is None else joined + bias.view(-1, 1, 1)
    return CollapsedConv2d(layer, first.flatten(1), rows, scale, joined)


class ChannelAffine(nn.Module):
    """A batch norm in evaluation: gain * x + offset for each channel, x [N, C, ...]."""

    gain: Tensor
    offset: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        gain = (norm.running_var.double() + norm.eps).rsqrt()
        gain = gain if norm.weight is None else gain * norm.weight.detach().double()
        offset = -norm.running_mean.double() * gain
        offset = offset if norm.bias is None else offset + norm.bias.detach().double()
        self.register_buffer("gain", gain.float())
        self.register_buffer("offset", offset.float())

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * self.gain.view(shape) + self.offset.view(shape)


def collapse(model: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode with its SPN layers collapsed and its batch norms as gain and offset.

    Other layers stay real. A layer that is used in several places is collapsed once.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    if isinstance(model, SPNLayer):
        return collapse_layer(model).eval()
    made: dict[nn.Module, nn.Module] = {}
    inside = {inner for layer in model.modules() if isinstance(layer, SPNLayer) for inner in layer.modules()}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        is_norm = isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer not in inside
        if not (is_norm or isinstance(layer, SPNLayer)):
            continue
        if layer not in made:
            made[layer] = collapse_layer(layer) if isinstance(layer, SPNLayer) else ChannelAffine(layer)  # type: ignore[arg-type]
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, made[layer])
    return model
