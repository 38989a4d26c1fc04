"""A network that labels pixels, to judge images by what it still finds in them."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.cityscapes_labels import NUM_LABELS, NUM_TRAIN_LABELS, TRAIN_IDS
from modules.components.features import IMAGENET_MEAN, IMAGENET_STD

Pixels = Literal["bytes", "unit", "imagenet"]
Labels = Literal["ids", "train_ids"]


class Segmenter(nn.Module):
    """Images uint8 [N, 3, H, W] -> classes int64 [N, H, W], by any network that a config names.

    Args:
        network: images [N, 3, H, W] -> scores [N, K, H, W], or torchvision's dictionary that has them as ``out``.
        weights: file of its weights, read by ``load``: a checkpoint of a run that trained it as ``network``, or names
            and tensors alone, as torchvision publishes them.
        pixels: what it takes: 0..255, 0..1, or 0..1 less ImageNet's mean and over its deviation.
        labels: its classes: Cityscapes' ``ids`` 0..33 or ``train_ids`` 0..18.

    Raises:
        ValueError: for other pixels or labels.
    """

    mean: Tensor
    std: Tensor
    train_ids: Tensor

    def __init__(
        self, network: nn.Module, weights: str, pixels: Pixels = "bytes", labels: Labels = "train_ids"
    ) -> None:
        super().__init__()
        if pixels not in ("bytes", "unit", "imagenet") or labels not in ("ids", "train_ids"):
            raise ValueError(f"pixels are bytes, unit or imagenet, labels ids or train_ids; got {pixels!r}, {labels!r}")
        self.network, self.weights, self.pixels, self.labels = network, weights, pixels, labels
        self.num_classes = NUM_LABELS if labels == "ids" else NUM_TRAIN_LABELS
        for name, value in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)
        self.register_buffer("train_ids", torch.from_numpy(TRAIN_IDS).long(), persistent=False)

    def load(self) -> None:
        """Read the weights.

        Raises:
            FileNotFoundError: if there is no such file.
            CheckpointError: if it holds other weights.
        """
        content = read_checkpoint(self.weights)
        state: dict[str, Any] = content.get("state_dict", content)
        if any(name.startswith("network.") for name in state):
            state = {n.removeprefix("network."): value for n, value in state.items() if n.startswith("network.")}
        try:
            self.network.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{self.weights} does not fit {type(self.network).__name__}: {reason}") from error

    def truth(self, mask: Tensor) -> Tensor:
        """Label ids int64 [N, H, W], 255 unknown, as this network's classes; what it does not know becomes 255."""
        return self.train_ids[mask] if self.labels == "train_ids" else mask

    def forward(self, image: Tensor) -> Tensor:
        """Classes of pixels uint8.

        Raises:
            ValueError: if the network gives scores of another number of classes or another size.
        """
        x = image.float() if self.pixels == "bytes" else image.float() / 255
        found = self.network((x - self.mean) / self.std if self.pixels == "imagenet" else x)
        scores: Tensor = found["out"] if isinstance(found, dict) else found
        expected = (len(image), self.num_classes, *image.shape[-2:])
        if tuple(scores.shape) != expected:
            raise ValueError(
                f"{type(self.network).__name__} gives {tuple(scores.shape)} for {tuple(image.shape)}, not {expected}: "
                f"give a network of the {self.num_classes} classes that labels {self.labels} are"
            )
        return scores.argmax(1)


def confusion(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """int64 [K, K], rows by truth: how many pixels; those whose truth is K or more count nowhere.

    Args:
        truth, predicted: classes int64 of one shape.
    """
    known = truth < num_classes
    pairs = truth[known] * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def mean_iou(confusion: Tensor) -> Tensor:
    """Percentage: intersection over union, averaged over the classes that truth or prediction has; NaN if none.

    No device waits for it.

    Args:
        confusion: int64 [K, K].
    """
    right = confusion.diagonal().double()
    union = confusion.sum(0) + confusion.sum(1) - right
    return 100 * (right / union.clamp(min=1)).sum().float() / (union > 0).sum()
