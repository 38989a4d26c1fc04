"""Wide-ResNet, and the residual students of a DenseNet (section 4 of the paper). Units are pre-activated.

Letters: N batch, C channels, H and W image size, K classes.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.born_again.densenet import Transition
from modules.born_again.initialisation import draw_weights
from modules.components.options import above, at_least, within


class WideUnit(nn.Module):
    """BN-ReLU-conv3x3, BN-ReLU-dropout-conv3x3, + input.

    Where the shape changes, a 1x1 convolution of the activated input takes the input's place.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x), inplace=True)
        skipped = x if self.shortcut is None else self.shortcut(active)
        inner = functional.relu(self.norm2(self.conv1(active)), inplace=True)
        return skipped + self.conv2(self.dropout(inner))


class BottleneckUnit(nn.Module):
    """BN-ReLU-conv1x1, BN-ReLU-conv3x3, BN-ReLU-conv1x1, + input; a quarter of the channels inside.

    Where the number of channels changes, a 1x1 convolution of the activated input takes the input's place.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        inner = max(outputs // 4, 1)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = functional.relu(self.norm1(x), inplace=True)
        skipped = x if self.shortcut is None else self.shortcut(active)
        inner = functional.relu(self.norm2(self.conv1(active)), inplace=True)
        return skipped + self.conv3(functional.relu(self.norm3(self.conv2(inner)), inplace=True))


class WideResNet(nn.Module):
    """Wide-ResNet-28-w; 0.38, 1.48, 9.16 and 36.5 M parameters for w = 1, 2, 5, 10 and 100 classes.

    A 3x3 convolution, three stages of (depth - 4) / 6 units with w, 2 w and 4 w times ``base_channels`` at 32, 16
    and 8 pixels, BN-ReLU, the mean over the image, one linear layer.

    Args:
        num_classes: K.
        depth: of 6 n + 4 layers: 10, 16, 22, 28, 34, 40.
        width: w.
        dropout: between the convolutions of a unit. The paper uses it and prints no rate; Wide-ResNet's is 0.3.
        base_channels: of the first convolution; fewer than 16 make a narrower network than w = 1.

    Raises:
        ValueError: for a depth that is not 6 n + 4, or channels below 1.
    """

    def __init__(
        self,
        num_classes: int = 10,
        depth: int = 28,
        width: int = 2,
        dropout: float = 0.0,
        base_channels: int = 16,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth must be 6 n + 4 (10, 16, 22, 28, ...), got {depth}")
        at_least(1, num_classes=num_classes, width=width, base_channels=base_channels)
        within(0, 1, dropout=dropout)
        self.stem = nn.Conv2d(3, base_channels, 3, padding=1, bias=False)
        channels, stages = base_channels, []
        for stage in range(3):
            outputs = base_channels * width * 2**stage
            units = [WideUnit(channels, outputs, 1 if stage == 0 else 2, dropout)]
            units += [WideUnit(outputs, outputs, 1, dropout) for _ in range((depth - 4) // 6 - 1)]
            stages.append(nn.Sequential(*units))
            channels = outputs
        self.stages = nn.Sequential(*stages)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        draw_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> logits [N, K]."""
        features = functional.relu(self.norm(self.stages(self.stem(x))), inplace=True)
        return self.classifier(features.mean((2, 3)))


class ResNetStudent(nn.Module):
    """A DenseNet with residual units in place of its dense blocks, and its teacher's first and last layer.

    Block b has ``units`` units of ratio * ``widths[b]`` channels, then a 1x1 convolution to ``widths[b]``, the
    teacher's channels there, then (but for the last) pooling. This design is inferred from the printed sizes, which
    its trainable parameters match, cut to one decimal, with Wide units of a 90-60 teacher (100 classes): 20.99, 43.11,
    24.33, 87.35 M for units-ratio 1-1, 2-1, 4-0.5, 4-1 (paper: 20.9, 43.1, 24.3, 87.3). With bottlenecks it
    does not: 20.33 and 5.65 M for 14-1 and 14-0.5 (paper: 17.7 and 7.3), nor does any design that was tried.

    ``inherit`` gives it the teacher's layers; a network without them is trained as a whole.

    Args:
        num_classes: K.
        units: in the place of each dense block; the paper's 1, 2 and 4 (wide) and 14 (bottleneck).
        ratio: of the channels to the teacher's behind a transition, the result rounded.
        unit: ``wide`` (two 3x3 convolutions) or ``bottleneck``.
        stem_channels: of the teacher's first convolution.
        widths: the teacher's channels behind each transition; by default those of 90-60 with ``printed`` sizing.

    Raises:
        ValueError: for an unknown unit or sizes that make no network.
    """

    def __init__(
        self,
        num_classes: int = 100,
        units: int = 1,
        ratio: float = 1.0,
        unit: Literal["wide", "bottleneck"] = "wide",
        stem_channels: int = 120,
        widths: Sequence[int] = (480, 660, 750),
    ) -> None:
        super().__init__()
        if unit not in ("wide", "bottleneck"):
            raise ValueError(f"unit must be wide or bottleneck, got {unit!r}")
        at_least(1, num_classes=num_classes, units=units, stem_channels=stem_channels)
        above(0, ratio=ratio)
        if len(widths) != 3 or min(round(ratio * width) for width in widths) < 1:
            raise ValueError(
                "a residual student needs three widths that times ratio are at least 1, got "
                f"widths={list(widths)}, ratio={ratio}"
            )
        make = WideUnit if unit == "wide" else BottleneckUnit
        self.stem = nn.Conv2d(3, stem_channels, 3, padding=1, bias=False)
        channels, layers = stem_channels, []
        for block, width in enumerate(widths):
            outputs = round(ratio * width)
            stage = [make(channels, outputs), *(make(outputs, outputs) for _ in range(units - 1))]
            layers += [nn.Sequential(*stage), Transition(outputs, width, pool=block < 2)]
            channels = width
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.classifier = nn.Linear(channels, num_classes)
        self.inherited = False
        for part in (self.blocks, self.stem, self.classifier):  # another order gives a seed other weights
            draw_weights(part)

    def inherit(self, teacher: nn.Module) -> None:
        """Copy the teacher's ``stem`` and ``classifier`` and freeze them, for good.

        Call it before the optimizer is made and before the module is wrapped for DDP.

        Raises:
            ValueError: if the teacher has no such layers or they have other shapes.
        """
        pairs = []
        for name in ("stem", "classifier"):
            theirs = getattr(teacher, name, None)
            if not isinstance(theirs, nn.Module):
                raise ValueError(f"a {type(teacher).__name__} has no {name} to inherit: the teacher must be a DenseNet")
            mine, given = getattr(self, name).state_dict(), theirs.state_dict()
            for key in mine.keys() | given.keys():
                want, have = (tuple(s[key].shape) if key in s else None for s in (mine, given))
                if want != have:
                    raise ValueError(
                        f"{name}.{key} is {want} in the student and {have} in the teacher: set num_classes, "
                        "stem_channels and the last of widths to the teacher's"
                    )
            pairs.append((getattr(self, name), given))
        for layer, state in pairs:
            layer.load_state_dict(state)
        self.freeze_inherited()

    def freeze_inherited(self) -> None:
        self.inherited = True
        for layer in (self.stem, self.classifier):
            layer.requires_grad_(False)

    def get_extra_state(self) -> Tensor:
        """Whether layers are inherited: part of the state, so that a resumed student keeps them."""
        return torch.tensor(self.inherited)

    def set_extra_state(self, state: Tensor) -> None:
        if state:
            self.freeze_inherited()

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> logits [N, K]."""
        features = functional.relu(self.norm(self.blocks(self.stem(x))), inplace=True)
        return self.classifier(features.mean((2, 3)))
