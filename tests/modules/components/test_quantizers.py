import pytest
import torch

from modules.components.quantizers import LearnedQuantizer, SoftHardQuantizer


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


def test_learned_levels_in_any_order_are_found_and_learn_through_the_soft_branch():
    quantizer = LearnedQuantizer(4)
    with torch.no_grad():
        quantizer.levels.copy_(torch.tensor([1.5, -2.0, 0.25, -0.5]))
    x = torch.tensor([-9.0, -1.25, -1.2, 0.0, 0.87, 0.88, 4.0], requires_grad=True)
    values, symbols = quantizer(x)
    assert symbols.tolist() == [1, 1, 3, 2, 2, 0, 0], "a tie goes to the lower level"
    assert torch.allclose(values, quantizer.levels[symbols])
    values.sum().backward()
    levels = quantizer.levels.detach().clone().requires_grad_(True)
    points = x.detach().clone().requires_grad_(True)
    sum(soft_by_formula(u, levels, 1.0) for u in points).backward()
    assert torch.allclose(quantizer.levels.grad, levels.grad, atol=1e-5)
    assert torch.allclose(x.grad, points.grad, atol=1e-5)


def test_learned_levels_start_at_random_between_their_ends_and_are_saved():
    torch.manual_seed(0)
    levels = LearnedQuantizer(2000, low=-1.0, high=3.0).levels.detach()
    assert levels.min() >= -1 and levels.max() <= 3 and levels.mean() == pytest.approx(1.0, abs=0.1)
    assert not torch.equal(levels, levels.sort().values)
    assert list(LearnedQuantizer(6).state_dict()) == ["levels"]
    with torch.device("meta"):  # as a checkpoint's network is built first
        assert LearnedQuantizer(6).levels.shape == (6,)


def test_assignments_are_softmax_weights():
    quantizer = SoftHardQuantizer(5, -2.0, 2.0, sigma=0.7)
    x = torch.tensor([[0.3, -1.9]])
    weights = torch.exp(-0.7 * (x[..., None] - quantizer.levels) ** 2)
    assert torch.allclose(quantizer.assignments(x), weights / weights.sum(-1, keepdim=True))


def test_learned_levels_can_be_made_without_memory() -> None:
    """A weights file's network is built on the meta device first."""
    with torch.device("meta"):
        levels = LearnedQuantizer(6).levels
    assert levels.is_meta and levels.shape == (6,)
