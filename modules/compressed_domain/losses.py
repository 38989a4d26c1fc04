"""The rate of a code from histograms, and the losses of codec and segmentation.

Letters: L centres.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

IGNORE = 255
"""Label of pixels that no loss and no score counts."""


def symbol_counts(symbols: Tensor, num_centers: int) -> Tensor:
    """Histogram int64 [L] of symbols of any shape."""
    counts = torch.zeros(num_centers, dtype=torch.int64, device=symbols.device)
    return counts.index_add_(0, symbols.flatten(), torch.ones_like(symbols).flatten())


def entropy_bits(counts: Tensor) -> Tensor:
    """Bits per symbol of the distribution that counts [L] describe."""
    p = counts.double() / counts.sum().clamp(min=1)
    return torch.special.entr(p).sum().float() / math.log(2)


def rate(assignments: Tensor, counts: Tensor) -> Tensor:
    """H(p) in bits per symbol, with the gradient of -sum_j q_j log2 p_j (Agustsson et al. 2017).

    p is the histogram of the symbols, a constant; q the mean of the soft assignments. A centre that no symbol uses
    counts as if one did, so that the logarithm is finite.

    Args:
        assignments: [..., L], each summing to 1.
        counts: [L], over all processes if there are several.
    """
    q = assignments.flatten(0, -2).mean(0)
    cross_entropy = -(q * (counts.clamp(min=1) / counts.sum()).log2()).sum()
    return cross_entropy + (entropy_bits(counts) - cross_entropy).detach()


def excess(bits: Tensor, target: float) -> Tensor:
    """max(H - H_t, 0): below its target the rate costs nothing."""
    return (bits - target).clamp(min=0)


def pixel_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels that are not 255.

    Args:
        logits: [N, K, H, W].
        mask: int64 [N, H, W].
    """
    total = functional.cross_entropy(logits, mask, ignore_index=IGNORE, reduction="sum")
    return total / (mask != IGNORE).sum().clamp(min=1)


def check_labels(labels: Tensor, num_classes: int) -> None:
    """Raise a ValueError for a label that is neither a class nor 255; on the CPU only, where nothing waits for it."""
    if labels.device.type == "cpu" and ((labels >= num_classes) & (labels != IGNORE)).any():
        largest = int(labels[labels != IGNORE].max())
        raise ValueError(f"a label is {largest}, the network has {num_classes} classes: set its init_args.num_classes")


def missed(logits: Tensor, label: Tensor, top: int = 1) -> Tensor:
    """Percentage [N], 0 or 100: the label is not among the ``top`` best."""
    best = logits.topk(min(top, logits.shape[1]), dim=1).indices
    return 100.0 * (best != label.unsqueeze(1)).all(1).float()
