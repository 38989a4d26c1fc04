"""Levenberg-Marquardt for many starts of a matrix multiplication algorithm at once, with a pull towards -1, 0, 1.

Letters: S starts; r products; x the weights of one start, N = r (n m + m p + n p) of them.

Minimised is, for every start on its own,

    |sum_q W_c W_a W_b - T|^2  +  regularization |x|^2  +  pull |x (x^2 - 1)|^2

First the regularisation falls from ``regularization`` by ``decay`` an iteration to ``least_regularization``, which
keeps the weights small and the algorithm away from the border, where products cancel and weights grow without bounds.
After ``free_iterations`` it is dropped and the pull begins, at ``pull`` and growing by ``growth`` an iteration up to 1.
The pull is zero exactly at -1, 0 and 1 and moves all weights together along the set of exact algorithms: the changes of
basis and the scalings of products that leave an algorithm exact are used up to make it ternary. No weight is rounded
before the end.

The matrix of a Gauss-Newton step is made of Gram matrices and never of the Jacobian. With G_b = W_b W_b^T and
G_c = W_c W_c^T the block of W_a with itself is (G_b * G_c) x identity, and the entry of W_a[q, a] with W_b[s, b] is
G_c[q, s] W_b[q, b] W_a[s, a].
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from modules.strassen.bilinear import defects, product_tensor, sides

CHUNK_NUMBERS = 1 << 24
"""Entries of all Gauss-Newton matrices that exist at the same time: 128 MiB in double precision."""
LEAST_DAMPING, MOST_DAMPING = 1e-12, 10.0


def gradient(first: Tensor, second: Tensor, third: Tensor, error: Tensor) -> Tensor:
    """Half the gradient of |error|^2 [S, N], in the order first, second, third."""
    along_second = torch.einsum("soab,sqb->sqoa", error, second)
    parts = (
        torch.einsum("sqoa,sqo->sqa", along_second, third),
        torch.einsum("soab,sqo,sqa->sqb", error, third, first),
        torch.einsum("sqoa,sqa->sqo", along_second, first),
    )
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def gauss_newton(first: Tensor, second: Tensor, third: Tensor) -> Tensor:
    """J^T J [S, N, N] of the defects, from Gram matrices."""
    factors = (first, second, third)
    starts, rank = first.shape[:2]
    edges = [0]
    for factor in factors:
        edges.append(edges[-1] + rank * factor.shape[2])
    grams = [factor @ factor.mT for factor in factors]
    matrix = first.new_zeros(starts, edges[3], edges[3])
    for i, (j, k) in enumerate(((1, 2), (0, 2), (0, 1))):
        size = factors[i].shape[2]
        block = matrix[:, edges[i] : edges[i + 1], edges[i] : edges[i + 1]]
        block = block.unflatten(1, (rank, size)).unflatten(3, (rank, size))
        block.diagonal(dim1=2, dim2=4).copy_((grams[j] * grams[k]).unsqueeze(3).expand(-1, -1, -1, size))
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        block = torch.einsum("sqp,sqb,spa->sqapb", grams[k], factors[j], factors[i])
        block = block.reshape(starts, edges[i + 1] - edges[i], edges[j + 1] - edges[j])
        matrix[:, edges[i] : edges[i + 1], edges[j] : edges[j + 1]] = block
        matrix[:, edges[j] : edges[j + 1], edges[i] : edges[i + 1]] = block.mT
    return matrix


class LevenbergMarquardt(torch.optim.Optimizer):
    """An optimizer of ``BilinearStarts``; it takes no gradients, since it knows the equations.

    A step of a start that would raise its objective is not taken, and its damping grows threefold; otherwise it falls
    to 0.4 of its value.

    Args:
        params: the three weights [S, r, n m], [S, r, m p], [S, r, n p].
        step_length: over the full step.
        regularization, decay, least_regularization: of the first iterations.
        free_iterations: how many come before the pull.
        pull, growth: of the iterations after these.
        damping: of the first step,
        pull_damping: and of the first one with a pull, so that it is not taken with the bold steps of convergence.

    Raises:
        ValueError: for other weights, or options out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        step_length: float = 1.0,
        regularization: float = 0.1,
        decay: float = 0.9,
        least_regularization: float = 1e-4,
        free_iterations: int = 120,
        pull: float = 1e-3,
        growth: float = 1.1,
        damping: float = 1.0,
        pull_damping: float = 0.01,
    ) -> None:
        if min(regularization, least_regularization, pull, damping, pull_damping) <= 0 or free_iterations < 0:
            raise ValueError("regularization, least_regularization, pull and dampings must be positive")
        if not 0 < decay <= 1 <= growth or not 0 < step_length <= 1:
            raise ValueError(
                f"decay and step_length must be in 0..1 and growth at least 1, got {decay}, {step_length}, {growth}"
            )
        names = ("lr", "regularization", "decay", "least_regularization", "free_iterations", "pull", "growth")
        values = (step_length, regularization, decay, least_regularization, free_iterations, pull, growth)
        super().__init__(params, dict(zip(names, values, strict=True)))
        self.dampings = damping, pull_damping
        weights = self.param_groups[0]["params"]
        if len(self.param_groups) != 1 or len(weights) != 3 or any(w.dim() != 3 for w in weights):
            raise ValueError("LevenbergMarquardt trains the three weights [S, r, size] of BilinearStarts only")
        tensor = product_tensor(*sides(tuple(weight.shape[2] for weight in weights)))
        self.target = torch.from_numpy(tensor)

    def weights_of_terms(self, iteration: int) -> tuple[float, float]:
        """Regularisation and pull of an iteration."""
        group = self.param_groups[0]
        late = iteration - group["free_iterations"]
        if late >= 0:
            return 0.0, min(group["pull"] * group["growth"] ** late, 1.0)
        return max(group["regularization"] * group["decay"] ** iteration, group["least_regularization"]), 0.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One iteration of all starts."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = self.param_groups[0]["params"]
        state = self.state[weights[0]]
        if not state:
            state["iteration"] = 0
            state["damping"] = weights[0].new_full((len(weights[0]),), self.dampings[0])
        if state["iteration"] == self.param_groups[0]["free_iterations"]:
            state["damping"].fill_(self.dampings[1])
        terms = self.weights_of_terms(state["iteration"])
        numbers = sum(weight[0].numel() for weight in weights) ** 2
        for part in torch.arange(len(weights[0])).split(max(1, CHUNK_NUMBERS // numbers)):
            rows = slice(int(part[0]), int(part[-1]) + 1)
            self.iterate([weight[rows] for weight in weights], state["damping"][rows], *terms)
        state["iteration"] += 1
        return loss

    def objective(self, x: Tensor, error: Tensor, regularization: float, pull: float) -> Tensor:
        """Of each start [S]; x is [S, N]."""
        fit = error.flatten(1).square().sum(1)
        return fit + regularization * x.square().sum(1) + pull * (x * (x.square() - 1)).square().sum(1)

    def iterate(self, weights: list[Tensor], damping: Tensor, regularization: float, pull: float) -> None:
        """One step of some starts, in place."""
        target = self.target.to(weights[0])
        first, second, third = weights
        error = defects(first, second, third, target)
        x = torch.cat([weight.flatten(1) for weight in weights], dim=1)
        slope = 3 * x.square() - 1
        downhill = gradient(first, second, third, error) + regularization * x + pull * x * (x.square() - 1) * slope
        matrix = gauss_newton(first, second, third)
        matrix.diagonal(dim1=1, dim2=2).add_(regularization + pull * slope.square() + damping.unsqueeze(1))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        change = torch.cholesky_solve(downhill.unsqueeze(2), factor).squeeze(2)
        moved = x - self.param_groups[0]["lr"] * torch.where((failed > 0).unsqueeze(1), 0.0, change)
        sizes = [weight[0].numel() for weight in weights]
        trial = [part.view_as(weight) for part, weight in zip(moved.split(sizes, 1), weights, strict=True)]
        before = self.objective(x, error, regularization, pull)
        new_error = defects(trial[0], trial[1], trial[2], target)
        better = self.objective(moved, new_error, regularization, pull) < before  # False for NaN
        for weight, part in zip(weights, trial, strict=True):
            weight.copy_(torch.where(better.view(-1, 1, 1), part, weight))
        damping.copy_(torch.where(better, 0.4 * damping, 3.0 * damping).clamp(LEAST_DAMPING, MOST_DAMPING))
