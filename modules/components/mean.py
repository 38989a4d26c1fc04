"""A weighted mean for logging that a GPU does not wait for."""

import torch
from torch import Tensor
from torchmetrics import MeanMetric


class Mean(MeanMetric):
    """torchmetrics' mean over batches and ranks, without its search for NaN, at which the host waits for the device.

    (Its own way to do without, ``nan_strategy="disable"``, leaves out the weights in torchmetrics 1.9.)
    """

    def update(self, value: Tensor | float, weight: Tensor | float = 1.0) -> None:  # type: ignore[override]
        """Take in a number or a tensor of any shape; ``weight`` is one for all of it or of its shape."""
        value = torch.as_tensor(value, dtype=self.dtype, device=self.device).detach()
        self.mean_value += (value * weight).sum()
        self.weight += (
            weight * value.numel() if isinstance(weight, (int, float)) else torch.sum(weight.expand_as(value))
        )
