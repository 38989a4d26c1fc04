"""Linear minimisation oracles: the atom of a set that points most against a gradient (section 3.4 of the sheet).

An oracle maps gradients [B, d] to atoms [B, d] and keys int64 [B]. Equal keys mean the same atom; key NEW means that
the set is not finite and atoms are told apart by their inner products. Where no atom is a descent direction the atom is
zero: the origin belongs to every set.
"""

import torch
from torch import Tensor

NEW = -1


def tie(gradient: Tensor) -> Tensor:
    """Inner products [B] with unit vectors that differ by less differ by round-off.

    An exact line search leaves ties: <g, v> = 0 after a step along v, <g, z> = <g, v> after one along z - v. Left to
    round-off, the choices of the next step, and with them the whole run, would differ between machines.
    """
    return 512 * torch.finfo(gradient.dtype).eps * gradient.norm(dim=1)


class Dictionary:
    """The columns of ``atoms`` [d, n]; of those that tie the first one, but before all the origin."""

    def __init__(self, atoms: Tensor) -> None:
        if atoms.ndim != 2 or 0 in atoms.shape or not bool(torch.isfinite(atoms).all()):
            raise ValueError(f"a dictionary is a finite matrix [d, n], not {tuple(atoms.shape)} with NaN or infinity")
        self.atoms = atoms
        self.radius = float(atoms.norm(dim=0).max())

    def __call__(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        scores = gradient @ self.atoms
        best, margin = scores.amin(1), self.radius * tie(gradient)
        key = (scores <= (best + margin)[:, None]).int().argmax(1)
        return self.atoms.T[key] * (best < -margin)[:, None], key


class NonNegativeBall:
    """Vectors of norm at most 1 without negative entries."""

    def __call__(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        atom = (-gradient).clamp_min(0)
        norm = atom.norm(dim=1, keepdim=True)
        return atom / torch.where(norm > 0, norm, 1.0), torch.full((len(atom),), NEW, device=atom.device)


class RankOne:
    """Non-negative outer products of unit vectors, one vector for each mode of ``shape`` (two or more modes).

    Truncated power iterations from random positive starts; the exact problem is NP-hard, so this is an oracle of
    unknown quality delta, which several ``starts`` raise.
    """

    def __init__(self, shape: tuple[int, ...], sweeps: int = 99, starts: int = 3, seed: int = 0) -> None:
        if len(shape) < 2 or min(shape) < 1 or sweeps < 1 or starts < 1:
            raise ValueError(f"shape needs two or more positive sizes, sweeps and starts one: {shape}")
        self.shape, self.sweeps, self.starts = tuple(shape), sweeps, starts
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        target = -gradient.reshape(-1, *self.shape)
        best, best_score = torch.zeros_like(target), gradient.new_zeros(len(gradient))
        for _ in range(self.starts):
            atom = self._outer(self._iterate(target))
            score = (atom * target).flatten(1).sum(1)
            is_better = score > best_score
            best[is_better], best_score[is_better] = atom[is_better], score[is_better]
        return best.flatten(1), torch.full((len(gradient),), NEW, device=gradient.device)

    def _iterate(self, target: Tensor) -> list[Tensor]:
        factors = [self._unit(torch.rand(len(target), n, generator=self.random).to(target)) for n in self.shape]
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
