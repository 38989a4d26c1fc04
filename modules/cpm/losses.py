"""CPM's objective beside MS-SSIM: bits of the symbols, a hinge on the rate, weight decay.

Letters: N batch, K code channels, L centres, h and w code size.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.cpm.nets import CPMNet

Counted = Literal["average", "masked"]


def symbol_bits(logits: Tensor, symbols: Tensor) -> Tensor:
    """Bits [N, K, h, w] of symbols int64 [N, K, h, w] under logits [N, L, K, h, w]."""
    return functional.cross_entropy(logits.float(), symbols, reduction="none") / math.log(2)


def rate_hinge(bits: Tensor, mask: Tensor, target: float, counted: Counted = "average") -> Tensor:
    """Bits a symbol above ``target``; 0 below it.

    Args:
        bits, mask: [N, K, h, w]. The mask is the only way for the encoder to lower the rate.
        counted: ``masked`` counts the mean of bits times mask (the paper), ``average`` the mean of that and of the bits
            themselves (the authors' code).
    """
    masked = (bits * mask).mean()
    return functional.relu((masked if counted == "masked" else (masked + bits.mean()) / 2) - target)


def weight_decay(network: CPMNet, kernels: float, centers: float) -> Tensor:
    """Half the sums of squares of the auto-encoder's kernels and of the centres, weighted; not of norms, not of P."""
    layers = [m for part in (network.encoder, network.decoder) for m in part.modules()]
    squares = [m.weight.square().sum() for m in layers if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    return (kernels * torch.stack(squares).sum() + centers * network.quantizer.levels.square().sum()) / 2
