"""Sizes as published, shapes, the quantiser's levels, frozen normalisation, what SC's decoder sees."""

import pytest
import torch
from torch.nn import functional

from modules.components.quantizers import SoftHardQuantizer
from modules.extreme_gan.contexts import contexts, symbol_frequencies
from modules.extreme_gan.nets import (
    FreezableInstanceNorm,
    GCNet,
    Generator,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    SCNet,
    instance_norm,
)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_published_sizes() -> None:
    with torch.device("meta"):
        gc, sc, patch = GCNet(8), SCNet(8), PatchDiscriminator(3, 64)
    assert count(gc.encoder) == pytest.approx(5.6e6, rel=0.01)
    assert count(gc.generator) == pytest.approx(154.9e6, rel=0.01)
    assert (count(gc.encoder), count(gc.generator)) == (5_587_808, 154_904_283)
    # Generator and encoders by the layer strings: kernel^2 * in * out + out.
    c = lambda k, i, o: k * k * i * o + o  # noqa: E731
    downs = [c(3, 60 << i, 120 << i) for i in range(4)]
    assert count(sc.encoder) == c(7, 3, 60) + sum(downs[:3]) + c(3, 480, 8)
    assert count(sc.code_features) == c(3, 8, 480) + downs[3]
    assert count(sc.label_encoder) == c(7, 35, 60) + sum(downs)
    assert count(sc.generator) == count(gc.generator) + 9 * 960 * (1920 - 8)
    assert count(patch) == c(4, 3, 64) + c(4, 64, 128) + c(4, 128, 256) + c(4, 256, 512) + c(4, 512, 1)


def test_shapes_of_code_and_image() -> None:
    x = torch.rand(2, 3, 32, 64) * 2 - 1
    for network, stride in ((GCNet(3, 4, 1), 16), (SCNet(3, 5, 4, 1), 8)):
        labels = torch.rand(2, 6, 32, 64)
        image, symbols = network(x, None, labels if network.num_labels else None)
        assert image.shape == x.shape and image.abs().max() <= 1
        assert symbols.shape == (2, 3, 32 // stride, 64 // stride) and symbols.dtype == torch.int64
        with pytest.raises(ValueError, match="multiples of 16"):
            network.encode(x[..., :24])
        with pytest.raises(ValueError, match="multiples of 16"):
            network.encode(x[..., :24, :])


def test_layers_follow_the_strings() -> None:
    generator = Generator(3, 4, 2)
    x = torch.randn(2, 3, 3, 4)

    def norm(t: torch.Tensor) -> torch.Tensor:
        mean, var = t.mean((2, 3), keepdim=True), t.var((2, 3), keepdim=True, unbiased=False)
        return (t - mean) / (var + 1e-5).sqrt()

    def reflect(t: torch.Tensor, layer: torch.nn.Conv2d, pad: int) -> torch.Tensor:
        return functional.conv2d(functional.pad(t, [pad] * 4, mode="reflect"), layer.weight, layer.bias)

    layers = list(generator)
    y = norm(reflect(x, layers[0], 1)).relu()
    for block in layers[3:5]:
        inner = norm(reflect(y, block.layers[0], 1)).relu()
        y = y + norm(reflect(inner, block.layers[3], 1))
    for i in range(5, 17, 3):
        y = functional.conv_transpose2d(y, layers[i].weight, layers[i].bias, 2, 1, 1)
        y = norm(y).relu()
    expected = reflect(y, layers[17], 3).tanh()
    assert torch.allclose(generator(x), expected, atol=1e-5)
    assert len(layers) == 19


def test_one_image_and_several_are_normalised_alike() -> None:
    x = torch.randn(3, 4, 5, 6)
    assert torch.allclose(instance_norm(x), torch.cat([instance_norm(part) for part in x.split(1)]), atol=1e-6)


def test_the_quantiser_reaches_all_five_levels_and_nothing_before_it_cuts_them_off() -> None:
    torch.manual_seed(0)
    network = GCNet(4, 8, 1)
    values, symbols = network.encode(torch.rand(1, 3, 128, 128) * 2 - 1)
    assert values.min() < 0 < values.max()
    with torch.no_grad():
        network.encoder[-1].weight *= 4
    values, symbols = network.encode(torch.rand(1, 3, 128, 128) * 2 - 1)
    assert symbols.unique().tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(values.detach(), (symbols - 2).float())
    values.square().sum().backward()
    assert network.encoder[0].weight.grad.abs().sum() > 0


def test_sigma_and_fixed_centres() -> None:
    network = GCNet(1, 4, 1, sigma=0.5)
    assert (
        isinstance(network.quantizer, SoftHardQuantizer)
        and network.quantizer.sigma == 0.5
        and GCNet(1, 4, 1).quantizer.sigma == 1.0
    )
    assert network.quantizer.levels.tolist() == [-2, -1, 0, 1, 2]
    assert not any("levels" in name for name in network.state_dict())


def test_the_decoder_sees_nothing_of_what_is_not_kept() -> None:
    torch.manual_seed(0)
    network = SCNet(2, 3, 4, 1).eval()
    with torch.no_grad():
        network.encoder[-1].weight *= 20
    x, labels = torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 4, 32, 32)
    keep = torch.zeros(1, 1, 4, 4)
    keep[..., 1:3, 2] = 1
    image, symbols = network(x, keep, labels)
    kept = keep.bool().expand_as(symbols)
    assert (symbols[~kept] == 2).all() and (symbols[kept] != 2).any()
    values = network.encode(x).values * keep
    assert torch.equal(image, network.decode(values, labels))
    assert not torch.equal(image, network(x, None, labels).image)
    assert not torch.equal(image, network(x, keep, labels.flip(1)).image)


def test_noise_is_an_input_that_changes_the_image() -> None:
    for network in (GCNet(2, 4, 1, noise_channels=3), SCNet(2, 3, 4, 1, noise_channels=3)):
        first = network.noise(2, 32, 48, seed=5)
        assert first.shape == (2, 3, 2, 3)
        assert torch.equal(first, torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(5)))
        x, labels = torch.rand(2, 3, 32, 48), torch.rand(2, 4, 32, 48)
        assert not torch.equal(network(x, None, labels, first).image, network(x, None, labels, -first).image)
    assert GCNet(2, 4, 1).noise(1, 32, 32, 0) is None
    for bad in ({"code_channels": 0}, {"noise_channels": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least"):
            GCNet(**({"width": 4} | bad))


def test_frozen_normalisation_uses_the_averages_and_survives_a_checkpoint() -> None:
    torch.manual_seed(0)
    norm = FreezableInstanceNorm(3)
    batches = [torch.randn(1, 3, 8, 8) * 3 + 2 for _ in range(600)]
    for x in batches:
        norm(x)
    assert torch.allclose(norm.running_mean, torch.full((3,), 2.0), atol=0.2)
    assert torch.allclose(norm.running_var, torch.full((3,), 9.0), atol=0.9)
    norm.eval()
    before = norm.running_mean.clone()
    assert torch.allclose(norm(batches[0]), instance_norm(batches[0])) and torch.equal(before, norm.running_mean)
    norm.frozen = True
    centred = batches[0] - norm.running_mean.view(1, 3, 1, 1)
    expected = centred / (norm.running_var.view(1, 3, 1, 1) + 1e-5).sqrt()
    assert torch.allclose(norm.train()(batches[0]), expected, atol=1e-5) and torch.equal(before, norm.running_mean)

    network = GCNet(2, 4, 1)
    network.freeze_norm()
    copy = GCNet(2, 4, 1)
    copy.load_state_dict(network.state_dict())
    norms = [m for m in copy.modules() if isinstance(m, FreezableInstanceNorm)]
    assert len(norms) == 1 + 2 + 4 and all(m.frozen for m in norms)
    copy.load_state_dict(GCNet(2, 4, 1).state_dict())
    assert not any(m.frozen for m in norms)


def test_discriminator_shapes_scales_and_labels() -> None:
    torch.manual_seed(0)
    discriminator = MultiscaleDiscriminator(num_labels=4, num_scales=3, width=4)
    x, labels = torch.rand(2, 3, 64, 64), torch.rand(2, 5, 64, 64)
    judgements = discriminator(x, labels)
    assert [j.scores.shape[-1] for j in judgements] == [11, 7, 5]
    assert [tuple(f.shape[1:]) for f in judgements[0].features] == [(4, 33, 33), (8, 17, 17), (16, 9, 9), (32, 10, 10)]
    half = functional.avg_pool2d(torch.cat([x, labels], 1), 3, 2, 1, count_include_pad=False)
    assert torch.equal(discriminator.scales[1](half).scores, judgements[1].scores)
    first = functional.leaky_relu(discriminator.scales[0].layers[0][0](torch.cat([x, labels], 1)), 0.2)
    assert torch.equal(judgements[0].features[0], first)
    assert not torch.equal(discriminator(x, labels.flip(1))[0].scores, judgements[0].scores)
    with pytest.raises(ValueError, match="num_scales must be at least 1"):
        MultiscaleDiscriminator(num_scales=0)
    with pytest.raises(AssertionError):
        discriminator(x)


def test_initial_weights_are_those_of_pix2pixhd() -> None:
    torch.manual_seed(0)
    for network in (GCNet(2, 16, 1), SCNet(2, 4, 16, 1), MultiscaleDiscriminator(0, 1, 16)):
        for module in network.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)) and module.weight.numel() > 2000:
                assert module.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_contexts_and_frequencies_by_brute_force() -> None:
    rng = torch.Generator().manual_seed(0)
    symbols = torch.randint(0, 5, (2, 3, 4, 5), generator=rng)
    keep = torch.randint(0, 2, (2, 1, 4, 5), generator=rng).float()
    for mask in (None, keep):
        kept = torch.ones_like(keep) if mask is None else mask
        expected = torch.zeros(3, 36, 5)
        for n in range(2):
            for c in range(3):
                for i in range(4):
                    for j in range(5):
                        left = symbols[n, c, i, j - 1] if j and kept[n, 0, i, j - 1] else 5
                        above = symbols[n, c, i - 1, j] if i and kept[n, 0, i - 1, j] else 5
                        assert contexts(symbols, mask)[n, c, i, j] == 6 * left + above
                        expected[c, 6 * int(left) + int(above), symbols[n, c, i, j]] += float(kept[n, 0, i, j])
        assert torch.allclose(symbol_frequencies(symbols, mask), expected / kept.sum())
    assert symbol_frequencies(symbols, torch.zeros_like(keep)).sum() == 0
    network = GCNet(3, 4, 1)
    network.update_prior(symbols)
    network.update_prior(symbols)
    assert torch.allclose(network.prior, symbol_frequencies(symbols) * (1 - 0.99**2))
