"""The terms of DPLC's objectives as pure functions, in float32 or better.

Letters: N images, m latent dimension. Images are in [-1, 1].
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Per = Literal["pixel", "image"]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
CELEBA_WEIGHTS = {2: 635.0, 8: 300.0, 32: 173.0, 128: 129.0}
"""c -> lambda(R). 300 is published; the others are proportional to the MSE of the CAE in the paper's CelebA curve."""


def scaled(image: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] -> [-1, 1], channels_last."""
    return (image / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def to_bytes(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8, rounded and clamped."""
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def rmse(x_hat: Tensor, x: Tensor) -> Tensor:
    """Root of the mean over images, channels and pixels together: the authors' distortion, not a mean of roots."""
    return (x_hat.float() - x).square().mean().clamp_min(1e-12).sqrt()


def mmd(q: Tensor, z: Tensor, variance: float = 1.0) -> Tensor:
    """Maximum mean discrepancy of two samples [N, m], inverse multiquadratic kernels summed over seven scales.

    k_s(a, b) = C_s / (C_s + |a - b|^2) with C_s = 2 m variance s. Unbiased within each sample (no i = j there), so
    the value may be slightly negative; the cross term keeps i = j, as the authors' does.

    Raises:
        ValueError: for fewer than two rows.
    """
    n, m = q.shape
    if n < 2:
        raise ValueError(f"MMD compares samples of two rows or more, not {n}: use a larger batch")
    q, z = q.float(), z.float()
    with torch.autocast(q.device.type, enabled=False):
        both = torch.cat([q, z])
        squares = both.square().sum(1)
        distances = (squares[:, None] + squares - 2 * both @ both.T).clamp_min(0)
    kernel = torch.zeros_like(distances)
    for scale in SCALES:  # numbers, not a tensor of them, which would have to travel to the device
        c = 2 * m * variance * scale
        kernel = kernel + c / (c + distances)
    within = kernel[:n, :n].sum() + kernel[n:, n:].sum() - 2 * n * len(SCALES)  # k(a, a) = 1
    return within / (n * (n - 1)) - 2 * kernel[:n, n:].mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor, per: Per) -> Tensor:
    """Mean of (|g| - 1)^2 for the critic's gradient g at a x + (1 - a) G(z).

    Args:
        critic: of images; its output is summed.
        real, fake: [N, 3, H, W], without a graph.
        alpha: a in [0, 1], [N, 1, 1, 1].
        per: "pixel": the norm over the 3 channels of each pixel, as the published code has it; "image": over the
            whole image, as in Gulrajani et al. The former asks for about sqrt(H W) times larger image gradients, and
            the weight of the adversarial loss belongs to it: with "image" begin with 64 times the published weight.
    """
    x = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    axes = 1 if per == "pixel" else (1, 2, 3)
    norms = (gradient.square().sum(axes) + 1e-12).sqrt()  # the root of 0 has no gradient
    return (norms - 1).square().mean()


def rate_weight(channels: int) -> float:
    """lambda(R) for c channels: the CelebA values, between them on straight lines in log c and log lambda."""
    known = sorted(CELEBA_WEIGHTS)
    c, x = torch.log(torch.tensor([float(channels)])), torch.log(torch.tensor([float(k) for k in known]))
    y = torch.log(torch.tensor([CELEBA_WEIGHTS[k] for k in known]))
    right = int(torch.searchsorted(x, c).clamp(1, len(known) - 1))
    slope = (y[right] - y[right - 1]) / (x[right] - x[right - 1])
    return float((y[right] + slope * (c - x[right])).exp())
