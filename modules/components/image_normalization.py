"""Images in, what classifiers take out."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImageNormalization(nn.Module):
    """uint8 [N, 3, H, W] -> zero mean and unit variance, in channels_last; it is in no checkpoint.

    Args:
        mean, std: of the three channels, in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
