"""The networks of the paper's image experiments, and their converted forms.

Letters: N batch, K classes.
"""

from typing import Literal

import torchvision
from torch import Tensor, nn
from torch.nn import functional

from modules.components.options import at_least
from modules.strassen.conversion import Rule, SPNNetwork

QuantizerName = Literal["rescaled", "fixed"]


class BasicBlock(nn.Module):
    """conv3x3-BN-ReLU-conv3x3-BN, + input, ReLU; a 1x1 convolution with BN on the input where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module | None = None
        if inputs != outputs or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        return functional.relu(inner + (x if self.shortcut is None else self.shortcut(x)))


class ResNet20(nn.Module):
    """The CIFAR ResNet-20 of the authors' notebook: 272,442 parameters.

    Three stages of three blocks with 16, 32 and 64 channels; no norm behind the first convolution; projections, not
    zero padding, on the two shortcuts; the mean over the image; a linear layer.

    Args:
        num_classes: K.
        width: of the first stage, 16 in the paper.
        blocks: of each stage.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(self, num_classes: int = 10, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes, width=width, blocks=blocks)
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        channels, stages = width, []
        for stage in range(3):
            outputs = width * 2**stage
            units = [BasicBlock(channels, outputs, 1 if stage == 0 else 2)]
            units += [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*units))
            channels = outputs
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> logits [N, K]."""
        return self.classifier(self.stages(self.stem(x)).mean((2, 3)))


class VGG7(nn.Module):
    """2 x 128, 2 x 256, 2 x 512 convolutions, each pair pooled, dense 1024, dense K: 12.98 M parameters.

    The order is convolution, (pooling), BN, ReLU; images are 32x32. No ReLU follows the classifier's norm: in the
    authors' code it was added to the features by mistake.

    Args:
        num_classes: K.
        width: of the first pair, 128 in the paper; the others follow.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(self, num_classes: int = 10, width: int = 128) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes, width=width)
        layers: list[nn.Module] = []
        channels = 3
        for pair in range(3):
            outputs = width * 2**pair
            for second in (False, True):
                layers.append(nn.Conv2d(channels, outputs, 3, padding=1, bias=False))
                layers += [nn.MaxPool2d(2)] if second else []
                layers += [nn.BatchNorm2d(outputs), nn.ReLU()]
                channels = outputs
        self.features = nn.Sequential(*layers)
        self.dense = nn.Linear(channels * 16, 8 * width, bias=False)
        self.norm = nn.BatchNorm1d(8 * width)
        self.classifier = nn.Linear(8 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, 32, 32] -> logits [N, K]."""
        return self.classifier(self.norm(self.dense(self.features(x).flatten(1))))


class ResNet18(nn.Module):
    """torchvision's ResNet-18, 11,689,512 parameters with 1000 classes.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes)
        self.network = torchvision.models.resnet18(num_classes=num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images [N, 3, H, W] -> logits [N, K]."""
        return self.network(x)


class SPNResNet20(SPNNetwork):
    """ResNet-20 with SPNs for all convolutions; the 1x1 shortcuts have p = g = 1, the last layer stays real.

    Args:
        num_classes, width, blocks: of ``ResNet20``.
        ratio: r over the output channels.
        patch: p.
        groups: g, of the 3x3 convolutions inside the stages.
        quantizer: ``rescaled`` or ``fixed``.
    """

    def __init__(
        self,
        num_classes: int = 10,
        width: int = 16,
        blocks: int = 3,
        ratio: float = 1.0,
        patch: int = 1,
        groups: int = 1,
        quantizer: QuantizerName = "rescaled",
    ) -> None:
        rules = [
            Rule("stem", "conv", ratio=ratio, patch=patch, quantizer=quantizer),
            Rule(kind="conv", kernel=1, ratio=ratio, quantizer=quantizer),
            Rule(kind="conv", ratio=ratio, patch=patch, groups=groups, quantizer=quantizer),
        ]
        super().__init__(ResNet20(num_classes, width, blocks), rules)


class SPNVGG7(SPNNetwork):
    """VGG-7 with SPNs for all convolutions and the first dense layer (r = its outputs); the last layer stays real.

    Args:
        num_classes, width: of ``VGG7``.
        ratio, patch, groups, quantizer: as in ``SPNResNet20``; the authors' script has the fixed threshold.
    """

    def __init__(
        self,
        num_classes: int = 10,
        width: int = 128,
        ratio: float = 1.0,
        patch: int = 1,
        groups: int = 1,
        quantizer: QuantizerName = "fixed",
    ) -> None:
        rules = [
            Rule(r"features\.0", "conv", ratio=ratio, patch=patch, quantizer=quantizer),
            Rule(kind="conv", ratio=ratio, patch=patch, groups=groups, quantizer=quantizer),
            Rule("dense", quantizer=quantizer),
        ]
        super().__init__(VGG7(num_classes, width), rules)


class SPNResNet18(SPNNetwork):
    """ResNet-18 with SPNs for all convolutions; g acts on the 3x3 ones alone.

    The last layer is an SPN of K units for ratios up to 1 and stays real above, as the counts of the paper have it.

    Args:
        num_classes: K.
        ratio, patch, groups, quantizer: as in ``SPNResNet20``.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        ratio: float = 1.0,
        patch: int = 1,
        groups: int = 1,
        quantizer: QuantizerName = "rescaled",
    ) -> None:
        at_least(1, num_classes=num_classes)
        rules = [
            Rule(kind="conv", kernel=3, ratio=ratio, patch=patch, groups=groups, quantizer=quantizer),
            Rule(kind="conv", ratio=ratio, patch=patch, quantizer=quantizer),
            Rule(kind="linear", units=num_classes, keep=ratio > 1, quantizer=quantizer),
        ]
        super().__init__(ResNet18(num_classes), rules)
