"""Sizes, importance map, causality, where gradients flow."""

import itertools

import pytest
import torch
from torch.nn import functional

from modules.cpm.losses import rate_hinge, symbol_bits
from modules.cpm.nets import CausalConv3d, ContextModel, CPMNet, importance_mask, pad_to_stride
from tests.modules.cpm.small import network, picture_batch


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_sizes():
    """By hand: 18 weights for each pair of channels, masked ones included; see the sheet of the paper."""
    assert count(ContextModel()) == 23_838
    assert count(ContextModel(features=64)) == (18 + 1) * 64 + 2 * (18 * 64 * 64 + 64) + 18 * 64 * 6 + 6
    strided, body, norms = 25 * (3 * 64 + 64 * 128), 32 * (9 * 128 * 128 + 2 * 128), 2 * (64 + 128)
    for channels in (32, 64):
        net = CPMNet(channels)
        assert count(net.encoder) == strided + body + norms + 25 * 128 * (channels + 1) + 2 * (channels + 1)
        assert count(net.decoder) == strided + body + norms + 9 * 128 * channels + 2 * 3
        assert count(net) == count(net.encoder) + count(net.decoder) + 23_838 + 6
    assert count(CPMNet(32, importance_map="none").encoder) == count(CPMNet(31).encoder)


def test_kernels_begin_as_the_authors_have_them():
    """Xavier-uniform on the whole shape, biases zero."""
    torch.manual_seed(0)
    net = CPMNet(4, width=32, groups=1, units=1)
    assert float(net.context.second.weight.detach().abs().max()) == pytest.approx((6 / (2 * 18 * 24)) ** 0.5, rel=1e-3)
    assert not net.context.second.bias.any()
    inner = net.encoder.layers[3].weight  # 5x5, 16 to 32
    assert float(inner.detach().abs().max()) == pytest.approx((6 / (25 * (16 + 32))) ** 0.5, rel=1e-2)


@pytest.mark.parametrize("ceil", [False, True])
def test_the_mask_lets_the_first_channels_pass(ceil: bool):
    y = torch.tensor([-200.0, -0.7, 0.0, 0.3, 40.0]).view(1, 1, 1, 5).requires_grad_()
    mask = importance_mask(y, 6, ceil)
    a = 6 / (1 + torch.exp(-y.detach().double().flatten()))
    for column, level in enumerate(a.tolist()):
        expected = [min(max(level - k, 0.0), 1.0) for k in range(6)]
        expected = [float(v > 1e-9) for v in expected] if ceil else expected
        assert mask[0, :, 0, column].tolist() == pytest.approx(expected, abs=1e-5)
    mask[0, :, 0, 1].sum().backward()
    sigmoid = torch.sigmoid(torch.tensor(-0.7))
    assert float(y.grad[0, 0, 0, 1]) == pytest.approx(6 * float(sigmoid * (1 - sigmoid)), rel=1e-4)


def earlier_and_seen() -> set[tuple[int, int, int]]:
    """Differences (channel, row, column) that four layers of causal taps lead to, by walking them."""
    plane = list(itertools.product((-1, 0, 1), (-1, 0, 1)))
    first = [(-1, *step) for step in plane] + [(0, *step) for step in plane if step < (0, 0)]
    found = {(0, 0, 0)}
    for taps in ([*first, (0, 0, 0)],) * 3 + (first,):
        found = {tuple(a + b for a, b in zip(place, tap, strict=True)) for place in found for tap in taps}
    return found


def test_a_logit_depends_on_all_earlier_symbols_in_reach_and_on_no_other():
    """With positive weights every path shows in the gradient."""
    model = ContextModel(features=3).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.abs() + 0.1)
    values = torch.rand(1, 7, 13, 13, dtype=torch.double, requires_grad=True)
    logits = model(values, torch.zeros(1, dtype=torch.double))
    (gradient,) = torch.autograd.grad(logits[0, :, 5, 6, 6].sum(), values)
    found = {(c - 5, y - 6, x - 6) for _, c, y, x in gradient.nonzero().tolist()}
    expected = earlier_and_seen()
    assert found == expected
    assert all(difference < (0, 0, 0) for difference in expected), "channel, row, column in this order"
    assert {min(d[i] for d in expected) for i in range(3)} == {-4} and max(d[2] for d in expected) == 4


def test_nothing_later_changes_a_logit():
    net = network()
    values = torch.randn(1, 5, 6, 7)
    logits = net.context_logits(values)
    for place in [(0, 0, 0), (2, 3, 4), (4, 5, 6)]:
        other = values.clone()
        other[(0, *place)] += 5
        changed = (net.context_logits(other) != logits).any(1)[0].flatten()
        position = int(torch.arange(5 * 6 * 7).view(5, 6, 7)[place])
        assert not changed[: position + 1].any()
        assert place == (4, 5, 6) or changed[position + 1 :].any()


def test_outside_of_the_volume_all_is_the_first_symbol():
    """A volume of symbol 0 looks the same everywhere, borders included."""
    net = network()
    outside = net.quantizer.levels[0].detach()
    logits = net.context_logits(outside.expand(1, 5, 6, 7))
    assert torch.allclose(logits, logits[:, :, :1, :1, :1].expand_as(logits), atol=1e-5)
    other = net.context_logits(outside.expand(1, 5, 6, 7) + 1)
    assert not torch.allclose(other, other[:, :, :1, :1, :1].expand_as(other), atol=1e-3)


def test_the_context_model_is_the_published_one():
    """The formula with convolutions whose future weights are zero, layer by layer."""
    model = network().context
    values, outside = torch.randn(2, 3, 4, 5), torch.tensor([0.7])
    x = functional.pad(values[:, None] - 0.7, (4, 4, 4, 4, 4, 0)) + 0.7

    def layer(conv: CausalConv3d, x: torch.Tensor, centre: bool) -> torch.Tensor:
        weight = conv.weight.detach().clone()
        weight[:, :, 1, 2] = 0
        weight[:, :, 1, 1, 2] = 0
        if not centre:
            weight[:, :, 1, 1, 1] = 0
        return functional.conv3d(x, weight, conv.bias)

    a = layer(model.first, x, False).relu()
    b = layer(model.third, layer(model.second, a, True).relu(), True) + a[:, :, 2:, 2:-2, 2:-2]
    expected = layer(model.last, b, True)
    assert torch.allclose(model(values, outside), expected, atol=1e-5)
    assert expected.min() < 0, "no ReLU on the logits, unless it is asked for"
    model.relu_logits = True
    assert torch.allclose(model(values, outside), expected.relu(), atol=1e-5)


def test_rate_reaches_the_encoder_through_the_map_alone():
    net = network().train()
    code, logits, _ = net(picture_batch(2, 32, 32))
    bits = symbol_bits(logits, code.symbols)
    to_code = net.encoder.layers[-2].weight
    (from_bits,) = torch.autograd.grad(bits.sum(), to_code, retain_graph=True, allow_unused=True)
    assert from_bits is None
    assert torch.autograd.grad(bits.sum(), net.quantizer.levels, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(bits.sum(), net.context.first.weight, retain_graph=True)[0].any()
    hinge = rate_hinge(bits.detach(), code.mask, 0.0)
    (through,) = torch.autograd.grad(hinge, to_code)
    assert through[0].any() and not through[1:].any()


def test_images_of_any_size_keep_it():
    net = network()
    x = picture_batch(2, 19, 42)
    padded = torch.cat((x, x[:, :, -1:].expand(-1, -1, 5, -1)), 2)
    padded = torch.cat((padded, padded[..., -1:].expand(-1, -1, -1, 6)), 3)
    assert torch.equal(pad_to_stride(x), padded)
    with torch.no_grad():
        coded, whole = net(x), net(padded)
    assert coded.x_hat.shape == (2, 3, 19, 42) and coded.code.symbols.shape == (2, 5, 3, 6)
    assert coded.logits.shape == (2, 6, 5, 3, 6)
    assert torch.equal(coded.code.symbols, whole.code.symbols)
    assert torch.equal(coded.x_hat, whole.x_hat[..., :19, :42])


def test_masked_values_are_quantised_and_decoded():
    net = network()
    with torch.no_grad():
        out = net.encoder(picture_batch(1, 16, 24))
        code = net.quantize(out)
        z = out[:, 1:] * importance_mask(out[:, :1], 5, False)
        nearest = (z.unsqueeze(-1) - net.quantizer.levels).abs().argmin(-1)
        assert torch.equal(code.symbols, nearest) and torch.equal(code.values, net.quantizer.levels[nearest])
        assert torch.equal(net(picture_batch(1, 16, 24)).x_hat, net.decoder(code.values))


def test_autocast_does_not_reach_mask_and_quantiser():
    net, out = network(), 3 * torch.randn(1, 6, 4, 4)
    expected = net.quantize(out.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        code = net.quantize(out.bfloat16())
    assert code.values.dtype == code.mask.dtype == torch.float32
    assert torch.equal(code.values, expected.values) and torch.equal(code.symbols, expected.symbols)


def test_every_option_of_the_network_acts():
    x = picture_batch(1, 32, 32)
    with torch.no_grad():
        base = network()(x)
        ceil = network(importance_map="ceil")(x)
        none = network(importance_map="none")(x)
        clipped = network(relu_logits=True)(x)
    assert set(ceil.code.mask.unique().tolist()) <= {0.0, 1.0} and not torch.equal(base.x_hat, ceil.x_hat)
    assert torch.equal(none.code.mask, torch.ones_like(none.code.mask))
    assert torch.equal(clipped.logits, base.logits.relu()) and not torch.equal(clipped.logits, base.logits)
    wider = {"width": 8, "groups": 2, "units": 2, "features": 8}
    assert all(count(network(**{name: size})) > count(network()) for name, size in wider.items())
    assert network(num_centers=3)(x).logits.shape[1] == 3
    assert network(centers="even").quantizer.levels.tolist() == pytest.approx([-2, -1.2, -0.4, 0.4, 1.2, 2])


@pytest.mark.parametrize(
    "options",
    [{"channels": 0}, {"width": 1}, {"groups": 0}, {"units": 0}, {"features": 0}, {"num_centers": 1},
     {"num_centers": 257}, {"importance_map": "hard"}, {"centers": "sorted"}],
)  # fmt: skip
def test_impossible_networks_are_refused(options: dict[str, object]):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        CPMNet(**options)  # type: ignore[arg-type]
