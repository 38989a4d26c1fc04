"""Weighted cross-entropy (section 6)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

PERCENTAGES = (59.52, 8.89, 28.32, 3.27)
"""Shares of N, A, O, ~ in the reference labels, version 3, as the authors' code has them."""


def published_weights(percentages: Sequence[float] = PERCENTAGES) -> Tensor:
    """0.8 + 0.2 * 100 / percentage: N 1.136, A 3.050, O 1.506, ~ 6.916."""
    return 0.8 + 0.2 * 100 / torch.tensor(percentages)


def weighted_cross_entropy(
    logits: Tensor, label: Tensor, weights: Tensor | None, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """Cross-entropy in nats times the weight of the true class, summed over the batch (code) or averaged over it.

    ``weights`` are float32 [K] on the device of the logits. The mean divides by the number of records, not by their
    weights.
    """
    per_record = functional.cross_entropy(logits.float(), label, reduction="none")
    if weights is not None:
        per_record = per_record * weights[label]
    return per_record.sum() if reduction == "sum" else per_record.mean()
