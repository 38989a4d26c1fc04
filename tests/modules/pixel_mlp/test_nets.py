"""The exact arithmetic in float32, float64 and int64; its bounds; sizes; code lengths against scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import logistic

from modules.components.exact import InexactWeightsError
from modules.pixel_mlp.context import COMPRESSED, LIMIT, LOG_ACTIVITY, contexts, pad
from modules.pixel_mlp.losses import mixture_bits
from modules.pixel_mlp.nets import Mixture, PixelMLP


def network(seed: int = 0, hidden: int = 24, layers: int = 2) -> PixelMLP:
    """With weights that reach every part of the clipped ReLUs."""
    torch.manual_seed(seed)
    net = PixelMLP(hidden, layers, 3)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def photo(seed: int, height: int = 12, width: int = 17) -> torch.Tensor:
    random = np.random.default_rng(seed)
    smooth = random.normal(0, 6, (3, height, width)).cumsum(1).cumsum(2) / 4 + 128
    return torch.from_numpy(np.clip(smooth, 0, 255).astype(np.uint8))[None]


def test_number_of_parameters():
    assert sum(p.numel() for p in PixelMLP(128, 2, 4).parameters()) == 79_716
    assert sum(p.numel() for p in PixelMLP(96, 2, 4).parameters()) == 50_628


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_exact_arithmetic_equals_int64(layers):
    net = network(layers, layers=layers)
    for predictor in net.channels:
        predictor.layers[0].bias.data[:4] = 20  # beyond the clip of the ReLU
        predictor.layers[-1].bias.data[-2:] = torch.tensor([9.0, -9.0])  # and of the scales
    found = contexts(pad(photo(0)))
    with torch.no_grad():
        mixtures = net(found)
        wide = net.double()([c._replace(inputs=c.inputs.double(), differences=c.differences.double()) for c in found])
    for predictor, context, mixture, double in zip(net.float().channels, found, mixtures, wide, strict=True):
        d, activity = context.differences.long().numpy(), context.activity.long().numpy()
        log_activity = LOG_ACTIVITY.astype(np.int64)[activity]
        x = np.concatenate((COMPRESSED.astype(np.int64)[d + LIMIT], (log_activity >> 1)[:, None]), axis=1)
        layer_list = [
            (w.detach().numpy().astype(np.int64), b.detach().numpy().astype(np.int64))
            for w, b in predictor.integer_layers()
        ]
        for number, (w, b) in enumerate(layer_list[:-1]):
            shift = 9 if number == 0 else 8
            x = np.clip((x @ w.T + b + (1 << (shift - 1))) >> shift, 0, 511)
        raw = x @ layer_list[-1][0].T + layer_list[-1][1]
        logits, offsets, scales = np.split(raw, 3, axis=1)
        skip = d @ np.floor(predictor.skip.detach().numpy() * 4096 + 0.5).astype(np.int64)
        offset = (offsets + 128) >> 8
        mean = context.base.long().numpy()[:, None] * 256 + ((skip + 8) >> 4)[:, None]
        mean = mean + (((activity + 4)[:, None] * offset) >> 1)
        log_scale = np.clip(log_activity[:, None] + ((scales + 256) >> 9), -112, 192)
        for found_here in (mixture, double):
            assert np.array_equal(found_here.logits.double().numpy() * 32, ((logits + 256) >> 9).T)
            assert np.array_equal(found_here.means.double().numpy() * 256, mean.T)
            assert np.array_equal(found_here.log_scales.double().numpy() * 32, log_scale.T)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_computes_the_numbers_of_the_cpu():
    net, padded = network(), pad(photo(3, 64, 64))
    with torch.no_grad():
        mixtures = net(contexts(padded))
        on_gpu = net.cuda()(contexts(padded.cuda()))
    for one, other in zip(mixtures, on_gpu, strict=True):
        assert all(torch.equal(a, b.cpu()) for a, b in zip(one, other, strict=True))


def test_exact_arithmetic_is_close_to_the_real_one():
    net, found = network(), contexts(pad(photo(1)))
    with torch.no_grad():
        bits = [
            sum(mixture_bits(m, c.target).mean() for m, c in zip(net(found, exact), found, strict=True))
            for exact in (True, False)
        ]
    assert bits[0] == pytest.approx(float(bits[1]), rel=5e-3) and bits[0] != bits[1]


def test_weights_out_of_bounds_are_refused_by_name():
    for layer, name in ((0, "layer 1"), (1, "layer 2"), (2, "layer 3")):
        net = network()
        net.check_bounds()
        net.channels[1].layers[layer].weight.data[3] *= 1000
        with pytest.raises(InexactWeightsError, match=name):
            net.check_bounds()
    for weight in (0.26, -0.26):
        net = network()
        net.channels[2].skip.data[:] = weight
        with pytest.raises(InexactWeightsError, match="skip"):
            net.check_bounds()
    net = network()
    net.channels[0].layers[0].bias.data[0] = float("nan")
    with pytest.raises(InexactWeightsError):
        net.check_bounds()


def test_bound_is_that_of_the_worst_pixel():
    net = PixelMLP(2, 1, 1)
    first = net.channels[0].layers[0]
    first.weight.data.zero_()
    first.bias.data.zero_()
    first.weight.data[0, 0] = (2**24 - 1) // 102 / 1024
    net.check_bounds()
    first.weight.data[0, 0] += 1 / 1024
    with pytest.raises(InexactWeightsError, match="layer 1"):
        net.check_bounds()
    first.weight.data[0, 0] -= 1 / 1024
    first.bias.data[0] = -((2**24 - 1) % 102 + 1) / 2**15
    with pytest.raises(InexactWeightsError, match="layer 1 can sum up to 16777216"):
        net.check_bounds()
    first.bias.data[0] += 1 / 2**15
    net.check_bounds()


def test_bits_equal_scipy():
    random = np.random.default_rng(4)
    logits, means = random.normal(0, 1, (300, 3)), random.uniform(-20, 280, (300, 3))
    log_scales = random.uniform(-2, 4, (300, 3))
    target = random.integers(0, 256, 300)
    target[:20], target[20:40] = 0, 255
    mixture = Mixture(*(torch.from_numpy(a.T).float() for a in (logits, means, log_scales)))
    bits = mixture_bits(mixture, torch.from_numpy(target).float())
    upper = np.where(target == 255, np.inf, target + 0.5)[:, None]
    lower = np.where(target == 0, -np.inf, target - 0.5)[:, None]
    scale = np.exp(log_scales)
    mass = logistic.cdf(upper, means, scale) - logistic.cdf(lower, means, scale)
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = -np.log2((weights * mass).sum(1) * 65280 / 65536 + 1 / 65536)
    np.testing.assert_allclose(bits.numpy(), expected, rtol=2e-4, atol=2e-4)


def test_every_parameter_gets_a_finite_gradient_also_at_the_ends():
    image = photo(5)
    image[..., :4], image[..., -4:] = 0, 255
    net, found = network(), contexts(pad(image))
    sum(mixture_bits(m, c.target).mean() for m, c in zip(net(found, exact=False), found, strict=True)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all() and parameter.grad.any(), name


def test_sizes_out_of_range_are_refused():
    for name, size in (("hidden", 0), ("num_layers", 0), ("num_mixtures", 0), ("num_mixtures", 33)):
        with pytest.raises(ValueError, match=f"{name} must be .*, got {size}"):
            PixelMLP(**{name: size})
