"""Sums of non-negative rank-one matrices and tensors: factors, and their correction by block coordinate descent.

Letters: B problems, K rank-one terms, M modes of sizes n_1 .. n_M (M = 2: a matrix), d = n_1 * ... * n_M. Factors are a
list of M tensors [B, n_m, K]; term k is the outer product of the k-th columns.
"""

from collections.abc import Callable, Iterable
from functools import reduce

import torch
from torch import Tensor

MODES = "uvwxyz"
Update = Callable[[Tensor, list[Tensor], int], list[Tensor]]
"""Target, factors, sweeps: better factors."""


def compose(factors: list[Tensor]) -> Tensor:
    """The terms [B, K, n_1, ..., n_M]."""
    names = MODES[: len(factors)]
    return torch.einsum(",".join(f"b{m}k" for m in names) + f"->bk{names}", *factors)


def total(factors: list[Tensor]) -> Tensor:
    """The sum of the terms [B, n_1, ..., n_M], without forming them."""
    names = MODES[: len(factors)]
    return torch.einsum(",".join(f"b{m}k" for m in names) + f"->b{names}", *factors)


def decompose(atoms: Tensor, weights: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    """Factors of non-negative rank-one ``atoms`` [B, K, d] with ``weights`` [B, K], shared evenly by the modes.

    The sums of a rank-one tensor over all modes but one are proportional to its factor of that mode.
    """
    whole = atoms.reshape(*atoms.shape[:2], *shape)
    share = (weights.clamp_min(0) * atoms.norm(dim=2)).pow(1 / len(shape))
    factors = []
    for mode in range(len(shape)):
        others = [2 + m for m in range(len(shape)) if m != mode]
        side = whole.sum(others)
        norm = side.norm(dim=2, keepdim=True)
        factors.append((side / torch.where(norm > 0, norm, 1.0) * share[:, :, None]).transpose(1, 2))
    return factors


def hals(target: Tensor, factors: list[Tensor], sweeps: int, floor: float = 0.0) -> list[Tensor]:
    """Hierarchical alternating least squares: each column in turn is set to its non-negative least-squares solution,
    so that 0.5 |target - sum of terms|^2 never grows (Cichocki and Phan 2009).

    Args:
        target: [B, n_1, ..., n_M].
        floor: smallest entry of a factor. With 0 a term that becomes zero stays so; a tiny one can grow again.
    """
    factors = [factor.clone() for factor in factors]
    for _ in range(sweeps):
        for mode, factor in enumerate(factors):
            right = against_others(target, factors, mode)
            gram = product(f.transpose(1, 2) @ f for m, f in enumerate(factors) if m != mode)
            for k in range(factor.shape[2]):
                own = gram[:, k, k, None]
                slope = right[:, :, k] - (factor @ gram[:, :, k, None]).squeeze(2)
                factor[:, :, k] = (factor[:, :, k] + slope / torch.where(own > 0, own, torch.inf)).clamp_min(floor)
        factors = balance(factors)
    return factors


def against_others(target: Tensor, factors: list[Tensor], mode: int) -> Tensor:
    """[B, n_m, K]: inner products of each slice of ``target`` in this mode with the k-th columns of all other modes."""
    names = MODES[: len(factors)]
    others = [m for m in range(len(factors)) if m != mode]
    rule = f"b{names}," + ",".join(f"b{names[m]}k" for m in others) + f"->b{names[mode]}k"
    return torch.einsum(rule, target, *(factors[m] for m in others))


def product(tensors: Iterable[Tensor]) -> Tensor:
    return reduce(torch.mul, tensors)


def balance(factors: list[Tensor]) -> list[Tensor]:
    """The same terms, each with columns of equal norms; a term with a zero column becomes zero."""
    norms = [factor.norm(dim=1, keepdim=True) for factor in factors]
    common = product(norms).pow(1 / len(factors))
    return [f * (common / torch.where(n > 0, n, 1.0)) for f, n in zip(factors, norms, strict=True)]


class FactorCorrection:
    """Sweeps over the factors of a pursuit's atoms; see ``pursue``.

    Args:
        target: [B, n_1, ..., n_M].
        update: hals, or another function of a target, its factors and the number of sweeps.
    """

    def __init__(self, update: Update, target: Tensor, sweeps: int) -> None:
        self.update, self.target, self.sweeps = update, target, sweeps

    def __call__(self, atoms: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        factors = self.update(self.target, decompose(atoms, coefficients, tuple(self.target.shape[1:])), self.sweeps)
        return unit_terms(factors)


def unit_terms(factors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Atoms [B, K, d] of unit or zero norm, and their coefficients [B, K]."""
    terms = compose(factors).flatten(2)
    norms = terms.norm(dim=2)
    return terms / torch.where(norms > 0, norms, 1.0)[:, :, None], norms
