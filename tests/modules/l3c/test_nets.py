import pytest
import torch

from modules.l3c.nets import L3CNet, RGBNet, RGBSharedNet, halvings


def count(network) -> int:
    return sum(p.numel() for p in network.parameters())


def test_parameter_counts_of_the_paper():
    assert count(L3CNet()) == 5_008_395
    assert count(RGBNet()) == 2_729_076
    assert count(RGBSharedNet()) == 909_700


def test_mean_shift_is_frozen():
    frozen = {name for name, p in L3CNet(8, 1).named_parameters() if not p.requires_grad}
    assert frozen == {"subtract_mean.weight", "subtract_mean.bias", "rescale.weight", "rescale.bias"}


@pytest.mark.parametrize("network", [L3CNet(8, 1), RGBNet(8, 1), RGBSharedNet(8, 1).eval()])
def test_shapes_of_every_scale(network):
    x = torch.randint(0, 256, (2, 3, 32, 48), dtype=torch.uint8)
    output = network(x)
    for scale, (target, parameters) in enumerate(zip(output.targets, output.parameters, strict=True)):
        alphabet = network.alphabets[scale]
        size = (32 >> scale, 48 >> scale)
        assert target.shape == (2, alphabet.channels, *size)
        assert parameters.shape == (2, alphabet.num_parameters(network.num_mixtures), *size)
    last = len(output.targets)
    assert output.last.symbols.shape == (2, network.alphabets[last].channels, 32 >> last, 48 >> last)
    assert torch.equal(output.targets[0], x.float())


def test_shared_baseline_trains_on_one_scale_and_tests_on_four():
    network = RGBSharedNet(8, 1)
    x = torch.zeros(1, 3, 32, 32)
    assert len(network.train()(x).targets) == 1
    assert len(network.eval()(x).targets) == 4


@pytest.mark.parametrize("size", [(12, 16), (16, 4)])
def test_sizes_that_do_not_divide_are_refused(size):
    with pytest.raises(ValueError, match="multiples of 8"):
        L3CNet(8, 1)(torch.zeros(1, 3, *size))


def test_every_parameter_gets_a_gradient_and_targets_are_not_detached():
    torch.manual_seed(0)
    network = L3CNet(8, 1)
    output = network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert output.targets[1].requires_grad
    (sum(p.square().sum() for p in output.parameters) + sum(t.sum() for t in output.targets)).backward()
    for name, parameter in network.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.abs().sum() > 0), name


def test_values_of_symbols_come_from_the_quantiser_table():
    network = L3CNet(8, 1)
    with torch.no_grad():
        latent = network.encode(torch.randint(0, 256, (1, 3, 16, 16)).float())[0]
    assert torch.equal(network.values(1, latent.symbols), latent.values)


def test_halvings_match_pil():
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    ours = halvings(torch.from_numpy(pixels).permute(2, 0, 1)[None], 1)[0][0].permute(1, 2, 0).numpy()
    pil = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(ours - pil).max() <= 1


def test_a_latent_of_three_channels_is_not_taken_for_rgb():
    network = L3CNet(8, 1, latent_channels=3)
    output = network(torch.randint(0, 256, (1, 3, 16, 16)))
    assert output.parameters[1].shape[1] == 3 * 3 * network.num_mixtures


def test_mean_unit_scales_the_means_of_rgb_only():
    torch.manual_seed(0)
    network = L3CNet(8, 1)
    head, other = network.predictors[0].to_parameters, network.predictors[1].to_parameters
    feature = torch.randn(1, 24, 4, 4)
    before = head(feature), other(feature)
    head.mean_unit = 64.0
    head.unit[30:60] = 64.0
    after = head(feature), other(feature)
    assert torch.allclose(after[0][:, 30:60], 64 * before[0][:, 30:60], rtol=1e-4)
    assert torch.equal(after[0][:, :30], before[0][:, :30]) and torch.equal(after[1], before[1])


def test_fast_start_latents_fill_the_levels():
    torch.manual_seed(0)
    x = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        plain, fast = (L3CNet(16, 2, fast_start=start).encode(x)[0].values.std() for start in (False, True))
    assert plain < 0.3 < fast
