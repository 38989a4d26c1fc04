"""How the image networks draw their first weights, from torch's global random numbers."""

import math

from torch import nn


def draw_weights(network: nn.Module) -> None:
    """Convolutions and linear layers of a new network; batch norms have theirs.

    Convolutions: He's normal over fan-out, as in the code of both Wide-ResNet and DenseNet. Linear layers:
    U(+-1 / sqrt(inputs)), bias 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            nn.init.normal_(layer.weight, std=math.sqrt(2.0 / fan_out))
        elif isinstance(layer, nn.Linear):
            bound = 1.0 / math.sqrt(layer.in_features)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(layer.bias)
