"""Perplexity of a text that is read in windows."""

import torch
from torch import Tensor
from torch.nn.functional import nll_loss
from torchmetrics import Metric

from modules.born_again.losses import NO_LABEL


class Perplexity(Metric):
    """exp of the mean negative log-likelihood (nats) of all tokens, over all updates and ranks.

    Sums are float64 and tokens are counted, so it does not matter how the text was cut.
    """

    full_state_update = False
    nats: Tensor
    tokens: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("nats", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, log_probabilities: Tensor, targets: Tensor) -> None:
        """Logarithms [..., V] of the tokens' probabilities and targets int64 [...], where -100 does not count."""
        log_probabilities, targets = log_probabilities.flatten(0, -2), targets.flatten()
        losses = nll_loss(log_probabilities, targets, ignore_index=NO_LABEL, reduction="none")
        self.nats += losses.double().sum()
        self.tokens += (targets != NO_LABEL).sum()

    def compute(self) -> Tensor:
        return (self.nats / self.tokens).exp().float()

    def set_dtype(self, dst_type: str | torch.dtype) -> "Perplexity":
        """The sums stay float64."""
        return self
