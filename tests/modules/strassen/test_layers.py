"""SPN layers: exact multiplication, patches, ternary weights, conversion by rules, and stages."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from modules.strassen.conversion import Rule, SPNNetwork, convert
from modules.strassen.layers import SPNLSTM, InnerNorm, SPNConv1d, SPNConv2d, SPNLayer, SPNLinear
from modules.strassen.nets import SPNResNet20
from modules.strassen.quantizers import straight_through, ternarize
from tests.modules.strassen.test_bilinear import POSTER


def seeded(seed: int = 0) -> None:
    torch.manual_seed(seed)


# Quantisers


def test_rescaled_is_the_formula_of_twn() -> None:
    w = torch.tensor([[0.1, -2.0, 0.5], [-0.2, 1.0, 0.0]])
    threshold = 0.7 * (0.1 + 2.0 + 0.5 + 0.2 + 1.0) / 6  # 0.443
    assert 0.2 < threshold < 0.5
    pattern, scale = ternarize(w, "rescaled")
    assert pattern.tolist() == [[0, -1, 1], [0, 1, 0]]
    assert float(scale) == pytest.approx((2.0 + 0.5 + 1.0) / 3)


def test_fixed_has_the_threshold_one_half() -> None:
    pattern, scale = ternarize(torch.tensor([0.5, 0.51, -0.6, -0.4, 3.0]), "fixed")
    assert pattern.tolist() == [0, 1, -1, 0, 1] and float(scale) == 1.0


def test_gradients_go_straight_through() -> None:
    for quantizer in ("rescaled", "fixed"):
        w = torch.randn(5, 4, requires_grad=True)
        factors = torch.randn(5, 4)
        (straight_through(w, quantizer) * factors).sum().backward()
        torch.testing.assert_close(w.grad, factors)
    assert ternarize(torch.zeros(3), "rescaled").scale == 0
    with pytest.raises(ValueError, match="rescaled or fixed, got 'twn'"):
        ternarize(torch.zeros(3), "twn")


# Exact cases


def test_an_spn_with_an_exact_algorithm_multiplies_matrices() -> None:
    """The scalings are W_a vec A for a fixed A; the signs of negative ones go to the second map."""
    a = torch.tensor([[3.0, 1.0], [2.0, 5.0]])
    first, second = torch.from_numpy(POSTER.second).float(), torch.from_numpy(POSTER.third).float()
    hidden = torch.from_numpy(POSTER.first).float() @ a.T.flatten()
    layer = SPNLinear(4, 4, 7, quantizer="fixed", norm=False, bias=False)
    layer.first.data, layer.second.data = first, second * hidden.sign()
    layer.inner.scale.data = hidden.abs()
    for stage in ("full", "quantized", "frozen"):
        layer.advance(stage)
        for b in torch.randn(5, 2, 2):
            torch.testing.assert_close(layer(b.T.flatten()[None])[0], (a @ b).T.flatten())


def plain(layer: SPNLayer) -> SPNLayer:
    """Make the inner norm the identity, in evaluation."""
    norm = layer.inner.norm  # type: ignore[union-attr]
    norm.running_var.fill_(1 - norm.eps)
    return layer.eval()


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (1, 2, 0), (7, 2, 3), (2, 1, 0)])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 13)])
def test_patches_agree_with_the_convolution(
    patch: int, kernel: int, stride: int, padding: int, size: tuple[int, int]
) -> None:
    """Hidden units that copy all inputs of a patch, and second maps that hold the kernel at each of its places."""
    seeded()
    inputs, outputs = 2, 3
    weight, bias = torch.randn(outputs, inputs, kernel, kernel), torch.randn(outputs)
    wide = (patch - 1) * stride + kernel
    layer = SPNConv2d(inputs, outputs, inputs * wide**2, kernel, stride, padding, patch, bias=True)
    assert layer.first.shape[-1] == wide
    layer.first.data = torch.eye(inputs * wide**2).view(layer.first.shape)
    second = torch.zeros(inputs, wide, wide, outputs, patch, patch)
    for i in range(patch):
        for j in range(patch):
            rows, columns = slice(i * stride, i * stride + kernel), slice(j * stride, j * stride + kernel)
            second[:, rows, columns, :, i, j] = weight.permute(1, 2, 3, 0)
    layer.second.data, layer.bias.data = second.flatten(0, 2), bias  # type: ignore[union-attr]
    x = torch.randn(2, inputs, *size)
    expected = functional.conv2d(x, weight, bias, stride, padding)
    torch.testing.assert_close(plain(layer)(x), expected, atol=1e-4, rtol=1e-4)


def test_groups_keep_channels_apart() -> None:
    layer = SPNConv2d(4, 4, 4, 1, groups=2)
    assert layer.first.shape == (4, 2, 1, 1)
    layer.second.data = torch.eye(4).view(4, 4, 1, 1)
    plain(layer)
    x = torch.randn(1, 4, 3, 3)
    changed = x.clone()
    changed[:, 2:] += 1
    assert torch.equal(layer(x)[:, :2], layer(changed)[:, :2])
    assert not torch.equal(layer(x)[:, 2:], layer(changed)[:, 2:])


def test_the_inner_norm_and_its_scalings() -> None:
    seeded()
    inner, u = InnerNorm(3), 2 * torch.randn(50, 3, 4) + 1
    inner.scale.data = torch.tensor([-1.0, 2.0, 300.0])
    inner.shift.data = torch.tensor([0.5, -0.5, 1.0])  # type: ignore[union-attr]
    y = inner(u)
    assert inner.scale.tolist() == [0, 2, 100]
    mean, variance = u.mean((0, 2)), u.var((0, 2), unbiased=False)
    normal = (u - mean[:, None]) / (variance + 1e-3).sqrt()[:, None]
    expected = torch.tensor([0.0, 2.0, 100.0])[:, None] * (normal + torch.tensor([0.5, -0.5, 1.0])[:, None])
    torch.testing.assert_close(y, expected, atol=1e-3, rtol=1e-4)
    assert inner.norm.num_batches_tracked == 1  # type: ignore[union-attr]
    gain, offset = inner.eval().affine()
    torch.testing.assert_close(inner(u), (gain[:, None] * u + offset[:, None]).float(), atol=1e-4, rtol=1e-4)
    bare = InnerNorm(3, norm=False)
    bare.scale.data = torch.tensor([0.5, 2.0, 101.0])
    torch.testing.assert_close(bare(u), u * torch.tensor([0.5, 2.0, 100.0])[:, None])


def test_the_lstm_is_an_ordinary_one_with_products_as_matrices() -> None:
    seeded()
    layer = SPNLSTM(5, 4, 2, 3)
    for bias in layer.bias:
        nn.init.normal_(bias)
    for scale in layer.scale:
        nn.init.uniform_(scale, 0.5, 2)
    plain_lstm = nn.LSTM(5, 4, 2)
    x, before = torch.randn(6, 2, 5), torch.empty(0)
    for stage in ("full", "quantized", "frozen"):
        layer.advance(stage)
        for i, kind in enumerate(("ih_l0", "hh_l0", "ih_l1", "hh_l1")):
            gates = []
            for gate in range(4):
                first, second = layer.first[i][gate], layer.second[i][gate]
                if stage != "full":
                    first, second = (t.pattern * t.scale for t in (ternarize(w, "rescaled") for w in (first, second)))
                gates.append(second @ layer.scale[i][gate].diag() @ first)
            getattr(plain_lstm, f"weight_{kind}").data = torch.cat(gates)
            getattr(plain_lstm, f"bias_{kind}").data = layer.bias[i]
        expected, (h, c) = plain_lstm(x)
        y, state = layer(x)
        torch.testing.assert_close(y, expected)
        if stage == "frozen":
            torch.testing.assert_close(y, before)  # every gate has kept its own scale
        before = y.detach()
        torch.testing.assert_close(state[1], c)
        torch.testing.assert_close(layer(x, (h, c))[0], plain_lstm(x, (h, c))[0])


def test_conv1d_has_one_map() -> None:
    seeded()
    layer = plain(SPNConv1d(3, 5, 2))
    layer.bias.data.normal_()
    x = torch.randn(2, 3, 7)
    expected = functional.conv1d(x, layer.first) + layer.bias[:, None]
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_initialisation() -> None:
    layer = SPNLinear(30, 10, 20, magnitude=3.0)
    assert 0.9 * (6 / 50) ** 0.5 < layer.first.abs().max() <= (6 / 50) ** 0.5
    assert 0.8 * (6 / 30) ** 0.5 < layer.second.abs().max() <= (6 / 30) ** 0.5
    conv = SPNConv2d(8, 16, 32, 3, patch=2, groups=2)
    assert conv.first.abs().max() <= (4 / (4 * 16 + 32 * 16)) ** 0.5
    assert conv.first.abs().max() > 0.9 * (4 / (4 * 16 + 32 * 16)) ** 0.5
    assert conv.second.abs().max() <= (4 / (32 * 4 + 16 * 4)) ** 0.5
    assert (conv.inner.scale == 1).all() and (layer.bias == 0).all()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SPNLinear(3, 3, 0), "units of an SPN layer must be at least 1, got 0"),
        (lambda: SPNConv2d(3, 3, 3, patch=0), "patch"),
        (lambda: SPNConv2d(3, 4, 4, groups=2), "groups 2 must divide"),
        (lambda: SPNConv2d(4, 4, 4, groups=0), "groups 0 must divide"),
        (lambda: SPNConv2d(3, 3, 3, padding=-1), "padding of an SPN layer must be at least 0, got -1"),
        (lambda: SPNConv1d(3, 4, 0), "kernel"),
        (lambda: SPNLinear(3, 3, 3, quantizer="none"), "quantizer must be"),
        (lambda: SPNLSTM(3, 3, 1, 0), "units"),
    ],
)
def test_impossible_layers(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


# Conversion and stages


def own_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 1),
        nn.Flatten(),
        nn.Linear(8 * 16, 5),
    )


def test_rules_decide_in_their_order() -> None:
    rules = [
        Rule("0", patch=2, ratio=2.0, quantizer="fixed"),
        Rule(kind="conv", kernel=3),
        Rule(kind="conv", keep=True),
        Rule(kind="linear", units=7, norm=False),
    ]
    model = convert(own_model(), rules)
    first, kept, dense = model[0], model[3], model[5]  # type: ignore[index]
    assert isinstance(first, SPNConv2d) and (first.units, first.patch, first.quantizer) == (8, 2, "fixed")
    assert isinstance(kept, nn.Conv2d)
    assert isinstance(dense, SPNLinear) and dense.units == 7 and dense.inner.norm is None
    assert model(torch.zeros(2, 3, 4, 4)).shape == (2, 5)
    assert Rule("0").fits("0", nn.Linear(2, 2)) and not Rule("0").fits("01", nn.Linear(2, 2))


def test_a_shared_layer_stays_shared() -> None:
    linear = nn.Linear(3, 3)
    model = convert(nn.Sequential(linear, nn.ReLU(), linear), [Rule()])
    assert model[0] is model[2]  # type: ignore[index]


@pytest.mark.parametrize(
    ("model", "rule", "message"),
    [
        (own_model(), Rule("nothing"), "no layer of the network fits"),
        (own_model(), Rule(ratio=0.1), "leaves no hidden unit"),
        (nn.Linear(2, 2), Rule(), "single layer"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), Rule(), "0: a grouped"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2)), Rule(), "dilated"),
        (nn.Sequential(nn.Conv2d(4, 4, (3, 1))), Rule(), "unequal sides"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding="same")), Rule(), "other padding"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), Rule(), "other padding"),
        (nn.Sequential(nn.LSTM(3, 3, bidirectional=True)), Rule(), "only a plain LSTM"),
        (nn.Sequential(nn.LSTM(3, 3, batch_first=True)), Rule(), "only a plain LSTM"),
        (nn.Sequential(nn.Conv1d(3, 4, 2, padding=1)), Rule(), "no padding only"),
        (nn.Sequential(nn.Conv1d(3, 4, 2)), Rule(ratio=2), "ratio 1"),
    ],
)
def test_what_cannot_be_converted_is_named(model: nn.Module, rule: Rule, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(model, [rule])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "("}, "no regular expression"),
        ({"kind": "dense"}, "kind must be conv, conv1d, linear, lstm"),
        ({"ratio": 0}, "ratio and magnitude must be above 0"),
        ({"ratio": float("inf")}, "ratio and magnitude must be above 0"),
        ({"magnitude": 0}, "ratio and magnitude must be above 0"),
        ({"units": 0}, "units must be at least 1"),
        ({"units": 3, "ratio": 2.0}, "without a ratio"),
        ({"kind": "linear", "patch": 2}, "neither patch nor groups"),
        ({"kind": "lstm", "groups": 2}, "neither patch nor groups"),
        ({"kind": "linear", "kernel": 3}, "has no kernel"),
    ],
)
def test_rules_without_sense_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule(**options)


def test_derived_classes_are_not_replaced() -> None:
    """Attention reads the matrix of its last layer itself; a parametrised layer computes its weight."""
    with pytest.raises(ValueError, match="out_proj: a NonDynamicallyQuantizableLinear is more than an ordinary layer"):
        convert(nn.MultiheadAttention(4, 2), [Rule()])
    weighed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="0: a ParametrizedLinear"):
        convert(nn.Sequential(weighed), [Rule()])


def test_new_layers_are_where_and_what_the_old_ones_were() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.LSTM(2, 3)).double().eval()
    converted = convert(model, [Rule()])
    assert not any(module.training for module in converted.modules())
    assert all(parameter.dtype == torch.float64 for parameter in converted.parameters())
    assert all(p.is_meta for p in convert(nn.Sequential(nn.Linear(2, 2, device="meta")), [Rule()]).parameters())
    trained = convert(nn.Sequential(nn.Linear(2, 2)).train(), [Rule()])
    assert all(module.training for module in trained.modules())


def test_a_dense_layer_takes_any_leading_sizes() -> None:
    seeded()
    layer = SPNLinear(3, 5, 4).eval()
    x = torch.randn(2, 6, 3)
    expected = torch.stack([layer(row) for row in x.flatten(0, 1)]).view(2, 6, 5)
    torch.testing.assert_close(layer(x), expected)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor, *, factor: float = 1.0) -> torch.Tensor:
        return factor * self.linear(x)


def test_arguments_by_name_reach_the_network() -> None:
    network, x = SPNNetwork(Scaled(), [Rule()]).eval(), torch.randn(2, 3)
    torch.testing.assert_close(network(x, factor=3.0), 3 * network(x))


def small() -> SPNResNet20:
    seeded()
    return SPNResNet20(width=4, blocks=1)


def test_stages() -> None:
    network = small()
    x = torch.randn(4, 3, 16, 16)
    network.eval()
    full = network(x)
    network.stage = "quantized"
    quantized = network(x)
    assert not torch.allclose(full, quantized)
    network.train()
    network(x).sum().backward()
    assert all(layer.first.grad is not None for layer in network.spn_layers())
    network.zero_grad()
    network.stage = "frozen"
    network.eval()
    for layer in network.spn_layers():
        for name in ("first", "second"):
            assert len(getattr(layer, name).unique()) == 3
    network.train()
    network(x).sum().backward()
    for layer in network.spn_layers():
        assert layer.first.grad is None and layer.second.grad is None and layer.inner.scale.grad is not None
    with pytest.raises(ValueError, match="stage must be full, quantized, frozen"):
        network.stage = "ternary"


def test_frozen_weights_stay_ternary_through_training_and_checkpoints() -> None:
    network = small()
    network.stage = "frozen"
    before = [layer.first.detach().clone() for layer in network.spn_layers()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.randn(4, 3, 16, 16)).square().mean().backward()
        optimizer.step()
    network.stage = "frozen"
    other = small()
    other.load_state_dict(network.state_dict())
    assert other.stage == "frozen" and all(layer.stage == "frozen" for layer in other.spn_layers())
    for layer, loaded, weight in zip(network.spn_layers(), other.spn_layers(), before, strict=True):
        assert torch.equal(layer.first, weight) and torch.equal(loaded.first, weight)
    broken = network.state_dict() | {"_extra_state": torch.tensor(7)}
    with pytest.raises(ValueError, match="unknown stage 7"):
        other.load_state_dict(broken)


def test_a_copy_of_a_network_keeps_its_stage() -> None:
    network = small()
    network.stage = "frozen"
    assert copy.deepcopy(network).stage == "frozen"
