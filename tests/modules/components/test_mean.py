"""Weights count, whatever their form."""

import pytest
import torch

from modules.components.mean import Mean


def test_weighted_means():
    mean = Mean()
    mean.update(torch.tensor(1.0), weight=3)
    mean.update(torch.tensor(5.0), weight=1)
    assert mean.compute() == pytest.approx(2.0)
    mean.reset()
    mean.update(torch.tensor([1.0, 2.0, 6.0]))
    mean.update(7.0)
    assert mean.compute() == pytest.approx(4.0)
    mean.reset()
    mean.update(torch.tensor([1.0, 5.0]), weight=torch.tensor([3.0, 1.0]))
    assert mean.compute() == pytest.approx(2.0)
    mean.reset()
    mean.update(torch.tensor([2.0, 4.0]), weight=torch.tensor(5.0))
    mean.update(torch.tensor([9.0], requires_grad=True), weight=10)
    assert mean.compute() == pytest.approx(6.0) and not mean.mean_value.requires_grad
