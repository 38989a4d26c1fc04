"""Levenberg-Marquardt for many starts of a matrix multiplication algorithm at once, with a pull towards -1, 0, 1.

Letters: S starts; r products; x the weights of one start, N = r (n m + m p + n p) of them.

Minimised is, for every start on its own,

    |sum_q W_c W_a W_b - T|^2  +  regularization |x|^2  +  sparsity |x|_1  +  pull |x (x^2 - 1)|^2

in three phases, each with one of the last three terms:

1. ``free_iterations`` in which the regularisation falls from ``regularization`` by ``decay`` an iteration to
   ``least_regularization``. It keeps the weights small and the algorithm away from the border, where products cancel
   and weights grow without bounds. A start that is still far from the equations then is left as it is.
2. ``sparse_iterations`` in which the sum of magnitudes moves the algorithm along the set of exact ones, by changes of
   basis, scalings and what else leaves it exact, to one with many zeros. The sum is |x|^2 / sqrt(x^2 + e^2) with the
   root held fixed within an iteration (iteratively reweighted least squares); e falls from ``smoothing``. Then the
   three factors of each product are scaled to the same largest magnitude, which is 1 for a ternary one.
3. The rest, in which the pull grows by ``growth`` an iteration from ``pull`` up to 1. It is zero at -1, 0 and 1 alone.

No weight is rounded before the end.

The matrix of a Gauss-Newton step is made of Gram matrices and never of the Jacobian. With G_b = W_b W_b^T and
G_c = W_c W_c^T the block of W_a with itself is (G_b * G_c) x identity, and the entry of W_a[q, a] with W_b[s, b] is
G_c[q, s] W_b[q, b] W_a[s, a].
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modules.strassen.bilinear import defects, product_tensor, sides

CHUNK_NUMBERS = 1 << 24
"""Entries of all Gauss-Newton matrices that exist at the same time: 128 MiB in double precision."""
MAX_NUMBERS = 1 << 14
"""N at most: one Gauss-Newton matrix has 2 GiB then."""
LEAST_DAMPING, MOST_DAMPING = 1e-12, 10.0
HOPELESS = 0.1
"""Squared defects of a start that does not go on after the first phase; one wrong term of the product alone is 1."""
SMOOTHING_DECAY = 0.88


class Terms(NamedTuple):
    """Weights of an iteration."""

    regularization: float = 0.0
    sparsity: float = 0.0
    smoothing: float = 1.0
    pull: float = 0.0


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


def check_options(values: dict[str, float]) -> None:
    """Raise a ValueError for options of ``LevenbergMarquardt`` out of range."""
    positive = ("regularization", "least_regularization", "sparsity", "smoothing", "damping", "later_damping")
    if wrong := [name for name in positive if not 0 < values[name] < math.inf]:
        raise ValueError(f"{wrong[0]} must be positive, got {values[wrong[0]]}")
    if wrong := [name for name in ("step_length", "decay", "pull") if not 0 < values[name] <= 1]:
        raise ValueError(f"{wrong[0]} must be above 0 and at most 1, got {values[wrong[0]]}")
    if wrong := [name for name in ("free_iterations", "sparse_iterations") if values[name] < 0]:
        raise ValueError(f"{wrong[0]} must be at least 0, got {values[wrong[0]]}")
    if not 1 <= values["growth"] < math.inf:
        raise ValueError(f"growth must be at least 1, got {values['growth']}")


def balance(weights: list[Tensor]) -> list[Tensor]:
    """The same products with factors of the same largest magnitude; a product with a factor of zeros stays."""
    largest = [weight.abs().amax(2, keepdim=True) for weight in weights]
    each = (largest[0] * largest[1] * largest[2]) ** (1 / 3)
    pairs = zip(weights, largest, strict=True)
    return [torch.where(each > 0, weight * (each / most), weight) for weight, most in pairs]


class LevenbergMarquardt(torch.optim.Optimizer):
    """An optimizer of ``BilinearStarts``; it takes no gradients, since it knows the equations.

    A step of a start that would raise its objective is not taken, and its damping grows threefold; otherwise it falls
    to 0.4 of its value.

    Args:
        params: the three weights [S, r, n m], [S, r, m p], [S, r, n p].
        step_length: over the full step.
        regularization, decay, least_regularization, free_iterations: of the first phase.
        sparsity, smoothing, sparse_iterations: of the second; with 0 iterations there is none.
        pull, growth: of the third.
        damping: of the first step,
        later_damping: and of the first one of the other two phases, so that it is not taken with the bold steps of
            convergence.

    Raises:
        ValueError: for other weights, more than ``MAX_NUMBERS`` of them in a start, or options out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        step_length: float = 1.0,
        regularization: float = 0.1,
        decay: float = 0.9,
        least_regularization: float = 1e-4,
        free_iterations: int = 100,
        sparsity: float = 3e-3,
        smoothing: float = 0.3,
        sparse_iterations: int = 25,
        pull: float = 3e-3,
        growth: float = 1.25,
        damping: float = 1.0,
        later_damping: float = 0.01,
    ) -> None:
        values = {name: value for name, value in locals().items() if name not in ("self", "params", "__class__")}
        check_options(values)
        self.dampings = values.pop("damping"), values.pop("later_damping")
        super().__init__(params, {"lr": values.pop("step_length"), **values})
        weights = self.param_groups[0]["params"]
        if len(self.param_groups) != 1 or len(weights) != 3 or any(w.dim() != 3 for w in weights):
            raise ValueError("LevenbergMarquardt trains the three weights [S, r, size] of BilinearStarts only")
        numbers = sum(weight[0].numel() for weight in weights)
        if numbers > MAX_NUMBERS:
            raise ValueError(f"a start has {numbers} weights; LevenbergMarquardt takes up to {MAX_NUMBERS}: use SGD")
        tensor = product_tensor(*sides(tuple(weight.shape[2] for weight in weights)))
        self.target = torch.from_numpy(tensor)

    def terms(self, iteration: int) -> Terms:
        """Those of an iteration, counted from 0."""
        group = self.param_groups[0]
        sparse = iteration - group["free_iterations"]
        late = sparse - group["sparse_iterations"]
        if sparse < 0:
            falling = group["regularization"] * group["decay"] ** iteration
            return Terms(regularization=max(falling, group["least_regularization"]))
        if late < 0:
            return Terms(sparsity=group["sparsity"], smoothing=group["smoothing"] * SMOOTHING_DECAY**sparse)
        return Terms(pull=math.exp(min(math.log(group["pull"]) + late * math.log(group["growth"]), 0.0)))

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
            state["alive"] = torch.ones_like(state["damping"])  # 1 or 0: a state that is loaded has floats only
        self.begin_phase(weights, state)
        terms = self.terms(state["iteration"])
        numbers = sum(weight[0].numel() for weight in weights) ** 2
        for rows in state["alive"].nonzero().squeeze(1).split(max(1, CHUNK_NUMBERS // numbers)):
            moved, state["damping"][rows] = self.iterate([w[rows] for w in weights], state["damping"][rows], terms)
            for weight, part in zip(weights, moved, strict=True):
                weight[rows] = part
        state["iteration"] += 1
        return loss

    def begin_phase(self, weights: list[Tensor], state: dict[str, Any]) -> None:
        """What happens between two phases: nothing within one."""
        group = self.param_groups[0]
        second = group["free_iterations"]
        third = second + group["sparse_iterations"]
        if state["iteration"] == second and second > 0:
            # Start by start, since the defects of all at once may not fit.
            for start in range(len(weights[0])):
                first, second, third = (weight[start : start + 1] for weight in weights)
                error = defects(first, second, third, self.target.to(weights[0]))
                state["alive"][start] = error.square().sum() < HOPELESS
        if state["iteration"] == third and third > second:
            for weight, part in zip(weights, balance(weights), strict=True):
                weight.copy_(part)
        if state["iteration"] in (second, third):
            state["damping"].fill_(self.dampings[1])

    def iterate(self, weights: list[Tensor], damping: Tensor, terms: Terms) -> tuple[list[Tensor], Tensor]:
        """One step of some starts: their weights and damping after it."""
        target, sizes = self.target.to(weights[0]), [weight[0].numel() for weight in weights]
        error = defects(*weights, target)  # type: ignore[call-arg]
        x = torch.cat([weight.flatten(1) for weight in weights], dim=1)
        quadratic = terms.regularization + terms.sparsity / (x.square() + terms.smoothing**2).sqrt()

        def objective(x: Tensor, error: Tensor) -> Tensor:
            """Of each start [S]; x is [S, N]."""
            wells = terms.pull * (x * (x.square() - 1)).square()
            return error.flatten(1).square().sum(1) + (quadratic * x.square() + wells).sum(1)

        slope = 3 * x.square() - 1
        downhill = gradient(*weights, error) + quadratic * x + terms.pull * x * (x.square() - 1) * slope  # type: ignore[call-arg]
        matrix = gauss_newton(*weights)  # type: ignore[call-arg]
        matrix.diagonal(dim1=1, dim2=2).add_(quadratic + terms.pull * slope.square() + damping.unsqueeze(1))
        factor, failed = torch.linalg.cholesky_ex(matrix)
        change = torch.cholesky_solve(downhill.unsqueeze(2), factor).squeeze(2)
        moved = x - self.param_groups[0]["lr"] * torch.where((failed > 0).unsqueeze(1), 0.0, change)
        trial = [part.view_as(weight) for part, weight in zip(moved.split(sizes, 1), weights, strict=True)]
        better = objective(moved, defects(*trial, target)) < objective(x, error)  # type: ignore[call-arg]  # False for NaN
        taken = [torch.where(better.view(-1, 1, 1), new, old) for new, old in zip(trial, weights, strict=True)]
        return taken, torch.where(better, 0.4 * damping, 3.0 * damping).clamp(LEAST_DAMPING, MOST_DAMPING)
