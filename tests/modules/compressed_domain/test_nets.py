"""Sizes and operations of the published networks, what stands at which resolution, the quantiser's gradient."""

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modules.compressed_domain.nets import CodeResNet, CodeResNetD, CompressionNet, RGBResNet, RGBResNetD, to_pixels
from modules.compressed_domain.residual import ASPP, Bottleneck, stages


def gmac(network: nn.Module, *shape: int) -> float:
    """1e9 multiply-adds of convolutions and linear layers, on the meta device."""
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.empty(shape, device="meta"))
    return counter.get_total_flops() / 2e9


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("depth", "published", "count"), [(39, 2.95, 25_188_328), (51, 3.83, 29_657_064), (72, 5.36, 37_477_352)]
)
def test_cresnets_of_the_paper(depth: int, published: float, count: int) -> None:
    with torch.device("meta"):
        network, strided = CodeResNet(depth=depth), CodeResNet(depth=depth, stride_in="3x3")
    assert gmac(network, 1, 32, 28, 28) == pytest.approx(published, rel=0.01)
    assert parameters(network) == count == parameters(strided)
    units = sum(isinstance(layer, Bottleneck) for layer in network.modules())
    assert 3 * units == depth
    assert gmac(strided, 1, 32, 28, 28) == pytest.approx({39: 3.1, 51: 4.0, 72: 5.5}[depth], rel=0.02)


@pytest.mark.parametrize(("depth", "published", "count"), [(50, 3.86, 25_557_032), (71, 5.39, 33_377_320)])
def test_resnets_of_the_paper(depth: int, published: float, count: int) -> None:
    with torch.device("meta"):
        network = RGBResNet(depth=depth)
    assert gmac(network, 1, 3, 224, 224) == pytest.approx(published, rel=0.01)
    assert parameters(network) == count
    assert 3 * sum(isinstance(layer, Bottleneck) for layer in network.modules()) + 2 == depth


def test_the_three_rates_cost_what_the_sheet_says() -> None:
    with torch.device("meta"):
        narrow = CodeResNet(channels=8)
    assert gmac(narrow, 1, 8, 28, 28) == pytest.approx(3.821, abs=0.001)


def test_resnet_50_computes_what_torchvisions_does() -> None:
    """With the stride in the 3x3 convolutions; weights copied in the order in which both define them."""
    torch.manual_seed(0)
    ours = RGBResNet(num_classes=10, stride_in="3x3").eval()
    theirs = torchvision.models.resnet50(num_classes=10).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.0)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    pairs = [value for name, value in ours.state_dict().items() if not name.endswith("num_batches_tracked")]
    found = [value for name, value in theirs.state_dict().items() if not name.endswith("num_batches_tracked")]
    assert [p.shape for p in pairs] == [f.shape for f in found]
    for own, other in zip(pairs, found, strict=True):
        own.copy_(other)
    image = torch.randint(256, (2, 3, 64, 64)).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(ours.features[0](image)), rtol=1e-4, atol=1e-4)


def test_a_unit_by_hand() -> None:
    torch.manual_seed(0)
    unit = Bottleneck(8, 2, 2, 1, "1x1").eval()
    x = torch.randn(1, 8, 6, 6)
    inner = torch.relu(unit.norm1(nn.functional.conv2d(x, unit.conv1.weight, stride=2)))
    inner = torch.relu(unit.norm2(nn.functional.conv2d(inner, unit.conv2.weight, padding=1)))
    shortcut = nn.functional.conv2d(x, unit.shortcut[0].weight, stride=2)
    expected = torch.relu(unit.norm3(unit.conv3(inner)) + unit.shortcut[1](shortcut))
    torch.testing.assert_close(unit(x), expected)
    plain = Bottleneck(8, 2, 1, 1, "1x1").eval()
    assert plain.shortcut is None
    inner = plain.norm3(plain.conv3(torch.relu(plain.norm2(plain.conv2(torch.relu(plain.norm1(plain.conv1(x))))))))
    torch.testing.assert_close(plain(x), torch.relu(inner + x))


def resolutions(network: nn.Module, x: torch.Tensor) -> list[tuple[int, int, int]]:
    """Height and width behind each unit, and the dilation in it."""
    found = []
    for layer in network.modules():
        if isinstance(layer, Bottleneck):
            layer.register_forward_hook(lambda m, _, out: found.append((*out.shape[-2:], m.conv2.dilation[0])))
    network(x)
    return found


def test_where_the_stages_stand() -> None:
    code, image = torch.zeros(1, 4, 8, 12), torch.zeros(1, 3, 64, 96)
    on_code = resolutions(CodeResNet(4, 5, 39, 2).eval(), code)
    assert on_code == [(8, 12, 1)] * 4 + [(4, 6, 1)] * 6 + [(2, 3, 1)] * 3
    dilated = resolutions(CodeResNetD(4, 5, 39, 2).eval(), code)
    assert dilated == [(8, 12, 1)] * 4 + [(8, 12, 2)] * 6 + [(8, 12, 4)] * 3
    on_image = resolutions(RGBResNetD(5, 50, 2).eval(), image)
    assert on_image == [(16, 24, 1)] * 3 + [(8, 12, 1)] * 4 + [(8, 12, 2)] * 6 + [(8, 12, 4)] * 3
    assert CodeResNetD(4, 5, 39, 2)(torch.zeros(2, 4, 8, 12)).shape == (2, 5, 64, 96)
    assert RGBResNetD(5, 50, 2)(torch.zeros(2, 3, 64, 96)).shape == (2, 5, 64, 96)


def test_aspp_is_the_sum_of_four_dilated_convolutions() -> None:
    torch.manual_seed(0)
    head, x = ASPP(3, 2), torch.randn(1, 3, 40, 40)
    expected = sum(
        nn.functional.conv2d(x, b.weight, b.bias, padding=rate, dilation=rate)
        for b, rate in zip(head.branches, (6, 12, 18, 24), strict=True)
    )
    torch.testing.assert_close(head(x), expected)
    wide = ASPP(2048, 21)
    assert abs(float(wide.branches[0].weight.detach().std()) - 0.01) < 1e-4 and not wide.branches[3].bias.any()


def test_input_norm_and_start() -> None:
    torch.manual_seed(0)
    code = 5 + torch.randn(8, 4, 8, 8)
    plain, normed = (CodeResNet(4, 5, 39, 2, norm_input=norm) for norm in (False, True))
    assert parameters(normed) - parameters(plain) == 8
    seen = []
    normed.features[1].register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    normed(code)
    assert abs(float(seen[0].detach().mean())) < 1e-3
    wide = CodeResNet(32, 5, 39, 64).features[0][0].conv2.weight
    assert float(wide.detach().std()) == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    dilated = CodeResNetD(32, 5, 39, 64).features[0][0].conv3.weight  # by the fan of the outputs
    assert float(dilated.detach().std()) == pytest.approx((2 / 512) ** 0.5, rel=0.02)


def test_logits_are_scaled_up_between_their_centres() -> None:
    """A place stands in the middle of its 8x8 pixels; between two places it is linear, beyond them constant."""
    ramp = torch.tensor([[0.0, 16.0], [0.0, 16.0]]).view(1, 1, 2, 2)
    expected = [min(max((x + 0.5) / 8 - 0.5, 0.0), 1.0) * 16 for x in range(16)]
    found = to_pixels(ramp)
    assert found.shape == (1, 1, 16, 16) and found[0, 0, 5].tolist() == pytest.approx(expected)
    assert to_pixels(ramp.bfloat16()).dtype == torch.float32


def test_the_codec_of_the_paper() -> None:
    with torch.device("meta"):
        network = CompressionNet()
    assert parameters(network) == 2_331_849
    assert (parameters(network.encoder), parameters(network.decoder)) == (1_198_720, 1_133_123)
    assert gmac(network.encoder, 1, 3, 224, 224) == pytest.approx(3.5, rel=0.02)
    assert gmac(network.decoder, 1, 32, 28, 28) == pytest.approx(3.506, abs=0.001)
    assert network.init_args == {"channels": 32, "num_centers": 6, "width": 128, "units": 3}


def test_code_and_reconstruction() -> None:
    torch.manual_seed(0)
    network = CompressionNet(5, 4, 4, 1)
    x = 255 * torch.rand(2, 3, 24, 40)
    out = network(x)
    assert out.x_hat.shape == x.shape and out.code.values.shape == (2, 5, 3, 5)
    centers = network.quantizer.levels
    nearest = (out.code.z.unsqueeze(-1) - centers).abs().argmin(-1)
    assert torch.equal(out.code.symbols, nearest)
    torch.testing.assert_close(out.code.values, centers[nearest])  # but for the rounding of soft + (hard - soft)
    with torch.no_grad():
        again = network(x).code
    assert torch.equal(again.values, centers[again.symbols])
    soft = (torch.softmax(-((out.code.z.unsqueeze(-1) - centers) ** 2), -1) * centers).sum(-1)
    weights = torch.randn_like(soft)
    wanted = torch.autograd.grad((soft * weights).sum(), [network.encoder.layers[0].weight, centers], retain_graph=True)
    found = torch.autograd.grad((out.code.values * weights).sum(), [network.encoder.layers[0].weight, centers])
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
        assert ours.abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert network(x).code.z.dtype == torch.float32


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="depth of a cResNet must be one of 39, 51, 72, got 50"):
        CodeResNet(depth=50)
    with pytest.raises(ValueError, match="depth of a ResNet must be one of 50, 71, got 51"):
        RGBResNet(depth=51)
    with pytest.raises(ValueError, match="stride_in must be 1x1 or 3x3, got '2x2'"):
        stages(3, (4,), (1,), 1, "2x2", False)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="sides must be multiples of 8, got 24 x 36"):
        CompressionNet(2, 2, 2, 1).encode(torch.zeros(1, 3, 24, 36))
    with pytest.raises(ValueError, match="sides must be multiples of 8, got 20 x 32"):
        CompressionNet(2, 2, 2, 1).encode(torch.zeros(1, 3, 20, 32))
    bounds = {"num_centers": "2 to 127", "channels": "1 to 4096", "units": "at least 1", "width": "at least 2"}
    for name, size in (
        ("num_centers", 1),
        ("num_centers", 128),
        ("channels", 4097),
        ("channels", 0),
        ("units", 0),
        ("width", 1),
    ):
        with pytest.raises(ValueError, match=f"{name} must be {bounds[name]}, got {size}"):
            CompressionNet(**{name: size})
