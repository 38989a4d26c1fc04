"""Non-negative garrote for logistic regression (section 5.3): shrink the coefficients of a ridge fit by factors c >= 0.

    min over c >= 0 of  -log-likelihood(labels; sigmoid(features (c o beta) + bias)) + weight * sum(c)

Letters: N samples, p features.
"""

import numpy as np
import torch
from torch import Tensor

from modules.components.gathering import Batch, gather_records
from modules.components.gathering_module import Study
from modules.components.options import above, at_least
from modules.cone_pursuit.objectives import Logistic
from modules.cone_pursuit.oracles import NonNegativeBall
from modules.cone_pursuit.solvers import ALGORITHMS, pursue

RIDGE, DESCENT = "ridge", "coordinate_descent"


def ridge_logistic(features: Tensor, labels: Tensor, ridge: float = 1e-2) -> tuple[Tensor, float]:
    """Coefficients [p] and bias that minimise the negative log-likelihood plus ridge / 2 times the sum of all their
    squares, the bias's too, by Newton's method with halved steps.

    Args:
        features: float64 [N, p].
        labels: 0 or 1 [N].
    """
    padded = torch.cat((features, features.new_ones(len(features), 1)), 1)
    objective = Logistic(padded, labels)

    def value(w: Tensor) -> float:
        return float(objective.value(w[None]) + 0.5 * ridge * w.square().sum())

    w = padded.new_zeros(padded.shape[1])
    for _ in range(100):
        share = torch.sigmoid(padded @ w)
        slope = objective.gradient(w[None])[0] + ridge * w
        curvature = (padded.T * (share * (1 - share))) @ padded + ridge * torch.eye(len(w), dtype=w.dtype)
        step, length = torch.linalg.solve(curvature, slope), 1.0
        while value(w - length * step) > value(w) and length > 1e-8:
            length /= 2
        w = w - length * step
        if float(slope @ step) < 1e-14:
            break
    return w[:-1], float(w[-1])


def coordinate_descent(objective: Logistic, sweeps: int = 1000, tolerance: float = 1e-10) -> Tensor:
    """c [1, p] >= 0: every coordinate in turn goes to the minimum of a parabola of curvature 1/4 sum of x_j^2, which
    lies above the objective, until a sweep changes no coordinate by more than ``tolerance``."""
    features, labels = objective.features.numpy(), objective.labels.numpy()
    bounds = 0.25 * np.square(features).sum(0)
    c, logits = np.zeros(features.shape[1]), np.full(len(features), objective.bias)
    for _ in range(sweeps):
        largest = 0.0
        for j in np.flatnonzero(bounds):
            slope = features[:, j] @ (1 / (1 + np.exp(-logits)) - labels) + objective.weight
            new = max(0.0, c[j] - slope / bounds[j])
            logits += (new - c[j]) * features[:, j]
            largest, c[j] = max(largest, abs(new - c[j])), new
        if largest <= tolerance:
            break
    return torch.from_numpy(c)[None]


class GarroteStudy(Study):
    """Accuracies of the garrote over random splits of a set with two classes.

    Records for study_table.py: ``train_accuracy``, ``test_accuracy``, ``zeros`` (of c) and ``objective``.
    The algorithm ``ridge`` is c = 1, ``coordinate_descent`` the converged baseline.

    Args:
        algorithms: pursuits, ridge, coordinate_descent.
        weight: lambda of the sum of c.
        smoothness: L of the step 1 / L (authors: 1000); computed from the features if not given.
        max_iterations: of a pursuit.
        threshold: c below it counts as zero.
    """

    def __init__(
        self,
        algorithms: list[str] | None = None,
        weight: float = 1.0,
        smoothness: float | None = 1000.0,
        max_iterations: int = 100,
        threshold: float = 1e-8,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.algorithms = ["nnmp", "pwmp", "fcmp0", DESCENT, RIDGE] if algorithms is None else algorithms
        if unknown := set(self.algorithms) - {*ALGORITHMS, DESCENT, RIDGE}:
            raise ValueError(f"unknown {unknown}: choose from {', '.join((*ALGORITHMS, DESCENT, RIDGE))}")
        at_least(1, max_iterations=max_iterations)
        at_least(0, weight=weight, threshold=threshold)
        above(0, smoothness=smoothness)
        self.weight, self.smoothness = weight, smoothness
        self.max_iterations, self.threshold = max_iterations, threshold

    def training_step(self, batch: Batch, batch_index: int) -> None:
        points, labels, is_train = (batch[name].cpu() for name in ("points", "label", "is_train"))
        beta, bias = ridge_logistic(points[is_train], labels[is_train])
        objective = Logistic(points[is_train] * beta, labels[is_train], bias, self.weight)
        for name in self.algorithms:
            c = self.shrink(objective, name)
            is_right = ((points * beta @ c[0] + bias) > 0) == (labels > 0)
            self.records.append(
                {
                    "draw": int(batch["index"]),
                    "algorithm": name,
                    "train_accuracy": float(is_right[is_train].double().mean()),
                    "test_accuracy": float(is_right[~is_train].double().mean()),
                    "zeros": float((c <= self.threshold).sum()),
                    "objective": float(objective.value(c)),
                }
            )
        self.count_step()

    def shrink(self, objective: Logistic, name: str) -> Tensor:
        """c [1, p]."""
        like = objective.features.new_ones(1, objective.features.shape[1])
        if name == RIDGE:
            return like
        if name == DESCENT:
            return coordinate_descent(objective)
        if self.smoothness is not None:
            objective.smoothness = self.smoothness
        return pursue(objective, NonNegativeBall(), like, name, self.max_iterations).x

    def on_train_epoch_end(self) -> None:
        self.records = gather_records(self.records)
        for name in self.algorithms:
            own = [record["test_accuracy"] for record in self.records if record["algorithm"] == name]
            self.log(f"train/test_accuracy_{name}", float(np.median(own)))
