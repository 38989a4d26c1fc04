"""Pixels that may serve as endmembers of a hyperspectral image: SPA, VCA, XRAY, SNPA and H2NMF.

Letters: N pixels, d bands, r endmembers. Each function maps non-negative pixels [N, d] to r different rows, int64 [r].
SPA, VCA and SNPA scale the pixels to sum 1, which puts mixtures of r endmembers into the simplex that these span.

H2NMF clusters pixels by a tree of rank-two factorisations (Gillis, Kuang, Park 2015). The n pixels of a cluster are
about multiples of one spectrum, so that the energy that a matrix of rank one misses, |X|_F^2 - s_1^2, says how good it
is (s_1: largest singular value). The cluster is split whose halves miss least in place of it.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from modules.cone_pursuit.nnls import nnls

TIE = 1e-6
"""Squared distances that differ by less than this share count as equal."""
FEASIBLE, ROUNDS = 1e-11, 100
"""By how much coefficients may sum to more than 1, and steps of the search for their multiplier."""
SWEEPS, TOLERANCE = 100, 1e-5
"""Of H2NMF's alternating solver: most sweeps, and the relative fall of the squared error below which it ends."""
THRESHOLDS, WINDOW = 100, 0.05
"""How many thresholds are tried, and half the width of the interval around one that should be empty."""


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


def hull_residuals(pixels: Tensor, corners: Tensor) -> Tensor:
    """Pixels [N, d] minus the points next to them in the convex hull of the origin and ``corners`` [r, d] of sum 1.

    That is min |y - W x|^2 over x >= 0 with sum x <= 1. Where non-negative least squares alone breaks the second rule,
    the sum's multiplier m makes it hold with equality. Since the corners sum to 1, m sum x = m 1^T W x, so that x is
    the non-negative least-squares solution for y - m 1. Its sum is continuous, piecewise linear and never grows in m:
    Newton's steps, with bisection where they leave the bracket, end at the root up to FEASIBLE.
    """
    columns = corners.T.contiguous()
    codes = nnls(columns, pixels).coefficients
    rows = (codes.sum(1) > 1 + FEASIBLE).nonzero().squeeze(1)
    multiplier, low = pixels.new_zeros(len(rows)), pixels.new_zeros(len(rows))
    high = (pixels[rows] @ columns).amax(1)  # here x = 0
    for _ in range(ROUNDS):
        excess = codes[rows].sum(1) - 1
        kept = excess.abs() > FEASIBLE
        if not kept.any():
            break
        rows, excess, multiplier, low, high = (part[kept] for part in (rows, excess, multiplier, low, high))
        low, high = torch.where(excess > 0, multiplier, low), torch.where(excess > 0, high, multiplier)
        multiplier = multiplier + excess / steepness(columns, codes[rows] > 0)
        is_inside = (low < multiplier) & (multiplier < high)
        multiplier = torch.where(is_inside, multiplier, (low + high) / 2)
        codes[rows] = nnls(columns, pixels[rows] - multiplier[:, None]).coefficients
    return pixels - codes @ corners


def steepness(columns: Tensor, is_active: Tensor) -> Tensor:
    """1^T (W_S^T W_S)^-1 1 for each row S of ``is_active`` [N, r]: how fast the sum falls while S stays active."""
    share = is_active.to(columns)
    gram = columns.T @ columns * share[:, :, None] * share[:, None] + torch.diag_embed(1 - share)
    return (torch.linalg.solve_ex(gram, share)[0] * share).sum(1)


def successive_nonnegative_projection(pixels: Tensor, number: int) -> Tensor:
    """SNPA (Gillis 2014): the longest pixel, then the one farthest from the convex hull of the origin and those taken.

    The distance is a convex function of the pixel, thus largest at a corner of the data; of equally far pixels, which
    may lie on a face, the longest is taken. There may be more corners than bands.
    """
    pixels = sum_to_one(pixels)
    lengths, rest = pixels.square().sum(1), pixels
    taken: list[int] = []
    while True:
        distances = rest.square().sum(1)
        distances[taken] = -1.0
        is_far = distances >= (1 - TIE) * distances.max()
        taken.append(int(torch.where(is_far, lengths, -1.0).argmax()))
        if len(taken) == number:
            return torch.tensor(taken)
        rest = hull_residuals(pixels, pixels[taken])


def rank_two(pixels: Tensor, axes: Tensor) -> Tensor:
    """H [n, 2] >= 0 of a rank-two factorisation, pixels = H W^T with W [d, 2] >= 0, in the sense of least squares.

    W starts at the two pixels that SPA finds in the plane of the first two singular vectors ``axes`` [d, 2], among
    pixels scaled to sum 1: they are its extreme rays, and of pixels in the plane the factorisation is exact at once.
    Then exact non-negative least squares for H and W in turn. The scale of W's columns stays about the initial one, so
    that H says how a pixel's sum is shared.
    """
    plane = (pixels @ axes) / pixels.sum(1, keepdim=True)
    first = plane[plane.square().sum(1).argmax()]
    second = plane[(plane[:, 0] * first[1] - plane[:, 1] * first[0]).abs().argmax()]
    spectra = (axes @ torch.stack((first, second), 1)).clamp_min(0)
    bands, before = pixels.T.contiguous(), torch.inf
    for _ in range(SWEEPS):
        shares = nnls(spectra, pixels).coefficients
        error = float((pixels - shares @ spectra.T).square().sum())
        if error >= (1 - TOLERANCE) * before:
            break
        spectra, before = nnls(shares, bands).coefficients, error
    return shares


def threshold(ratios: Tensor) -> float:
    """Where to cut numbers in [0, 1], at least two of them different, into those up to it and those above.

    It minimises -log(F (1 - F)) + exp(G): F is the share of the ratios below, for even halves; G the density of the
    ratios within WINDOW, for a cut through a gap. Tried are hundredths of the way from the smallest to the largest
    ratio, which as a rule are 0 and 1.
    """
    ratios = ratios.sort().values
    steps = torch.arange(THRESHOLDS, dtype=ratios.dtype, device=ratios.device) / THRESHOLDS
    cuts = ratios[0] + (ratios[-1] - ratios[0]) * steps
    low, high = (cuts - WINDOW).clamp_min(0), (cuts + WINDOW).clamp_max(1)
    inside = torch.searchsorted(ratios, high, right=True) - torch.searchsorted(ratios, low)
    below = torch.searchsorted(ratios, cuts, right=True).to(ratios) / len(ratios)
    density = inside.to(ratios) / len(ratios) / (high - low)
    cost = density.exp() - (below * (1 - below)).log()
    return float(cuts[cost.argmin()])


class Cluster:
    """Those ``rows`` int64 [n] of all pixels [N, d], none of them zero."""

    def __init__(self, everything: Tensor, rows: Tensor) -> None:
        self.everything, self.rows = everything, rows
        self.pixels = everything[rows]
        lengths, axes = torch.linalg.svd(torch.linalg.qr(self.pixels, mode="r").R, full_matrices=False)[1:]
        self.energy = float(lengths[0] ** 2)
        self.axes = axes[:2].T.contiguous()
        noise = max(self.pixels.shape) * torch.finfo(lengths.dtype).eps
        self.is_one_ray = len(lengths) < 2 or bool(lengths[1] <= noise * lengths[0])

    @cached_property
    def halves(self) -> "tuple[Cluster, Cluster] | None":
        """None if all pixels are multiples of one."""
        if self.is_one_ray:
            return None
        shares = rank_two(self.pixels, self.axes)
        sums = shares.sum(1)
        ratios = shares[:, 0] / torch.where(sums > 0, sums, 1.0)
        is_upper = ratios > threshold(ratios)
        if not is_upper.any():  # all ratios are equal
            return None
        return Cluster(self.everything, self.rows[is_upper]), Cluster(self.everything, self.rows[~is_upper])

    @property
    def gain(self) -> float:
        """Energy that the halves capture beyond the whole; below 0 if there are none."""
        return -1.0 if self.halves is None else max(0.0, sum(half.energy for half in self.halves) - self.energy)

    def representative(self) -> int:
        """Row of the pixel with the smallest angle to the first singular vector, the mean over the bands removed from
        both; without that if the vector is flat."""
        axis, pixels = self.axes[:, 0].abs(), self.pixels
        shape = axis - axis.mean()
        if float(shape.norm()) > 1e-9:
            axis, pixels = shape, pixels - pixels.mean(1, keepdim=True)
        lengths = pixels.norm(dim=1)
        return int(self.rows[(pixels @ axis / torch.where(lengths > 0, lengths, 1.0)).argmax()])


def cluster_pixels(pixels: Tensor, number: int) -> Tensor:
    """H2NMF: the representatives of ``number`` clusters of the pixels [N, d] that are not zero, int64 [number].

    Raises:
        ValueError: if fewer than ``number`` pixels are no multiples of each other.
    """
    rows = (pixels.sum(1) > 0).nonzero().squeeze(1)
    clusters = [Cluster(pixels, rows)] if len(rows) else []
    while len(clusters) < number:
        best = max(clusters, key=lambda cluster: cluster.gain) if clusters else None
        if best is None or best.halves is None:
            raise ValueError(f"the pixels fall into {len(clusters)} clusters of unlike spectra: ask h2nmf for no more")
        clusters.remove(best)
        clusters += best.halves
    return torch.tensor([cluster.representative() for cluster in clusters])


EXTRACTIONS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "spa": successive_projection,
    "vca": vertex_components,
    "xray": extreme_rays,
    "h2nmf": cluster_pixels,
    "snpa": successive_nonnegative_projection,
}
NEEDS_BANDS = ("spa", "vca")
"""They take linearly independent pixels only."""


def extract(pixels: Tensor, number: int, name: str) -> Tensor:
    """Rows int64 [number] of the endmembers; the arithmetic is float64.

    Where fewer than ``number`` pixels differ, h2nmf raises an error and the others fill up with any further rows.

    Raises:
        ValueError: for an unknown name, negative or infinite pixels, more endmembers than pixels or, for spa and vca,
            than bands.
    """
    if name not in EXTRACTIONS:
        raise ValueError(f"unknown extraction {name}: choose one of {', '.join(EXTRACTIONS)}")
    if not bool((torch.isfinite(pixels) & (pixels >= 0)).all()):
        raise ValueError("the pixels hold NaN, infinity or negative numbers")
    if not 1 <= number <= len(pixels):
        raise ValueError(f"{number} endmembers cannot be taken from {len(pixels)} pixels")
    if name in NEEDS_BANDS and number > pixels.shape[1]:
        others = ", ".join(other for other in EXTRACTIONS if other not in NEEDS_BANDS)
        raise ValueError(f"{number} endmembers are too many for {name} on {pixels.shape[1]} bands: choose {others}")
    return EXTRACTIONS[name](pixels.double(), number)
