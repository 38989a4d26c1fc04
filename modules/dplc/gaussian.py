"""DPLC where the best possible distortion is known: one Gaussian number, b bits, squared error.

    python -m modules.dplc.gaussian --bits 0 1 2 3

X ~ N(0, 1) is its own latent, so G is the identity; encoder and map are small networks of the real ones' kind, with the
real quantiser, noise and losses. Among all codes of 2^b symbols whose reconstructions follow N(0, 1) exactly, the best
has twice the error of the best quantiser (Lloyd-Max): with X~ = E[X | code], the error is E(X - X~)^2 plus the squared
Wasserstein distance of X~ to N(0, 1), which for intervals is 1 - Var X~ = E(X - X~)^2 again, and both are least for the
quantiser whose X~ varies most. Without bits the error is 2, of two independent draws.

A finite lambda buys a little distortion with a little distance. Where the reconstructions may be at distance P from
N(0, 1), the least error is D + (max(0, W - P))^2, with D of the quantiser and W the distance of its X~, here sqrt(D)
(Freirich, Michaeli, Meir, A theory of the distortion-perception tradeoff in Wasserstein space, NeurIPS 2021).

From random weights b bits find at most b + 1 cells of the 2^b: each bit learns one threshold, and the straight-through
gradient does not fold it. So the encoder starts from the cells of the best quantiser, numbered by a Gray code, learns
slowly, and lambda is raised from 0: the map first learns where the cells are. ``--start random`` leaves both out.
"""

import argparse
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from modules.components.quantizers import SoftHardQuantizer
from modules.dplc.losses import mmd, rmse

Start = Literal["gray", "random"]
RATE = 5e-3
"""Of the optimizer."""
ENCODER_SHARE = 1 / 250
"""Faster, the straight-through gradient merges cells again."""


class Outcome(NamedTuple):
    mse: float
    distance: float
    """Wasserstein-2 distance of the reconstructions to N(0, 1); 0 if they follow X."""
    variance: float
    """Of the reconstructions."""
    conditional_variance: float
    """Of the reconstructions of one code, mean over X."""
    cells: int
    """Codes that occur, each for one X of a thousand at least."""


class Quantizer(NamedTuple):
    edges: np.ndarray
    """Between the cells, ascending."""
    error: float


def lloyd_max(levels: int, iterations: int = 400) -> Quantizer:
    """The quantiser of N(0, 1) with so many levels and the least squared error."""
    centres = norm.ppf((np.arange(levels) + 0.5) / levels)
    for _ in range(iterations):
        edges = np.concatenate([[-np.inf], (centres[1:] + centres[:-1]) / 2, [np.inf]])
        mass = np.diff(norm.cdf(edges))
        centres = -np.diff(norm.pdf(edges)) / mass
    return Quantizer(edges[1:-1], float(1 - (mass * centres**2).sum()))


def best_error(levels: int, distance: float = 0.0) -> float:
    """Least squared error of so many codes where the reconstructions are so far from N(0, 1)."""
    least = lloyd_max(levels).error
    return least + max(0.0, least**0.5 - distance) ** 2


class GaussianCodec(nn.Module):
    """X [N, 1] -> b bits; bits and noise -> [N, 1]."""

    def __init__(self, bits: int, width: int = 64) -> None:
        super().__init__()
        layers = (nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.encoder = nn.Sequential(*layers, nn.Linear(width, bits)) if bits else None
        self.quantizer = SoftHardQuantizer(2, -0.5, 0.5, sigma=1.0)
        self.map = nn.Sequential(
            nn.Linear(bits + 1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.rand(len(x), 1) - 0.5
        if self.encoder is None:
            return self.map(noise)
        return self.map(torch.cat([self.quantizer(self.encoder(x)).values, noise], 1))


def gray_start(codec: GaussianCodec, bits: int, steps: int = 200) -> None:
    """Fit the encoder's outputs to -1 and 1 for the bits of the best cells; neighbours differ in one bit."""
    assert codec.encoder is not None
    edges = torch.from_numpy(lloyd_max(2**bits).edges).float()
    optimizer = torch.optim.Adam(codec.encoder.parameters(), 1e-2)
    for _ in range(steps):
        x = torch.randn(256, 1)
        cell = torch.bucketize(x, edges)
        wanted = ((cell ^ (cell >> 1)) >> torch.arange(bits)) & 1
        optimizer.zero_grad()
        (codec.encoder(x) - (2.0 * wanted - 1)).square().mean().backward()
        optimizer.step()


def train(
    bits: int, steps: int, mmd_weight: float = 10.0, start: Start = "gray", batch: int = 128, seed: int = 0
) -> GaussianCodec:
    """The objective of stage 2, rmse + lambda MMD, with Adam and rates that fall to zero.

    Args:
        bits: b.
        steps: of the optimizer.
        mmd_weight: lambda; with the start ``gray`` it is 0 for a fifth of the steps and whole from the middle on.
        start: of the encoder, which learns at 1/250 of the map's rate from ``gray``, and at the same from ``random``.
        batch, seed: as always.
    """
    is_split = start == "gray" and bits > 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = GaussianCodec(bits)
        if is_split:
            gray_start(codec, bits)
        rate = ENCODER_SHARE * RATE if is_split else RATE
        parts: list[dict[str, Any]] = [{"params": codec.map.parameters()}]
        parts += [{"params": codec.encoder.parameters(), "lr": rate}] if codec.encoder is not None else []
        optimizer = torch.optim.Adam(parts, RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for step in range(steps):
            x = torch.randn(batch, 1)
            x_hat = codec(x)
            raised = min(max((step / steps - 0.2) / 0.3, 0.0), 1.0) if is_split else 1.0
            loss = rmse(x_hat, x) + mmd_weight * raised * mmd(x_hat, torch.randn(batch, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return codec.eval()


@torch.no_grad()
def measure(codec: GaussianCodec, count: int = 200_000, seed: int = 1) -> Outcome:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x = torch.randn(count, 1)
        once, again = codec(x), codec(x)
        cells = 1
        if codec.encoder is not None:
            symbols = codec.quantizer(codec.encoder(x)).symbols
            cells = int((symbols.unique(dim=0, return_counts=True)[1] >= count / 1000).sum())
    wanted = torch.from_numpy(norm.ppf((np.arange(count) + 0.5) / count)).float()
    distance = (once[:, 0].sort().values - wanted).square().mean().sqrt()
    conditional = (once - again).square().mean() / 2
    return Outcome(float((once - x).square().mean()), float(distance), float(once.var()), float(conditional), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description="DPLC of a Gaussian number against the least possible error.")
    parser.add_argument("--bits", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--mmd-weight", type=float, default=10.0)
    parser.add_argument("--start", choices=["gray", "random"], default="gray")
    arguments = parser.parse_args()
    print("bits  cells   error  distance  least there  least at 0  quantiser  conditional variance")
    for bits in arguments.bits:
        out = measure(train(bits, arguments.steps, arguments.mmd_weight, arguments.start))
        there, at_0 = best_error(2**bits, out.distance), best_error(2**bits)
        print(
            f"{bits:4d}  {out.cells:5d}  {out.mse:.4f}    {out.distance:.4f}       {there:.4f}      {at_0:.4f}     "
            f"{lloyd_max(2**bits).error:.4f}                {out.conditional_variance:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
