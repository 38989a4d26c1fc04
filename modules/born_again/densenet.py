"""DenseNet-BC, teacher and student of the image experiments (section 4 of the paper).

Letters: N batch, C channels, H and W image size, K classes, k growth.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from modules.born_again.initialisation import draw_weights
from modules.components.options import above, at_least

Sizing = Literal["textbook", "printed"]


@contextmanager
def statistics_kept(norm: _BatchNorm) -> Iterator[None]:
    """Batch norm as in training, but the running statistics stay: a recomputation is no second batch."""
    momentum, count = norm.momentum, norm.num_batches_tracked
    norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        norm.momentum, norm.num_batches_tracked = momentum, count


class DenseUnit(nn.Module):
    """BN-ReLU-conv1x1 (4 k channels), BN-ReLU-conv3x3 (k channels): the channels that a unit adds.

    With ``recompute`` the joined input and what comes before the second norm are not kept for the backward pass but
    made again, so that memory grows with the depth of a block and not with its square.
    """

    def __init__(self, inputs: int, growth: int, recompute: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.recompute = recompute

    def bottleneck(self, *features: Tensor) -> Tensor:
        return self.conv1(functional.relu(self.norm1(torch.cat(features, dim=1)), inplace=True))

    def forward(self, *features: Tensor) -> Tensor:
        """What the block holds so far, in parts [N, C_i, H, W] -> [N, k, H, W]."""
        if self.recompute and self.training and torch.is_grad_enabled():
            inner = checkpoint(
                self.bottleneck,
                *features,
                use_reentrant=False,
                preserve_rng_state=False,  # nothing in it is random
                context_fn=lambda: (nullcontext(), statistics_kept(self.norm1)),
            )
        else:
            inner = self.bottleneck(*features)
        return self.conv2(functional.relu(self.norm2(inner), inplace=True))


class DenseBlock(nn.Module):
    """Units whose outputs are joined to their inputs: C -> C + units * k channels."""

    def __init__(self, inputs: int, units: int, growth: int, recompute: bool) -> None:
        super().__init__()
        self.units = nn.ModuleList(DenseUnit(inputs + i * growth, growth, recompute) for i in range(units))

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for unit in self.units:
            features.append(unit(*features))
        return torch.cat(features, dim=1)


class Transition(nn.Module):
    """BN-ReLU-conv1x1 and, with ``pool``, the mean over 2x2 pixels."""

    def __init__(self, inputs: int, outputs: int, pool: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(functional.relu(self.norm(x), inplace=True))
        return functional.avg_pool2d(x, 2) if self.pool else x


class DenseNet(nn.Module):
    """DenseNet-BC with three blocks at 32, 16 and 8 pixels, no bias in convolutions, no dropout.

    The paper's names: 112-33 (its size is that of depth 106) has 17 units, 90-60 has 14, 80-80 and 80-120 have 12;
    the second number is the growth. Two readings of its sizes, in millions for 10 and 100 classes:

        ============  ===========  =============  ================
        units-growth  ``textbook``  ``printed``    in the paper
        ============  ===========  =============  ================
        17-33         6.27, 6.36   6.76, 6.81     6.3
        14-60         15.05, 15.19 16.17, 16.24   16.1
        12-80         20.95, 21.10 22.42, 22.50   22.4
        12-120        47.05, 47.28 50.36, 50.48   50.4
        ============  ===========  =============  ================

    Students with other units and the teacher's width at every transition keep units times growth and the teacher's
    stem: with ``stem_channels=120`` 28-30, 42-20 and 56-15 have 13.74, 12.95 and 12.60 M (paper: 13.7, 12.9,
    12.6). 7-120 has 21.35 M, 21.2 in the paper; ``textbook`` with a stem of its own, 240, gives 21.21. The paper's
    students of another compression (5.1, 10.1, 80.5 M) are not reproduced: ``compression`` 0.25, 0.375, 0.75
    gives 12.4, 14.1 and 21.9 M.

    Args:
        num_classes: K.
        units: of each block.
        growth: k.
        sizing: ``printed`` has a third transition, without pooling, behind the last block. This is inferred from
            the sizes, also from those of the residual students, not stated.
        compression: of a transition, outputs / inputs, rounded down.
        stem_channels: of the first convolution; None: 2 k.
        recompute: spend a second pass through the first half of every unit in training to save memory.

    Raises:
        ValueError: for sizes that make no network.
    """

    def __init__(
        self,
        num_classes: int = 10,
        units: int = 14,
        growth: int = 60,
        sizing: Sizing = "printed",
        compression: float = 0.5,
        stem_channels: int | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if sizing not in ("textbook", "printed"):
            raise ValueError(f"sizing must be textbook or printed, got {sizing!r}")
        channels = 2 * growth if stem_channels is None else stem_channels
        at_least(1, num_classes=num_classes, units=units, growth=growth, stem_channels=stem_channels)
        above(0, compression=compression)
        if int(channels * compression) < 1:
            raise ValueError(f"compression {compression} leaves none of {channels} channels behind a transition")
        self.stem = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        for block in range(3):
            layers.append(DenseBlock(channels, units, growth, recompute))
            channels += units * growth
            if block < 2 or sizing == "printed":
                layers.append(Transition(channels, int(channels * compression), pool=block < 2))
                channels = int(channels * compression)
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> logits [N, K]."""
        features = functional.relu(self.norm(self.blocks(self.stem(x))), inplace=True)
        return self.classifier(features.mean((2, 3)))
