"""Bits, the hinge on the rate, weight decay."""

import pytest
import torch

from modules.cpm.losses import rate_hinge, symbol_bits, weight_decay
from tests.modules.cpm.small import network


def test_bits_are_those_of_the_softmax():
    logits, symbols = torch.randn(2, 4, 3, 5, 6), torch.randint(4, (2, 3, 5, 6))
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -torch.log2(p.gather(1, symbols[:, None])[:, 0])
    assert torch.allclose(symbol_bits(logits, symbols), expected, atol=1e-5)


def test_the_hinge_counts_bits_above_the_target():
    bits, mask = torch.tensor([[[[2.0, 4.0]]]]), torch.tensor([[[[1.0, 0.5]]]])
    assert float(rate_hinge(bits, mask, 1.0)) == pytest.approx((2.0 + 3.0) / 2 - 1)
    assert float(rate_hinge(bits, mask, 1.0, "masked")) == pytest.approx(1.0)
    assert float(rate_hinge(bits, mask, 2.5)) == 0


def test_decay_is_of_kernels_and_centres_alone():
    net = network()
    kernels = [p for part in (net.encoder, net.decoder) for p in part.parameters() if p.dim() == 4]
    squares = sum(float(p.detach().double().square().sum()) for p in kernels)
    centres = float(net.quantizer.levels.detach().double().square().sum())
    assert float(weight_decay(net, 0.3, 0.0).detach()) == pytest.approx(0.15 * squares, rel=1e-5)
    assert float(weight_decay(net, 0.0, 0.4).detach()) == pytest.approx(0.2 * centres, rel=1e-5)
    weight_decay(net, 0.3, 0.4).backward()
    assert net.context.first.weight.grad is None and net.encoder.layers[1].weight.grad is None
