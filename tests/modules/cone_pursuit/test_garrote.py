"""The garrote against scipy's optimisers."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from modules.cone_pursuit.garrote import DESCENT, RIDGE, GarroteStudy, coordinate_descent, ridge_logistic
from modules.cone_pursuit.objectives import Logistic
from modules.cone_pursuit.oracles import NonNegativeBall
from modules.cone_pursuit.solvers import pursue
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "cone_pursuit"


@pytest.fixture
def samples() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(60, 6, dtype=torch.float64, generator=random)
    noise = torch.randn(60, dtype=torch.float64, generator=random)
    return features, (features[:, 0] - 2 * features[:, 1] + noise > 0.3).long()


def test_ridge_start(samples: tuple[Tensor, Tensor]) -> None:
    features, labels = (array.numpy() for array in samples)

    def value(w: np.ndarray) -> float:
        logits = features @ w[:-1] + w[-1]
        return float((np.logaddexp(0, logits) - labels * logits).sum() + 0.005 * w @ w)

    reference = minimize(value, np.zeros(7), tol=1e-12).x
    beta, bias = ridge_logistic(*samples)
    np.testing.assert_allclose([*beta, bias], reference, atol=1e-4)
    assert value(np.array([*beta, bias])) <= value(reference) + 1e-10


def test_ridge_start_on_separable_classes() -> None:
    points = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]], dtype=torch.float64)
    beta, bias = ridge_logistic(points, torch.tensor([0, 0, 1, 1]))
    assert 1 < float(beta) < 1000 and abs(bias) < 1e-6


def test_pursuits_and_coordinate_descent_find_the_garrote(samples: tuple[Tensor, Tensor]) -> None:
    features, labels = samples
    beta, bias = ridge_logistic(features, labels)
    objective = Logistic(features * beta, labels, bias, weight=1.0)

    def value(c: np.ndarray) -> tuple[float, np.ndarray]:
        at = torch.from_numpy(c)[None]
        return float(objective.value(at)), objective.gradient(at)[0].numpy()

    reference = minimize(value, np.ones(6), jac=True, bounds=[(0, None)] * 6, tol=1e-14).x
    assert (reference == 0).any()
    np.testing.assert_allclose(coordinate_descent(objective)[0].numpy(), reference, atol=1e-5)
    like = features.new_ones(1, 6)
    for name, iterations, gap in (("pwmp", 300, 0.02), ("fcmp0", 300, 0.02), ("fcmp1", 6, 1e-6)):
        found = pursue(objective, NonNegativeBall(), like, name, iterations).x[0].numpy()
        assert value(reference)[0] - 1e-6 <= value(found)[0] <= value(reference)[0] + gap


def test_config_runs_on_tiny_data() -> None:
    options = ["--data.init_args.repeats=2", "--model.init_args.max_iterations=20"]
    main(["fit", f"--config={CONFIGS / 'garrote.yaml'}", "--run.dir=runs", *options])
    with Path("runs/000/table.csv").open() as file:
        rows = {row["algorithm"]: row for row in csv.DictReader(file)}
    assert set(rows) == {"nnmp", "pwmp", "fcmp0", "coordinate_descent", "ridge"}
    for row in rows.values():
        assert 0.6 < float(row["train_accuracy"]) < 0.9
        assert float(rows["coordinate_descent"]["objective"]) <= float(row["objective"]) + 1e-6
    assert float(rows["ridge"]["zeros"]) == 0


def test_values_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="choose from"):
        GarroteStudy(["lasso"])
    with pytest.raises(ValueError, match="smoothness must be above 0"):
        GarroteStudy(smoothness=0.0)
    with pytest.raises(ValueError, match="at least 1"):
        GarroteStudy(max_iterations=0)


def test_accuracies_of_the_two_parts(samples: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Held-out points alone count for the test, the others alone for the training; by counting."""
    points, label = samples
    is_train = torch.arange(60) % 3 > 0
    study = GarroteStudy([RIDGE, DESCENT], weight=2.0)
    monkeypatch.setattr(study, "count_step", lambda: None)
    study.training_step({"points": points, "label": label, "is_train": is_train, "index": 4}, 0)
    beta, bias = ridge_logistic(points[is_train], label[is_train])
    shrunk = coordinate_descent(Logistic(points[is_train] * beta, label[is_train], bias, 2.0))[0]
    for record, c in zip(study.records, (torch.ones(6), shrunk), strict=True):
        right = [bool((x @ (beta * c) + bias > 0) == (y == 1)) for x, y in zip(points, label, strict=True)]
        held_out = [r for r, t in zip(right, is_train.tolist(), strict=True) if not t]
        trained = [r for r, t in zip(right, is_train.tolist(), strict=True) if t]
        assert record["test_accuracy"] == pytest.approx(np.mean(held_out)) != pytest.approx(np.mean(right))
        assert record["train_accuracy"] == pytest.approx(np.mean(trained))
        assert record["zeros"] == int((c == 0).sum()) and record["draw"] == 4
