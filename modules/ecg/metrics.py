"""The challenge's score (section 8): the mean F1 of normal, atrial fibrillation and other rhythm."""

import torch
from torch import Tensor
from torchmetrics import Metric

SCORED = (0, 1, 2)
"""N, A, O. Noisy records have no term of their own but count where they are taken for another class."""


def f1_per_class(confusion: Tensor) -> Tensor:
    """2 TP / (actual + predicted) of each class [K], NaN where a class neither occurs nor is predicted.

    Args:
        confusion: [K, K] counts, rows the true class, columns the predicted one.
    """
    return 2 * confusion.diagonal().double() / (confusion.sum(0) + confusion.sum(1))


def challenge_f1(confusion: Tensor) -> Tensor:
    """The mean of the defined F1 values of N, A and O; NaN if none is."""
    return f1_per_class(confusion)[list(SCORED)].nanmean().float()


class ChallengeF1(Metric):
    """Counts a confusion matrix over batches and ranks; its value is ``challenge_f1``."""

    full_state_update = False
    higher_is_better = True
    confusion: Tensor

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.num_classes = num_classes
        counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("confusion", counts, dist_reduce_fx="sum")

    def update(self, logits: Tensor, label: Tensor) -> None:
        """Logits or probabilities [N, K] and true classes [N]."""
        pairs = label * self.num_classes + logits.argmax(1)
        self.confusion.view(-1).scatter_add_(0, pairs, torch.ones_like(pairs))  # bincount would wait for the device

    def compute(self) -> Tensor:
        return challenge_f1(self.confusion)

    def matrix(self) -> Tensor:
        """The confusion matrix of all ranks; a collective."""
        with self.sync_context():
            return self.confusion.clone()
