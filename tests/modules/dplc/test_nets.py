"""The published sizes, shapes and ranges."""

import pytest
import torch

from modules.dplc.nets import (
    BitEncoder,
    CompressionNet,
    Critic,
    Encoder,
    GenerativeNet,
    Generator,
    ResidualBlock,
    StochasticMap,
)


def count(*networks: torch.nn.Module) -> int:
    return sum(p.numel() for network in networks for p in network.parameters())


def test_parameters_of_the_paper() -> None:
    assert count(Generator()) == 3_870_403
    assert count(Encoder()) == 3_806_208
    assert count(Critic()) == 3_073_792
    network = CompressionNet()
    assert count(network.encoder, network.map) == 13_358_600
    assert network.channels == 8 and network.noise_channels == 8
    assert count(GenerativeNet()) == 3_870_403 + 3_806_208
    assert count(GenerativeNet(encoder=False)) == 3_870_403


def test_shapes_and_ranges() -> None:
    x = torch.rand(3, 3, 64, 64) * 2 - 1
    assert Encoder(2, 20)(x).shape == (3, 20, 1, 1)
    assert Critic(2)(x).shape == (3, 1, 1, 1)
    network = CompressionNet(5, width=2, latent=20)
    noise = network.draw_noise(3)
    assert noise.shape == (3, 2, 4, 4)
    coded = network(x, noise)
    assert coded.x_hat.shape == x.shape and coded.z.shape == (3, 20, 1, 1) and coded.symbols.shape == (3, 5, 4, 4)
    assert coded.x_hat.abs().max() <= 1
    wide = 100 * torch.randn(3, 20, 1, 1)
    assert 0.9 < Generator(2, 20)[-1](wide).abs().max() <= 1


def test_bits_are_halves_and_have_the_gradient_of_the_soft_value() -> None:
    torch.manual_seed(0)
    encoder = BitEncoder(4, width=2)
    bits = encoder(torch.randn(2, 3, 64, 64))
    assert set(bits.values.unique().tolist()) == {-0.5, 0.5}
    assert torch.equal(bits.symbols, (bits.values > 0).long())
    u = torch.tensor([-1.3, -0.1, 0.2, 2.0], dtype=torch.float64).requires_grad_(True)
    values = encoder.quantizer.double()(u).values
    (gradient,) = torch.autograd.grad(values.sum(), u)
    low, high = torch.exp(-((u + 0.5) ** 2)), torch.exp(-((u - 0.5) ** 2))
    (expected,) = torch.autograd.grad(((high - low) / (high + low) / 2).sum(), u)
    assert torch.allclose(gradient, expected)
    assert values.tolist() == [-0.5, -0.5, 0.5, 0.5]


def test_a_residual_block() -> None:
    block = ResidualBlock(3).eval()
    x = torch.randn(2, 3, 4, 4)
    expected = torch.relu(x + block.layers[4](block.layers[3](torch.relu(block.layers[1](block.layers[0](x))))))
    assert torch.allclose(block(x), expected)


def test_noise_is_half_a_step_and_the_generators_decide() -> None:
    network = CompressionNet(2, width=1)
    noise = network.draw_noise(200, torch.Generator().manual_seed(3))
    assert -0.5 <= noise.min() < -0.49 and 0.49 < noise.max() < 0.5
    assert torch.equal(noise, network.draw_noise(200, torch.Generator().manual_seed(3)))
    assert not torch.equal(noise, network.draw_noise(200, torch.Generator().manual_seed(4)))
    torch.manual_seed(0)
    once = network.draw_noise(2)
    torch.manual_seed(0)
    assert torch.equal(once, network.draw_noise(2))
    z = network.generator.draw_latents(500, torch.Generator().manual_seed(0))
    assert z.shape == (500, 128, 1, 1) and abs(z.std() - 1) < 0.02 and abs(z.mean()) < 0.02


def test_without_noise_decoding_is_deterministic() -> None:
    torch.manual_seed(0)
    network = CompressionNet(2, width=2, latent=20, noise=False).eval()
    assert network.noise_channels == 0 and network.draw_noise(3).shape == (3, 0, 4, 4)
    x = torch.randn(3, 3, 64, 64)
    first = network(x, network.draw_noise(3)).x_hat
    assert torch.equal(first, network(x, network.draw_noise(3)).x_hat)


def test_decode_is_the_second_half_of_forward() -> None:
    torch.manual_seed(0)
    network = CompressionNet(2, width=2, latent=20).eval()
    x, noise = torch.randn(3, 3, 64, 64), network.draw_noise(3)
    coded = network(x, noise)
    assert torch.equal(network.decode(coded.symbols, noise), coded.x_hat)
    assert torch.allclose(network.generator(network.latents(network.encoder(x).values, noise)), coded.x_hat, atol=1e-6)
    assert not torch.equal(network.decode(coded.symbols, -noise), coded.x_hat)
    assert not torch.equal(network.decode(1 - coded.symbols, noise), coded.x_hat)


def test_initial_weights() -> None:
    torch.manual_seed(0)
    generator = Generator(16)
    assert abs(generator[3].weight.std() - 0.02) < 1e-3
    assert abs(generator[1].weight.mean() - 1) < 0.02 and 0.01 < generator[1].weight.std() < 0.03
    blocks = StochasticMap(4, 8, num_blocks=3)
    assert sum(isinstance(layer, ResidualBlock) for layer in blocks) == 3
    assert abs(blocks[1].layers[0].weight.std() - 0.02) < 1e-3
    critic = Critic(8)
    assert critic[3].weight.unique().tolist() == [1.0]


@pytest.mark.parametrize("channels", [0, 129])
def test_impossible_rates(channels: int) -> None:
    with pytest.raises(ValueError, match=r"channels must be 1 to 128"):
        CompressionNet(channels)
