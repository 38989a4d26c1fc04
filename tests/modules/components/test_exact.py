import numpy as np
import pytest
import torch

from modules.components.exact import (
    EXACT_LIMIT,
    InexactWeightsError,
    check_products,
    check_sums,
    integer_layer,
    rounded,
)


def test_rounding_is_half_upwards():
    x = torch.tensor([-1.5, -0.51, -0.5, 0.49, 0.5, 2.5])
    assert rounded(x).tolist() == [-1.0, -1.0, 0.0, 0.0, 1.0, 3.0]


def test_sums_below_the_limit_pass_and_the_first_other_is_named():
    check_sums([("a", 0.0), ("b", EXACT_LIMIT - 1)])
    with pytest.raises(InexactWeightsError, match="b can sum up to 16777216"):
        check_sums([("a", 1.0), ("b", EXACT_LIMIT), ("c", 1e9)])
    with pytest.raises(InexactWeightsError, match="c"):
        check_sums([("c", float("nan"))])


def largest_sum(weight: np.ndarray, bias: np.ndarray, largest: float, skip: float, bits: int) -> float:
    return (np.abs(weight).sum(1) * largest + np.abs(bias)).max() + skip * 2.0**bits


@pytest.mark.parametrize(("scale", "skip"), [(0.01, 0.0), (0.3, 0.0), (3.0, 0.0), (0.3, 2047.0)])
def test_a_layer_has_as_many_bits_as_its_sums_allow(scale: float, skip: float):
    torch.manual_seed(0)
    weight, bias = scale * torch.randn(5, 40), torch.randn(5)
    layer = integer_layer("a layer", weight, bias, 5, 2047, skip)

    def whole(bits: int) -> tuple[np.ndarray, np.ndarray]:
        wide = weight.double().numpy(), bias.double().numpy()
        return np.floor(wide[0] * 2.0**bits + 0.5), np.floor(wide[1] * 2.0 ** (bits + 5) + 0.5)

    assert np.array_equal(layer.weight.numpy(), whole(layer.bits)[0])
    assert np.array_equal(layer.bias.numpy(), whole(layer.bits)[1])
    assert largest_sum(*whole(layer.bits), 2047, skip, layer.bits) < EXACT_LIMIT
    finer = largest_sum(*whole(layer.bits + 1), 2047, skip, layer.bits + 1)
    assert finer >= EXACT_LIMIT or layer.bits == 12
    assert (layer.bits == 12) == (scale == 0.01)


def test_sums_at_the_bound_are_whole_in_any_order():
    torch.manual_seed(0)
    weight = torch.randn(3, 300)
    layer = integer_layer("a layer", weight, torch.zeros(3), 5, 2047)
    x = torch.where(layer.weight[0] > 0, 2047.0, -2047.0)  # the worst input
    exact = layer.weight.long() @ x.long()
    for order in (torch.arange(300), torch.arange(299, -1, -1), torch.randperm(300)):
        assert torch.equal((layer.weight[:, order] @ x[order]).long(), exact)
    assert abs(int(exact[0])) < EXACT_LIMIT


@pytest.mark.parametrize("value", [1e4, float("nan"), float("inf")])
def test_weights_that_cannot_be_exact_are_refused(value: float):
    weight = torch.full((1, 9), value)
    with pytest.raises(InexactWeightsError, match="the third layer can sum up to"):
        integer_layer("the third layer", weight, torch.zeros(1), 5, 2047)
    with pytest.raises(InexactWeightsError):
        integer_layer("the third layer", torch.zeros(1, 9), torch.tensor([value * 1e4]), 5, 2047)


def test_what_is_added_with_weight_one_counts_in_the_units_of_the_sum():
    weight, bias = torch.tensor([[1.5]]), torch.zeros(1)
    assert integer_layer("a layer", weight, bias, 5, 2047).bits == 12
    assert integer_layer("a layer", weight, bias, 5, 2047, skip=2047).bits == 11


def test_the_fewest_bits_are_four():
    assert integer_layer("a layer", torch.tensor([[511.0]]), torch.zeros(1), 5, 2047).bits == 4
    with pytest.raises(InexactWeightsError, match="a layer can sum up to"):
        integer_layer("a layer", torch.tensor([[513.0]]), torch.zeros(1), 5, 2047)


def test_products_are_exact_here():
    check_products(torch.device("cpu"))
    with torch.autocast("cpu", torch.bfloat16):
        check_products(torch.device("cpu"))


@pytest.mark.parametrize("bits", [7, 10])
def test_a_device_that_rounds_the_factors_of_a_product_is_refused(bits: int, monkeypatch: pytest.MonkeyPatch):
    """As bfloat16 and TF32 do, with 7 and 10 bits behind the first."""

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if x.is_floating_point():
            mantissa, exponent = torch.frexp(x)
            x = torch.ldexp(torch.round(mantissa * 2 ** (bits + 1)), exponent - bits - 1)
        return x.matmul(weight)

    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    with pytest.raises(RuntimeError, match=r'products on cpu are not exact.*precision\("highest"\)'):
        check_products(torch.device("cpu"))
