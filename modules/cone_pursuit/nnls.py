"""Non-negative least squares for many right-hand sides that share one dictionary.

Letters: n atoms, d dimension, B right-hand sides, S active atoms at most.

float64 on the CPU goes to the compiled kernel of active_set.py. Elsewhere the same active-set method runs on tensors,
with all right-hand sides in step: each carries its own set of active atoms and the inverse of that set's Gram matrix,
which a new atom borders and a leaving one deflates, in O(S^2). Several atoms enter at once; each walk to least squares
ends lower than it began, so no set returns.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from modules.cone_pursuit import active_set

BLOCK = 256
"""Right-hand sides in step."""
TOGETHER, ALIKE = 8, 0.5
"""Atoms that may enter at once, if their descent is at least this share of the steepest one's."""


class Solution(NamedTuple):
    coefficients: Tensor  # [B, n], non-negative
    gradient: Tensor  # [B, n], of 0.5 |x - y|^2 in the coefficients: >= 0, and 0 where a coefficient is positive
    iterations: int


class _State:
    """Active sets as ordered lists: ``atoms`` [B, S] with ``size`` [B] of them used, padded by atom 0."""

    def __init__(self, gram: Tensor, target: Tensor, capacity: int, rank: int) -> None:
        batch = len(target)
        self.gram, self.target, self.rank = gram, target, rank
        self.atoms = torch.zeros(batch, capacity, dtype=torch.long, device=gram.device)
        self.inverse = gram.new_zeros(batch, capacity, capacity)
        self.values = gram.new_zeros(batch, capacity)
        self.size = torch.zeros(batch, dtype=torch.long, device=gram.device)

    def grow(self) -> None:
        """Double the capacity."""
        batch, old = self.atoms.shape
        inverse = self.gram.new_zeros(batch, 2 * old, 2 * old)
        inverse[:, :old, :old] = self.inverse
        self.inverse = inverse
        self.atoms = torch.cat((self.atoms, torch.zeros_like(self.atoms)), 1)
        self.values = torch.cat((self.values, torch.zeros_like(self.values)), 1)

    def add(self, rows: Tensor, atoms: Tensor) -> Tensor:
        """Border the inverses of ``rows`` by ``atoms``; bool, False for an atom that the active ones span."""
        width = int(self.size[rows].max()) + 1
        if width > self.atoms.shape[1]:
            self.grow()
        inverse = self.inverse[rows, :width, :width]
        mask = torch.arange(width, device=rows.device) < self.size[rows, None]
        cross = self.gram[self.atoms[rows, :width], atoms[:, None]] * mask
        weights = torch.bmm(inverse, cross[:, :, None]).squeeze(2)
        own = self.gram[atoms, atoms]
        rest = own - (weights * cross).sum(1)
        is_new = (rest > 1e-11 * own) & (self.size[rows] < self.rank)
        weights.scatter_(1, self.size[rows, None], -1.0)
        inverse = inverse + weights[:, :, None] * (weights / rest.clamp_min(1e-300)[:, None])[:, None]
        kept = rows[is_new]
        self.inverse[kept, :width, :width] = inverse[is_new]
        self.atoms[kept, self.size[kept]] = atoms[is_new]
        self.size[kept] += 1
        return is_new

    def drop(self, rows: Tensor, places: Tensor) -> None:
        """Remove the atom at ``places`` of each of ``rows``: the last one takes its place, the inverse is deflated."""
        last = self.size[rows] - 1
        for array in (self.atoms, self.values):
            array[rows, places] = array[rows, last]
            array[rows, last] = 0
        width = int(self.size[rows].max())
        inverse = self.inverse[rows, :width, :width]
        batch = torch.arange(len(rows), device=rows.device)
        column = inverse[batch, :, places].clone()
        pivot = column[batch, places]
        inverse -= column[:, :, None] * (column / pivot[:, None])[:, None]
        inverse[batch, places], inverse[batch, :, places] = inverse[batch, last], inverse[batch, :, last]
        inverse[batch, places, places] = inverse[batch, last, last]
        inverse[batch, last], inverse[batch, :, last] = 0.0, 0.0
        self.inverse[rows, :width, :width] = inverse
        self.size[rows] = last

    def unconstrained(self, rows: Tensor) -> Tensor:
        """Least squares on the active sets of ``rows``, [R, W] for the widest of them."""
        width = int(self.size[rows].max())
        atoms, inverse = self.atoms[rows, :width], self.inverse[rows, :width, :width]
        mask = torch.arange(width, device=rows.device) < self.size[rows, None]
        right = self.target[rows].gather(1, atoms) * mask
        return torch.bmm(inverse, right[:, :, None]).squeeze(2)

    def dense(self) -> Tensor:
        return torch.zeros_like(self.target).scatter_add_(1, self.atoms, self.values)


def _move(state: _State, rows: Tensor) -> None:
    """Bring ``rows`` to the least-squares solution on their sets, dropping whatever would become negative."""
    while len(rows):
        goal = state.unconstrained(rows)
        width = goal.shape[1]
        now = state.values[rows, :width]
        inside = torch.arange(width, device=rows.device) < state.size[rows, None]
        blocked = inside & (goal <= 0)
        ratio = torch.where(blocked, now / (now - goal).clamp_min(1e-300), torch.inf)
        step, place = ratio.min(1)
        step = step.clamp(0, 1)
        state.values[rows, :width] = torch.where(inside, now + step[:, None] * (goal - now), 0.0)
        is_blocked = blocked.any(1)
        rows, place = rows[is_blocked], place[is_blocked]
        if len(rows):
            state.drop(rows, place)
            rows = rows[state.size[rows] > 0]


def _finish(state: _State, dictionary: Tensor, right: Tensor) -> None:
    """Solve once more on the final sets, by Cholesky from the atoms: bordering has added up round-off."""
    order = state.size.argsort()
    for rows in order.split(256):
        width = int(state.size[rows].max())
        if width == 0:
            continue
        mask = torch.arange(width, device=rows.device) < state.size[rows, None]
        atoms = state.atoms[rows, :width]
        gram = state.gram[atoms[:, :, None], atoms[:, None]] * (mask[:, :, None] & mask[:, None])
        gram = gram + torch.diag_embed((~mask).to(gram))
        factor, failed = torch.linalg.cholesky_ex(gram)
        values = state.values[rows, :width] * mask
        for _ in range(2):  # the residual in the space of the data keeps the digits that the Gram matrix loses
            dense = torch.zeros_like(state.target[rows]).scatter_add_(1, atoms, values)
            rest = ((right[rows] - dense @ dictionary.T) @ dictionary).gather(1, atoms) * mask
            correction = torch.cholesky_solve(rest[:, :, None], factor).squeeze(2)
            values = torch.where((failed == 0)[:, None], values + correction, values)  # else: as the bordering left it
        state.values[rows, :width] = values.clamp_min(0) * mask


def nnls(dictionary: Tensor, right: Tensor, max_iterations: int | None = None, tolerance: float = 1e-11) -> Solution:
    """argmin over c >= 0 of |dictionary c - y|, for every row y of ``right``.

    Args:
        dictionary: [d, n].
        right: [B, d].
        max_iterations: rounds in which atoms enter; 3 n if not given.
        tolerance: the gradient counts as non-negative above -tolerance |a_i| |y|.

    Raises:
        ValueError: for shapes that do not fit, and NaN or infinity.
    """
    if dictionary.ndim != 2 or right.ndim != 2 or dictionary.shape[0] != right.shape[1] or 0 in dictionary.shape:
        raise ValueError(f"dictionary [d, n] and right [B, d] do not fit: {[*dictionary.shape]}, {[*right.shape]}")
    if not bool(torch.isfinite(dictionary).all() and torch.isfinite(right).all()):
        raise ValueError("dictionary or right-hand sides hold NaN or infinity")
    most = max_iterations or 3 * dictionary.shape[1]
    if right.device.type == "cpu" and right.dtype == dictionary.dtype == torch.float64 and len(right):
        arrays = dictionary.detach().numpy(), right.detach().numpy()
        values, iterations = active_set.solve(*arrays, most, tolerance, torch.get_num_threads())
        coefficients = torch.from_numpy(values)
    else:
        coefficients, iterations = on_tensors(dictionary, right, most, tolerance)
    gradient = (coefficients @ dictionary.T - right) @ dictionary
    return Solution(coefficients, gradient, iterations)


def on_tensors(dictionary: Tensor, right: Tensor, most: int, tolerance: float) -> tuple[Tensor, int]:
    """Coefficients [B, n] and the largest number of iterations, on any device."""
    gram = dictionary.T @ dictionary
    parts = [_solve_block(dictionary, gram, block, most, tolerance) for block in right.split(BLOCK)]
    return torch.cat([part[0] for part in parts]), max(part[1] for part in parts)


def _solve_block(dictionary: Tensor, gram: Tensor, right: Tensor, most: int, tolerance: float) -> tuple[Tensor, int]:
    """Coefficients [B, n] of one block, and its iterations."""
    target = right @ dictionary
    state = _State(gram, target, 8, min(dictionary.shape))
    scale = gram.diagonal().sqrt() * right.norm(dim=1, keepdim=True)
    rows = torch.arange(len(right), device=right.device)
    refused = torch.zeros_like(target, dtype=torch.bool)  # spanned by the active atoms as they are
    iterations = 0
    while iterations < most:
        descent = target[rows] - _active_product(state, rows)
        descent = torch.where(refused[rows] | (descent <= tolerance * scale[rows]), -torch.inf, descent)
        descent.scatter_(1, state.atoms[rows], _active_mask(state, rows, descent))
        best, atoms = descent.topk(min(TOGETHER, descent.shape[1]), dim=1)
        is_open = best[:, 0] > 0
        rows, best, atoms = rows[is_open], best[is_open], atoms[is_open]
        if not len(rows):
            break
        taken = state.size.clone()
        for column in range(atoms.shape[1]):  # the steepest, and others about as steep
            takers = (best[:, column] >= ALIKE * best[:, 0]).nonzero().squeeze(1)
            if len(takers):
                is_new = state.add(rows[takers], atoms[takers, column])
                refused[rows[takers][~is_new], atoms[takers, column][~is_new]] = True
        refused[state.size > taken] = False  # another set may hold them
        _move(state, rows[state.size[rows] > 0])
        iterations += 1
    _finish(state, dictionary, right)
    return state.dense(), iterations


def _active_product(state: _State, rows: Tensor) -> Tensor:
    """A^T A c [R, n] of the current coefficients."""
    width = max(1, int(state.size[rows].max()))
    return torch.nn.functional.embedding_bag(
        state.atoms[rows, :width], state.gram, per_sample_weights=state.values[rows, :width].contiguous(), mode="sum"
    )


def _active_mask(state: _State, rows: Tensor, descent: Tensor) -> Tensor:
    """What to write at the listed atoms so that active ones are not taken again; padding stays as it is."""
    atoms = state.atoms[rows]
    inside = torch.arange(atoms.shape[1], device=rows.device) < state.size[rows, None]
    is_zero_active = (inside & (atoms == 0)).any(1, keepdim=True)
    kept = torch.where(is_zero_active, -torch.inf, descent[:, :1])
    return torch.where(inside, -torch.inf, kept)
