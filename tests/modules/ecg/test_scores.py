"""Loss and F1 against numbers worked out by hand."""

import math

import pytest
import torch
from sklearn.metrics import f1_score

from modules.ecg.losses import published_weights, weighted_cross_entropy
from modules.ecg.metrics import ChallengeF1, challenge_f1, f1_per_class

CONFUSION = torch.tensor([[50, 1, 4, 0], [2, 6, 1, 1], [5, 2, 20, 3], [1, 0, 2, 2]])
"""Rows N, A, O, ~ as they are; columns as predicted."""


def pairs(confusion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(predicted, true) classes with this confusion matrix."""
    cells = [(column, row, int(confusion[row, column])) for row in range(4) for column in range(4)]
    predicted = torch.cat([torch.full((n,), column) for column, _, n in cells])
    true = torch.cat([torch.full((n,), row) for _, row, n in cells])
    return predicted, true


def test_weights_of_the_sheet() -> None:
    assert published_weights().tolist() == pytest.approx([1.136, 3.050, 1.506, 6.916], abs=5e-4)


def test_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, 0.0, 0.0]])
    label = torch.tensor([1, 0])
    weights = torch.tensor([1.0, 3.0, 1.0, 1.0])
    by_hand = 3 * math.log(4) + math.log(2)
    assert float(weighted_cross_entropy(logits, label, weights)) == pytest.approx(by_hand)
    assert float(weighted_cross_entropy(logits, label, weights, "mean")) == pytest.approx(by_hand / 2)
    assert float(weighted_cross_entropy(logits, label, None)) == pytest.approx(math.log(4) + math.log(2))


def test_f1_by_hand() -> None:
    expected = [2 * 50 / (55 + 58), 2 * 6 / (10 + 9), 2 * 20 / (30 + 27), 2 * 2 / (5 + 6)]
    assert f1_per_class(CONFUSION).tolist() == pytest.approx(expected)
    assert float(challenge_f1(CONFUSION)) == pytest.approx(sum(expected[:3]) / 3)


def test_the_published_rule() -> None:
    """The challenge's words: the mean F1 of N, A, O, where noisy records count in the sums of rows and columns."""
    metric = ChallengeF1()
    predicted, true = pairs(CONFUSION)
    for part in torch.randperm(len(true)).split(7):
        metric.update(torch.nn.functional.one_hot(predicted[part], 4).float(), true[part])
    assert torch.equal(metric.matrix(), CONFUSION)
    assert float(metric.compute()) == pytest.approx(f1_score(true, predicted, labels=[0, 1, 2], average="macro"))
    without_noise = CONFUSION.clone()
    without_noise[:, 3], without_noise[3] = 0, 0
    assert float(challenge_f1(without_noise)) > float(metric.compute())


def test_undefined_classes_are_left_out() -> None:
    only_normal = torch.zeros(4, 4, dtype=torch.int64)
    only_normal[0, 0] = 5
    assert float(challenge_f1(only_normal)) == 1.0
    assert math.isnan(float(challenge_f1(torch.zeros(4, 4))))
    assert math.isnan(float(f1_per_class(only_normal)[1]))
