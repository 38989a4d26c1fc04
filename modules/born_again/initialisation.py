"""How the image networks draw their first weights, at construction and again at the start of every generation."""

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def draw_normal(weight: Tensor, std: float) -> None:
    """Fill with N(0, std^2). Drawn in the order of the indices, so that channels_last weights get the same numbers."""
    with torch.no_grad():
        weight.copy_(torch.empty_like(weight, memory_format=torch.contiguous_format).normal_(0.0, std))


def draw_uniform(weight: Tensor, bound: float) -> None:
    """Fill with U(-bound, bound), in the order of the indices."""
    with torch.no_grad():
        weight.copy_(torch.empty_like(weight, memory_format=torch.contiguous_format).uniform_(-bound, bound))


def draw_weights(network: nn.Module) -> None:
    """Start every layer anew, from torch's global random numbers.

    Convolutions: He's normal over fan-out, as in the code of both Wide-ResNet and DenseNet. Batch norms: weight 1,
    bias 0, mean 0, variance 1, no batches seen. Linear layers: U(+-1 / sqrt(inputs)), bias 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_out = layer.out_channels * math.prod(layer.kernel_size)
            draw_normal(layer.weight, math.sqrt(2.0 / fan_out))
        elif isinstance(layer, _BatchNorm):  # also what sync_batchnorm puts in its place
            layer.reset_parameters()
        elif isinstance(layer, nn.Linear):
            draw_uniform(layer.weight, 1.0 / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
