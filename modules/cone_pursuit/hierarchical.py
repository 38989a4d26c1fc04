"""H2NMF: pixels of a hyperspectral image clustered by a tree of rank-two factorisations (Gillis, Kuang, Park 2015).

Letters: N pixels, n of them in a cluster, d bands, r clusters. The pixels of a cluster are about multiples of one
spectrum, so that the energy that a matrix of rank one misses, |X|_F^2 - s_1^2, says how good it is (s_1: largest
singular value). The cluster is split whose halves miss least in place of it.
"""

from functools import cached_property

import torch
from torch import Tensor

from modules.cone_pursuit.nnls import nnls

SWEEPS, TOLERANCE = 100, 1e-5
"""Of the alternating solver: most sweeps, and the relative fall of the squared error below which it ends."""
THRESHOLDS, WINDOW = 100, 0.05
"""How many thresholds are tried, and half the width of the interval around one that should be empty."""


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
