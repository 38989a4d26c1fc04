"""Linear minimisation oracles: the atom of a set that points most against a gradient (section 3.4 of the sheet).

An oracle maps gradients [B, d] to atoms [B, d] and keys int64 [B]. Equal keys mean the same atom; key NEW means that
the set is not finite and atoms are told apart by their inner products. Where no atom is a descent direction the atom is
zero: the origin belongs to every set.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

NEW = -1


def tie(gradient: Tensor) -> Tensor:
    """Inner products [B] with unit vectors that differ by less differ by round-off.

    An exact line search leaves ties: <g, v> = 0 after a step along v, <g, z> = <g, v> after one along z - v. Left to
    round-off, the choices of the next step, and with them the whole run, would differ between machines.
    """
    return 512 * torch.finfo(gradient.dtype).eps * gradient.norm(dim=1)


def norms_in_range(vectors: Tensor) -> bool:
    """Can products of four entries of any of ``vectors`` [N, d] be told from round-off? Zero vectors do not count."""
    largest, limits = vectors.abs().amax(1), torch.finfo(vectors.dtype)
    least = (limits.tiny / limits.eps) ** 0.5
    return bool(((largest == 0) | ((largest >= least) & (largest <= 1 / least))).all())


class Dictionary:
    """The columns of ``atoms`` [d, n]; of those that tie the first one, but before all the origin. Round-off is a share
    of each atom's own norm."""

    def __init__(self, atoms: Tensor) -> None:
        if atoms.ndim != 2 or 0 in atoms.shape or not bool(torch.isfinite(atoms).all()):
            raise ValueError(f"a dictionary is a finite matrix [d, n], not {tuple(atoms.shape)} with NaN or infinity")
        if not atoms.is_floating_point() or not norms_in_range(atoms.T):
            raise ValueError(f"a dictionary of {atoms.dtype}, or with atoms too large or small for it: scale them to 1")
        self.atoms, self.norms = atoms, atoms.norm(dim=0)

    def __call__(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if gradient.shape[1] != self.atoms.shape[0] or gradient.dtype != self.atoms.dtype:
            found = f"{gradient.dtype} of dimension {gradient.shape[1]}"
            raise ValueError(f"atoms are {self.atoms.dtype} of dimension {self.atoms.shape[0]}, points {found}")
        scores, margins = gradient @ self.atoms, self.norms * tie(gradient)[:, None]
        best, lowest = torch.where(scores < -margins, scores, 0.0).min(1)
        is_tied = (scores < -margins) & (
            scores <= best[:, None] + torch.maximum(margins, margins.gather(1, lowest[:, None]))
        )
        key = is_tied.int().argmax(1)
        return self.atoms.T[key] * (best < 0)[:, None], key


class NonNegativeBall:
    """Vectors of norm at most 1 without negative entries."""

    def __call__(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        atom = (-gradient).clamp_min(0)
        norm = atom.norm(dim=1, keepdim=True)
        return atom / torch.where(norm > 0, norm, 1.0), torch.full((len(atom),), NEW, device=atom.device)


class RankOne:
    """Non-negative outer products of unit vectors, one vector for each mode of ``shape`` (two or more modes).

    Truncated power iterations from random positive starts; the exact problem is NP-hard, so this is an oracle of
    unknown quality delta, which several ``starts`` raise. Where all of them end at a score <-g, z> below the largest
    entry of -g, at zero perhaps, one more begins at that entry and ends no lower: whenever an atom descends one is
    found.
    """

    def __init__(self, shape: tuple[int, ...], sweeps: int = 99, starts: int = 3, seed: int = 0) -> None:
        if len(shape) < 2 or min(shape) < 1 or sweeps < 1 or starts < 1:
            raise ValueError(f"shape needs two or more positive sizes, sweeps and starts one: {shape}")
        self.shape, self.sweeps, self.starts = tuple(shape), sweeps, starts
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if gradient.shape[1] != math.prod(self.shape):
            raise ValueError(f"points of dimension {gradient.shape[1]} are no arrays of shape {self.shape}")
        target = -gradient.reshape(-1, *self.shape)
        best, best_score = torch.zeros_like(target), gradient.new_zeros(len(gradient))
        for _ in range(self.starts):
            starts = [torch.rand(len(target), n, generator=self.random).to(target) for n in self.shape]
            atom = self._outer(self._iterate(target, starts))
            score = (atom * target).flatten(1).sum(1)
            is_better = score > best_score
            best[is_better], best_score[is_better] = atom[is_better], score[is_better]
        missed = (best_score < target.flatten(1).amax(1)).nonzero().squeeze(1)
        if len(missed):
            best[missed] = self._outer(self._iterate(target[missed], self._largest(target[missed])))
        return best.flatten(1), torch.full((len(gradient),), NEW, device=gradient.device)

    def _largest(self, target: Tensor) -> list[Tensor]:
        """Unit vectors [B, n_m] whose outer product selects the largest entry."""
        places = torch.unravel_index(target.flatten(1).argmax(1), self.shape)
        return [one_hot(place, n).to(target) for place, n in zip(places, self.shape, strict=True)]

    def _iterate(self, target: Tensor, starts: list[Tensor]) -> list[Tensor]:
        factors = [self._unit(start) for start in starts]
        for _ in range(self.sweeps):
            for mode in range(len(factors)):
                rest = target
                for other in reversed(range(len(factors))):
                    if other != mode:
                        side = [1] * len(self.shape)
                        side[other] = -1
                        weight = factors[other].reshape(len(target), *side)
                        rest = (rest * weight).sum(other + 1, keepdim=True)
                factors[mode] = self._unit(rest.flatten(1).clamp_min(0))
        return factors

    @staticmethod
    def _unit(vectors: Tensor) -> Tensor:
        norms = vectors.norm(dim=1, keepdim=True)
        return vectors / torch.where(norms > 0, norms, 1.0)

    def _outer(self, factors: list[Tensor]) -> Tensor:
        atom = factors[0]
        for factor in factors[1:]:
            atom = atom[..., None] * factor.reshape(len(factor), *[1] * (atom.ndim - 1), -1)
        return atom
