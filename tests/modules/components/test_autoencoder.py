from functools import partial

import pytest
import torch

from modules.components.autoencoder import Decoder, Encoder, GroupedBody, PixelNorm, ResidualUnit, residual_body


def conv_weights(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.dim() == 4)


def test_weights_of_the_published_sizes():
    """By hand: 3x3 convolutions of 128 channels have 147,456 weights; 32 of them in CPM's body, 6 in Theis'."""
    strided = 5 * 5 * (3 * 64 + 64 * 128)
    assert conv_weights(Encoder(33)) == strided + 32 * 147_456 + 25 * 128 * 33
    assert conv_weights(Decoder(32)) == strided + 32 * 147_456 + 9 * 32 * 128
    assert conv_weights(Encoder(16, body=residual_body)) == strided + 6 * 147_456 + 25 * 128 * 16


@pytest.mark.parametrize(("height", "width"), [(8, 8), (40, 24), (64, 160)])
def test_sides_are_an_eighth_and_come_back(height: int, width: int):
    body = partial(GroupedBody, groups=1, units=1)
    encoder, decoder = Encoder(5, 8, body), Decoder(4, 8, body)
    code = encoder(torch.rand(2, 3, height, width) * 255)
    assert code.shape == (2, 5, height // 8, width // 8) and code.min() < 0, "no activation"
    assert decoder(code[:, 1:]).shape == (2, 3, height, width)


def test_pixels_are_normalised_by_channel_and_back():
    norm, x = PixelNorm(), torch.rand(1, 3, 4, 4) * 255
    statistics = (121.85369873, 4746.37695312), (113.58860779, 4454.14013672), (100.63715363, 4812.23388672)
    for channel, (mean, variance) in enumerate(statistics):
        assert torch.allclose(norm(x)[0, channel], (x[0, channel] - mean) / variance**0.5, atol=1e-6)
    assert torch.allclose(norm.inverse(norm(x)), x, atol=1e-3)


def test_a_grouped_body_skips_each_group_and_everything():
    body = GroupedBody(4, 2, 1).eval()
    x = torch.randn(1, 4, 5, 5)
    first, second = body.groups
    a = x + first(x)
    b = a + second(a)
    assert torch.allclose(body(x), x + body.last(b), atol=1e-6)
    assert not any(isinstance(m, torch.nn.ReLU) for m in body.last.modules())
    assert sum(isinstance(m, torch.nn.ReLU) for m in body.modules()) == 2


def test_a_unit_adds_its_input_and_has_no_activation_after():
    unit, x = ResidualUnit(3).eval(), -torch.ones(1, 3, 2, 2)
    for module in unit.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
    assert torch.equal(unit(x), x)


def test_the_last_norm_is_an_option():
    with_norm, without = Decoder(4, 8), Decoder(4, 8, norm_output=False)
    assert isinstance(with_norm.layers[-1], torch.nn.BatchNorm2d)
    assert isinstance(without.layers[-1], torch.nn.ConvTranspose2d) and without.layers[-1].bias is not None
