"""Parts of the ResNets: bottleneck units (He et al. 2015), stages of them, atrous spatial pyramid pooling."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

EXPANSION = 4
RATES = (6, 12, 18, 24)
"""Dilations of ASPP (Chen et al., DeepLab v2)."""

StrideIn = Literal["1x1", "3x3"]


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand by 4, + input, ReLU; a 1x1 projection of the input where the shape changes.

    Args:
        inputs: channels.
        width: of the 3x3 convolution.
        stride, dilation: of the unit.
        stride_in: the convolution that strides.
    """

    def __init__(self, inputs: int, width: int, stride: int, dilation: int, stride_in: StrideIn) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, first, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(self.norm1(self.conv1(x)))
        inner = functional.relu(self.norm2(self.conv2(inner)))
        return functional.relu(self.norm3(self.conv3(inner)) + (x if self.shortcut is None else self.shortcut(x)))


def stages(
    inputs: int, widths: Sequence[int], blocks: Sequence[int], first_stride: int, stride_in: StrideIn, dilated: bool
) -> list[nn.Sequential]:
    """Stages of bottleneck units; each but the first halves the resolution.

    With ``dilated`` the last two keep it, with dilations 2 and 4 in all their units instead.

    Raises:
        ValueError: for another ``stride_in`` than 1x1 and 3x3.
    """
    if stride_in not in ("1x1", "3x3"):
        raise ValueError(f"stride_in must be 1x1 or 3x3, got {stride_in!r}")
    made = []
    for number, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        stride, dilation = (2 if number else first_stride), 1
        if dilated and number >= len(widths) - 2:
            stride, dilation = 1, 2 ** (number - len(widths) + 3)
        units = [Bottleneck(inputs, width, stride, dilation, stride_in)]
        inputs = EXPANSION * width
        units += [Bottleneck(inputs, width, 1, dilation, stride_in) for _ in range(count - 1)]
        made.append(nn.Sequential(*units))
    return made


class ASPP(nn.Module):
    """Four parallel 3x3 convolutions with dilations 6, 12, 18 and 24, summed."""

    def __init__(self, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(inputs, num_classes, 3, padding=r, dilation=r) for r in RATES)
        for branch in self.branches:
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = sum(branch(x) for branch in self.branches)  # type: ignore[assignment]
        return logits


def initialise(network: nn.Module) -> None:
    """He's normal weights for convolutions, by the fan of the outputs, as ResNets have."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
