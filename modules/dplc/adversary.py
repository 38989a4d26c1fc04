"""The critic and its losses, as the generative model and the GC baseline use them."""

import torch
from torch import Tensor, nn

from modules.components.options import at_least
from modules.dplc.losses import Per, gradient_penalty
from modules.dplc.nets import Critic


class Adversary(nn.Module):
    """A Wasserstein critic with gradient penalty, always in float32: half precision overflows in the penalty.

    Args:
        width: of the critic.
        weight: of the generator's term -f(G(z)): 1 for WGAN-GP, 2.5e-5 for Wasserstein++ on CelebA.
        steps: critic steps, each on a batch of its own, for one generator step.
        penalty: norm of the gradient penalty, see ``losses.gradient_penalty``.
        penalty_weight: its weight.
        chunks: pieces in which a batch passes through the critic; their gradients are summed, which needs less
            memory and gives the same step.
    """

    def __init__(
        self,
        width: int = 64,
        weight: float = 1.0,
        steps: int = 5,
        penalty: Per = "pixel",
        penalty_weight: float = 10.0,
        chunks: int = 1,
    ) -> None:
        super().__init__()
        at_least(1, width=width, steps=steps, chunks=chunks)
        at_least(0, weight=weight, penalty_weight=penalty_weight)
        if penalty not in ("pixel", "image"):
            raise ValueError(f"penalty must be pixel or image, not {penalty!r}")
        self.critic = Critic(width)
        self.weight, self.steps, self.chunks = weight, steps, chunks
        self.penalty, self.penalty_weight = penalty, penalty_weight

    def forward(self, x: Tensor) -> Tensor:
        """f(x), float32 [N], of images [N, 3, 64, 64] in [-1, 1]."""
        with torch.autocast(x.device.type, enabled=False):
            return self.critic(x.float().contiguous()).flatten()

    def critic_terms(self, real: Tensor, fake: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """mean f(real) - mean f(fake), the Wasserstein distance that the critic estimates; and the penalty.

        Args:
            real, fake: images without a graph.
            alpha: [N, 1, 1, 1] in [0, 1], where between the two the penalty is taken.
        """
        penalty = gradient_penalty(self, real.float(), fake.float(), alpha, self.penalty)
        return self(real).mean() - self(fake).mean(), penalty

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -self.weight * self(fake).mean()
