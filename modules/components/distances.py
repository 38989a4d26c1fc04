"""How far apart two sets of images are, and how sure a number is. In float64.

Letters: N and M samples, D features.
"""

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 1000
"""Samples of a block of the kernel distance, as is usual."""


def frechet(a: Tensor, b: Tensor) -> float:
    """Squared Frechet distance of two Gaussians with the moments of a [N, D] and b [M, D].

    |mean difference|^2 + tr(A + B - 2 (A^1/2 B A^1/2)^1/2). It is biased upwards, the more the fewer the samples.

    Raises:
        ValueError: for fewer than two samples.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a Frechet distance needs two samples of each set at least")
    a, b = a.double(), b.double()
    gap = (a.mean(0) - b.mean(0)).square().sum()
    first, second = (torch.atleast_2d(torch.cov(x.T)) for x in (a, b))
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    return float(gap + first.trace() + second.trace() - 2 * cross)


def kernel_distance(a: Tensor, b: Tensor) -> tuple[float, float]:
    """Unbiased squared MMD under k(x, y) = (x.y / D + 1)^3, mean over blocks of samples, and its standard error.

    The standard error is NaN where there is a single block.
    """
    count = max(1, min(len(a), len(b)) // BLOCK)
    blocks = zip(a.double().tensor_split(count), b.double().tensor_split(count), strict=True)
    values = torch.stack([_kernel_block(x, y) for x, y in blocks])
    return float(values.mean()), float(values.std() / count**0.5) if count > 1 else float("nan")


def _kernel_block(a: Tensor, b: Tensor) -> Tensor:
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    n, m = len(a), len(b)
    aa, bb = kernel(a, a), kernel(b, b)
    within = (aa.sum() - aa.trace()) / (n * (n - 1)) + (bb.sum() - bb.trace()) / (m * (m - 1))
    return within - 2 * kernel(a, b).mean()


def bootstrap(statistic: Callable[[Tensor], float], count: int, draws: int = 50, seed: int = 0) -> tuple[float, float]:
    """A 95 % interval of ``statistic(indices)`` over resampled indices of ``count`` items.

    The pivotal one, 2 t - q: resampled sets hold fewer different items, which shifts a biased statistic once more.
    """
    generator = torch.Generator().manual_seed(seed)
    here = statistic(torch.arange(count))
    again = torch.tensor(
        [statistic(torch.randint(count, (count,), generator=generator)) for _ in range(draws)], dtype=torch.float64
    )
    low, high = torch.quantile(again, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return 2 * here - high, 2 * here - low


def spread(a: Tensor) -> float:
    """Mean squared distance of two different rows of [N, D]: what diversity is measured by."""
    return float(2 * a.double().var(0).sum())
