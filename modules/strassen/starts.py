"""Many matrix multiplication algorithms in training at once: every weight has a leading dimension of starts."""

import torch
from torch import Tensor, nn

from modules.strassen.bilinear import MAX_RANK, MAX_SIDE, Algorithm, exact_starts, rounded

STAGES = ("full", "quantized")
MAX_WEIGHTS = 1 << 28
"""Of all starts together: 2 GiB."""


class BilinearStarts(nn.Module):
    """S algorithms for n x m times m x p at rank r, drawn from U(-1, 1), in double precision.

    In the stage ``quantized`` products are computed with weights rounded to -1, 0, 1 (threshold 0.5) and gradients go
    straight through.

    Args:
        n, m, p: sides of the matrices.
        rank: r, number of multiplications.
        starts: S.
        clip: whether ``forward`` first clips the weights to -1..1, which lets them come back over the threshold.
        seed: of the weights.

    Raises:
        ValueError: for sizes below 1, sides or a rank that a file of algorithms does not take, or more than
            ``MAX_WEIGHTS`` weights.
    """

    def __init__(
        self, n: int = 2, m: int = 2, p: int = 2, rank: int = 7, starts: int = 500, clip: bool = False, seed: int = 0
    ) -> None:
        super().__init__()
        if min(n, m, p, rank, starts) < 1:
            raise ValueError(f"n, m, p, rank and starts must be at least 1, got {n}, {m}, {p}, {rank}, {starts}")
        if max(n, m, p) > MAX_SIDE or rank > MAX_RANK:
            raise ValueError(f"sides go up to {MAX_SIDE} and the rank to {MAX_RANK}, got {n}, {m}, {p} and {rank}")
        if (weights := starts * rank * (n * m + m * p + n * p)) > MAX_WEIGHTS:
            raise ValueError(f"{starts} starts have {weights} weights, more than {MAX_WEIGHTS}: take fewer")
        self.sides, self.clip, self.stage = (n, m, p), clip, "full"
        generator = torch.Generator().manual_seed(seed)
        sizes = (n * m, m * p, n * p)
        drawn = [2 * torch.rand(starts, rank, size, generator=generator, dtype=torch.float64) - 1 for size in sizes]
        self.first, self.second, self.third = (nn.Parameter(weight) for weight in drawn)

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.first, self.second, self.third

    def in_use(self, weight: Tensor) -> Tensor:
        if self.clip:
            weight.data.clamp_(-1.0, 1.0)  # outside of the gradient
        return weight if self.stage == "full" else weight + (rounded(weight) - weight).detach()

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Pairs [B, n, m] and [B, m, p] -> products [S, B, n, p] of every start."""
        first, second, third = (self.in_use(weight) for weight in self.weights)
        a, b = (matrix.mT.flatten(1).to(first) for matrix in (left, right))  # column by column
        hidden = (a @ first.mT) * (b @ second.mT)
        return (hidden @ third).unflatten(2, (self.sides[2], self.sides[0])).mT

    def exact(self) -> Tensor:
        """Which starts, bool [S], are exact once rounded."""
        return exact_starts(*(weight.detach() for weight in self.weights))

    def algorithms(self) -> list[Algorithm]:
        """The exact ones, in integers."""
        chosen = self.exact()
        parts = [rounded(weight.detach())[chosen].long().cpu().numpy() for weight in self.weights]
        return [Algorithm(self.sides, a, b, c.T.copy()) for a, b, c in zip(*parts, strict=True)]
