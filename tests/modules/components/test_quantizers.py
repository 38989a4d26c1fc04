import pytest
import torch

from modules.components.quantizers import SoftHardQuantizer


def soft_by_formula(u: float, levels: torch.Tensor, sigma: float) -> torch.Tensor:
    weights = torch.exp(-sigma * (u - levels) ** 2)
    return (weights * levels).sum() / weights.sum()


def test_forward_is_the_nearest_level_and_the_gradient_is_the_soft_one():
    quantizer = SoftHardQuantizer(25)
    x = torch.tensor([-3.0, -0.97, 0.03, 0.05, 0.9, 7.0], requires_grad=True)
    values, symbols = quantizer(x)
    nearest = (x.detach()[:, None] - quantizer.levels).abs().argmin(1)
    assert torch.equal(symbols, nearest)
    assert torch.allclose(values, quantizer.levels[nearest])
    values.sum().backward()
    for u, gradient in zip(x.detach().tolist(), x.grad, strict=True):
        point = torch.tensor(u, requires_grad=True)
        soft_by_formula(point, quantizer.levels, 2.0).backward()
        assert torch.allclose(gradient, point.grad, atol=1e-5)


def test_levels_are_evenly_spaced_symmetric_and_not_saved():
    quantizer = SoftHardQuantizer(25)
    assert torch.allclose(quantizer.levels.diff(), torch.tensor(1 / 12), atol=1e-6)
    assert torch.allclose(quantizer.levels, -quantizer.levels.flip(0))
    assert not quantizer.state_dict()


def test_one_level_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        SoftHardQuantizer(1)


def test_a_tie_goes_to_the_lower_level():
    quantizer = SoftHardQuantizer(3)
    middle = torch.tensor([-0.5, 0.5])
    assert quantizer.symbols(middle).tolist() == [0, 1]
    assert quantizer.symbols(torch.nextafter(middle, torch.tensor(2.0))).tolist() == [1, 2]


def test_sigma_and_range_are_arguments():
    quantizer = SoftHardQuantizer(5, low=0.0, high=8.0, sigma=0.3)
    assert quantizer.levels.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]
    x = torch.tensor([2.7], requires_grad=True)
    quantizer(x).values.sum().backward()
    point = torch.tensor(2.7, requires_grad=True)
    soft_by_formula(point, quantizer.levels, 0.3).backward()
    assert x.grad.item() == pytest.approx(point.grad.item(), rel=1e-5)


def test_without_a_gradient_the_values_are_the_levels_themselves():
    quantizer = SoftHardQuantizer(25)
    values, symbols = quantizer(torch.linspace(-1.3, 1.3, 101))
    assert torch.equal(values, quantizer.levels[symbols])
