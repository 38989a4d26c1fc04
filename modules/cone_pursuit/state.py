"""What a pursuit carries from one iteration to the next, and the length of a step (section 3).

Letters: B problems, d dimension, K slots for the atoms that a problem has met. ``coefficients`` [B, K] are never
negative and always reproduce x = sum_k coefficients_k atoms_k. Problems that have stopped keep still.
"""

from typing import Protocol

import torch
from torch import Tensor

from modules.cone_pursuit.line_search import exact_step
from modules.cone_pursuit.oracles import NEW, tie


class Objective(Protocol):
    """Convex, with ``smoothness`` L or None if it is not known.

    Optional: ``steepness`` [B], the size of gradients far from the optimum, to which the stopping test compares (the
    first gradient's norm if not given); ``refit``, which maps atoms [B, K, d] and coefficients [B, K] to the best ones.
    """

    smoothness: float | None

    def value(self, x: Tensor) -> Tensor: ...

    def gradient(self, x: Tensor) -> Tensor: ...


class State:
    def __init__(self, objective: Objective, batch: int, dim: int, like: Tensor) -> None:
        self.objective = objective
        self.x = like.new_zeros(batch, dim)
        self.atoms = like.new_zeros(batch, 0, dim)
        self.keys = torch.zeros(batch, 0, dtype=torch.long, device=like.device)
        self.coefficients = like.new_zeros(batch, 0)
        self.drops = torch.zeros(batch, dtype=torch.long, device=like.device)
        self.size = like.new_ones(batch)  # of gradients far from the optimum
        self.curvature = like.new_ones(batch)  # L or, where it is not known, what it was along the last direction

    def slot_of(self, atom: Tensor, key: Tensor) -> Tensor:
        """The slot [B] of each problem's atom: where it lies already, a free one, or a new one."""
        square = atom.square().sum(1, keepdim=True)
        if self.atoms.shape[1]:
            is_close = (self.atoms - atom[:, None]).square().sum(2) <= 1e-24 * square
            same = (square > 0) & torch.where(key[:, None] != NEW, self.keys == key[:, None], is_close)
            same &= self.atoms.square().sum(2) > 0
            free = self.coefficients <= 0
            if bool((same.any(1) | free.any(1) | (square[:, 0] == 0)).all()):
                slot = torch.where(same.any(1), same.int().argmax(1), free.int().argmax(1))
                self._put(slot, atom, key, square[:, 0] > 0)
                return slot
        else:
            same = torch.zeros_like(self.keys, dtype=torch.bool)
        self.atoms = torch.cat((self.atoms, torch.zeros_like(atom)[:, None]), 1)
        self.keys = torch.cat((self.keys, torch.zeros_like(key)[:, None]), 1)
        self.coefficients = torch.cat((self.coefficients, torch.zeros_like(square)), 1)
        last = torch.full_like(key, self.atoms.shape[1] - 1)
        slot = torch.where(same.any(1), same.int().argmax(1), last) if same.shape[1] else last
        self._put(slot, atom, key, square[:, 0] > 0)
        return slot

    def _put(self, slot: Tensor, atom: Tensor, key: Tensor, is_real: Tensor) -> None:
        rows = is_real.nonzero().squeeze(1)
        is_held = self.coefficients[rows, slot[rows]] > 0  # the same atom, told by its key or by its entries
        rows = rows[~is_held]
        self.atoms[rows, slot[rows]], self.keys[rows, slot[rows]] = atom[rows], key[rows]

    def replace(self, atoms: Tensor, coefficients: Tensor, active: Tensor) -> None:
        """Other atoms and coefficients, and x made of them, for the active problems."""
        self.atoms = torch.where(active[:, None, None], atoms, self.atoms)
        self.coefficients = torch.where(active[:, None], coefficients, self.coefficients)
        self.x = torch.where(active[:, None], torch.einsum("bk,bkd->bd", coefficients, atoms), self.x)

    def away(self, gradient: Tensor, toward: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(slot, atom, <g, atom>) of the active atom that points most along the gradient; the origin if none does.

        Of those that tie, the origin among them, it is the one nearest to ``toward``: the shorter the direction, the
        more an exact step descends.
        """
        if not self.atoms.shape[1]:
            return torch.zeros_like(self.drops), torch.zeros_like(gradient), gradient.new_zeros(len(gradient))
        inner = torch.einsum("bkd,bd->bk", self.atoms, gradient)
        scores = torch.where(self.coefficients > 0, inner, -torch.inf)
        margins = self.atoms.norm(dim=2) * tie(gradient)[:, None]
        best, slot = torch.where(scores > margins, scores, 0.0).max(1)
        widest = torch.maximum(margins, torch.where(best > 0, margins.gather(1, slot[:, None])[:, 0], 0.0)[:, None])
        distances = torch.where(
            scores >= best[:, None] - widest, (self.atoms - toward[:, None]).square().sum(2), torch.inf
        )
        nearest = distances.amin(1)
        is_nearest = distances <= (nearest * (1 + 1e-12))[:, None]  # equally near: the first one of the dictionary
        slot = torch.where(is_nearest, self.keys, torch.iinfo(torch.long).max).argmin(1)
        is_away = (best > 0) | (nearest < toward.square().sum(1) * (1 - 1e-12))
        atom = self.atoms[torch.arange(len(slot), device=slot.device), slot] * is_away[:, None]
        return slot, atom, torch.where(is_away, scores.gather(1, slot[:, None]).squeeze(1).clamp_min(0), 0.0)


def step_size(state: State, direction: Tensor, gap: Tensor, limit: Tensor) -> Tensor:
    """gamma [B] = gap / (L |direction|^2), or the best one where L is not known; at most ``limit``, 0 without a gap.

    Args:
        direction: [B, d].
        gap: [B], minus the derivative of f along it.
    """
    square = direction.square().sum(1).clamp_min(torch.finfo(gap.dtype).tiny)
    if state.objective.smoothness is not None:
        return torch.minimum(gap / (state.objective.smoothness * square), limit)
    gamma = search(state, direction, gap, limit, gap / (state.curvature * square))
    found = gap / (gamma * square)
    found = torch.where(gamma < limit, found, torch.minimum(found, state.curvature) / 2)  # cut: less curved than that
    state.curvature = torch.where((gamma > 0) & torch.isfinite(found) & (found > 0), found, state.curvature)
    return gamma


def search(state: State, direction: Tensor, gap: Tensor, limit: Tensor, guess: Tensor) -> Tensor:
    def slope(gamma: Tensor) -> Tensor:
        return (state.objective.gradient(state.x + gamma[:, None] * direction) * direction).sum(1)

    return exact_step(slope, gap, limit, guess)
