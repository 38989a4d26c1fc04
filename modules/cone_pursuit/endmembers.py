"""Pixels that may serve as endmembers of a hyperspectral image: SPA, VCA and XRAY.

Letters: N pixels, d bands, r endmembers. Each function maps non-negative pixels [N, d] to r different rows, int64 [r].
SPA and VCA scale the pixels to sum 1, which puts mixtures of r endmembers into the simplex that these span.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from modules.cone_pursuit.nnls import nnls


def sum_to_one(pixels: Tensor) -> Tensor:
    sums = pixels.sum(1, keepdim=True)
    return pixels / torch.where(sums > 0, sums, 1.0)


def successive_projection(pixels: Tensor, number: int) -> Tensor:
    """SPA (Araujo et al. 2001): the longest pixel, then the longest of what is orthogonal to those taken, and so on."""
    rest = sum_to_one(pixels)
    taken: list[int] = []
    for _ in range(number):
        lengths = rest.square().sum(1)
        lengths[taken] = -1.0
        taken.append(int(lengths.argmax()))
        direction = rest[taken[-1]]
        direction = direction / direction.norm().clamp_min(torch.finfo(rest.dtype).tiny)
        rest = rest - (rest @ direction)[:, None] * direction
    return torch.tensor(taken)


def vertex_components(pixels: Tensor, number: int, seed: int = 0) -> Tensor:
    """VCA (Nascimento and Dias 2005), its projective form: in the space of the first r singular vectors, the pixel
    that lies farthest along a random direction orthogonal to those taken."""
    random = torch.Generator().manual_seed(seed)
    pixels = sum_to_one(pixels)
    axes = torch.linalg.svd(pixels.T @ pixels)[0][:, :number]
    plane = pixels @ axes
    heights = plane @ plane.mean(0)
    plane = plane / torch.where(heights > 0, heights, torch.inf)[:, None]
    taken: list[int] = []
    for _ in range(number):
        direction = torch.randn(number, generator=random, dtype=plane.dtype).to(plane)
        if taken:
            corners = plane[taken].T
            direction = direction - corners @ torch.linalg.lstsq(corners, direction[:, None]).solution.squeeze(1)
        reach = (plane @ direction).abs()
        reach[taken] = -1.0
        taken.append(int(reach.argmax()))
    return torch.tensor(taken)


def extreme_rays(pixels: Tensor, number: int) -> Tensor:
    """XRAY (Kumar et al. 2013), rule "max": the ray that goes farthest along the worst residual, which non-negative
    least squares over the rays taken leaves."""
    sums = pixels.sum(1)
    rest = pixels
    taken: list[int] = []
    for _ in range(number):
        worst = rest[rest.square().sum(1).argmax()]
        reach = pixels @ worst / torch.where(sums > 0, sums, torch.inf)
        reach[taken] = -torch.inf
        taken.append(int(reach.argmax()))
        corners = pixels[taken].T.contiguous()
        rest = pixels - nnls(corners, pixels).coefficients @ corners.T
    return torch.tensor(taken)


EXTRACTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "spa": successive_projection,
    "vca": vertex_components,
    "xray": extreme_rays,
}


def extract(pixels: Tensor, number: int, name: str) -> Tensor:
    """Rows int64 [number] of the endmembers.

    Raises:
        ValueError: for an unknown name, negative or infinite pixels, and more endmembers than pixels or bands.
    """
    if name not in EXTRACTIONS:
        raise ValueError(f"unknown extraction {name}: choose one of {', '.join(EXTRACTIONS)}")
    if not bool(torch.isfinite(pixels).all()) or float(pixels.min()) < 0:
        raise ValueError("the pixels hold NaN, infinity or negative numbers")
    if not 1 <= number <= min(pixels.shape):
        raise ValueError(f"{number} endmembers cannot be taken from {len(pixels)} pixels of {pixels.shape[1]} bands")
    return EXTRACTIONS[name](pixels, number)
