"""A new student in old parameters, a frozen teacher, and weights out of a checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from modules.components.frozen import Frozen
from modules.components.students import born_again, on_cpu, start_anew


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_a_new_student_is_put_into_the_old_parameters() -> None:
    chain: Any = SimpleNamespace(make_student=layers, student=layers().to(torch.float64))
    before = list(chain.student.parameters())
    chain.student(torch.randn(5, 3, dtype=torch.float64))
    torch.manual_seed(1)
    start_anew(chain, 7)
    following = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(following, torch.rand(2))  # nobody else's random numbers are drawn
    torch.manual_seed(7)
    expected = layers().state_dict()
    for name, value in chain.student.state_dict().items():
        assert torch.equal(value, expected[name].to(value.dtype)), name
    assert all(a is b for a, b in zip(before, chain.student.parameters(), strict=True))


def test_weights_are_copied() -> None:
    network = layers()
    weights = on_cpu(network)
    with torch.no_grad():
        network[0].weight.add_(1.0)
    assert torch.equal(weights["0.weight"] + 1.0, network[0].weight)
    assert not any(value.requires_grad for value in weights.values())


def test_a_frozen_network_is_a_copy_that_learns_nothing() -> None:
    network = layers()
    given = on_cpu(layers())
    frozen, other = Frozen(network), Frozen(network, given)
    assert torch.equal(other.network.state_dict()["0.weight"], given["0.weight"])
    x = torch.randn(5, 3, requires_grad=True)
    network(x)  # batch statistics, and those of the copy stay
    torch.testing.assert_close(frozen(x), frozen.network[0](x).detach(), rtol=1e-4, atol=0)  # type: ignore[index]
    assert not frozen(x).requires_grad
    assert not any(p.requires_grad for p in frozen.network.parameters())
    assert all(p.requires_grad for p in network.parameters()) and network.training


def test_a_module_of_another_kind_is_named() -> None:
    with pytest.raises(ValueError, match="cannot train a Linear: it has no make_student, student, teacher"):
        born_again(nn.Linear(2, 2))
