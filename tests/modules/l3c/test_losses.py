"""The likelihood against the authors' formula in float64, written out element by element."""

import math

import numpy as np
import pytest
import torch

from modules.l3c.losses import (
    image_bits,
    mixture_log_likelihood,
    negative_log_likelihood,
    scale_bits,
    shift_means,
    uniform_bits,
)
from modules.l3c.nets import RGB, Alphabet, L3CNet

Z = Alphabet(5, 25, -1.0, 1 / 12, is_rgb=False)
K = 4


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def reference(p: np.ndarray, x: np.ndarray, alphabet: Alphabet) -> float:
    """log p of the sub-pixels x [C] of one position with parameters p [P, C, K] (sheet of the paper, section 3.2)."""
    total = 0.0
    high = alphabet.low + alphabet.step * (alphabet.num_symbols - 1)
    for c, v in enumerate(x):
        terms = []
        log_norm = math.log(sum(math.exp(logit) for logit in p[0, c]))
        for k in range(p.shape[2]):
            mean = p[1, c, k]
            if alphabet.is_rgb and c == 1:
                mean += sigmoid(p[3, 0, k]) * x[0]
            if alphabet.is_rgb and c == 2:
                mean += sigmoid(p[3, 1, k]) * x[0] + sigmoid(p[3, 2, k]) * x[1]
            scale = math.exp(max(p[2, c, k], -7.0))
            upper, lower = (v - mean + alphabet.step / 2) / scale, (v - mean - alphabet.step / 2) / scale
            if v < alphabet.low + 0.001:
                log_bin = upper - softplus(upper)
            elif v > high - 0.001:
                log_bin = -softplus(lower)
            else:
                log_bin = math.log(max(sigmoid(upper) - sigmoid(lower), 1e-12))
            terms.append(p[0, c, k] - log_norm + log_bin)
        top = max(terms)
        total += top + math.log(sum(math.exp(t - top) for t in terms))
    return total


def example(alphabet: Alphabet, seed: int = 0, size: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters of all sizes (far means, scales below the clamp) and values that include both ends."""
    generator = torch.Generator().manual_seed(seed)
    types = 4 if alphabet.is_rgb else 3
    span = alphabet.step * alphabet.num_symbols
    p = torch.randn(2, types, alphabet.channels, K, size, size, generator=generator, dtype=torch.float64) * 1.5
    p[:, 1] = alphabet.low + span * (0.5 + 0.5 * p[:, 1]) * (0.4 if alphabet.is_rgb else 1)
    p[:, 2] = p[:, 2] * 2 + math.log(span / 30)
    p[0, 2, 0, 0, 0] = -9.0
    symbols = torch.randint(0, alphabet.num_symbols, (2, alphabet.channels, size, size), generator=generator)
    symbols[:, :, 0] = 0
    symbols[:, :, 1] = alphabet.num_symbols - 1
    return p.flatten(1, 3), symbols.double() * alphabet.step + alphabet.low


@pytest.mark.parametrize("alphabet", [RGB, Z])
def test_equals_the_authors_formula(alphabet):
    parameters, x = example(alphabet)
    ours = mixture_log_likelihood(parameters, x, alphabet, K).sum(1)
    types = parameters.shape[1] // (alphabet.channels * K)
    for n in range(2):
        for y in range(6):
            for i in range(6):
                p = parameters[n, :, y, i].reshape(types, alphabet.channels, K).numpy()
                assert ours[n, y, i].item() == pytest.approx(reference(p, x[n, :, y, i].numpy(), alphabet), abs=1e-4)


@pytest.mark.parametrize("alphabet", [RGB, Z])
def test_probabilities_of_all_symbols_sum_to_one(alphabet):
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(1, alphabet.num_parameters(K), 1, 1, generator=generator, dtype=torch.float64)
    values = torch.arange(alphabet.num_symbols).double() * alphabet.step + alphabet.low
    total = torch.zeros(alphabet.channels, dtype=torch.float64)
    for value in values:
        x = torch.full((1, alphabet.channels, 1, 1), alphabet.low, dtype=torch.float64)
        for c in range(alphabet.channels):
            here = x.clone()
            here[:, c] = value
            total[c] += mixture_log_likelihood(parameters, here, alphabet, K)[0, c, 0, 0].exp()
    assert torch.allclose(total, torch.ones_like(total), atol=1e-8)


@pytest.mark.parametrize("alphabet", [RGB, Z])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_fused_sum_and_gradients_equal_float64(alphabet, dtype, memory_format):
    parameters, x = example(alphabet, seed=1)
    parameters = parameters.to(dtype).double()  # what the fused pass will see
    exact_p, exact_x = parameters.clone().requires_grad_(), x.clone().requires_grad_(not alphabet.is_rgb)
    exact = -mixture_log_likelihood(exact_p, exact_x, alphabet, K).sum()
    exact.backward()

    p = parameters.to(dtype).to(memory_format=memory_format).requires_grad_()
    v = x.float().requires_grad_(not alphabet.is_rgb)
    fused = negative_log_likelihood(p, v, alphabet, K)
    fused.backward()
    assert fused.item() == pytest.approx(exact.item(), rel=1e-5)
    tolerance = 1e-3 if dtype == torch.float32 else 1e-2
    assert (p.grad.double() - exact_p.grad).norm() < tolerance * exact_p.grad.norm()
    if not alphabet.is_rgb:
        assert (v.grad.double() - exact_x.grad).norm() < 1e-3 * exact_x.grad.norm()


def test_fused_pass_gives_no_gradient_below_the_scale_clamp_and_the_floor():
    p = torch.zeros(1, 12, 1, 1)
    p[:, 3:6] = 100.0  # means far from the value 0.5..: every bin is at its floor
    p[:, 6:9] = -8.0
    p.requires_grad_()
    alphabet = Alphabet(1, 256, 0.0, 1.0, is_rgb=False)
    loss = negative_log_likelihood(p[:, :9], torch.full((1, 1, 1, 1), 5.0), alphabet, 3)
    assert loss.item() == pytest.approx(-math.log(1e-12), rel=1e-5)
    loss.backward()
    assert p.grad[:, 3:].abs().max() == 0


def test_means_shift_the_same_twice():
    means, raw = torch.randn(1, 3, K, 2, 2), torch.randn(1, 3, K, 2, 2)
    x = torch.randint(0, 256, (1, 3, 2, 2)).float()
    before = means.clone()
    assert torch.equal(shift_means(means, raw, x), shift_means(means, raw, x))
    assert torch.equal(means, before)


def test_likelihood_stays_float32_under_autocast():
    parameters, x = example(RGB)
    exact = mixture_log_likelihood(parameters, x, RGB, K).sum().item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = mixture_log_likelihood(parameters.float(), x.float(), RGB, K)
    assert ours.dtype == torch.float32
    assert ours.sum().item() == pytest.approx(exact, rel=1e-4)


def test_every_parameter_learns_from_the_code_length_and_encoders_from_their_own():
    torch.manual_seed(0)
    network = L3CNet(8, 1)
    output = network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    scale_bits(output, network.alphabets, network.num_mixtures)[2].backward()
    assert network.encoders[1].to_latent.weight.grad.abs().sum() > 0  # z_2 is the target of scale 2, not detached
    network.zero_grad()
    output = network(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    scale_bits(output, network.alphabets, network.num_mixtures).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters() if p.requires_grad)


def test_bits_of_padding_are_not_counted_in_pixels():
    network = L3CNet(8, 1).eval()
    x = torch.randint(0, 256, (1, 3, 16, 24), dtype=torch.uint8)
    output = network(x)
    whole = image_bits(output, network.alphabets, 10, (16, 24))
    part = image_bits(output, network.alphabets, 10, (9, 17))
    assert torch.allclose(whole[:-1], scale_bits(output, network.alphabets, 10), rtol=1e-4)
    assert part[0] < whole[0] and torch.equal(part[1:], whole[1:])
    assert whole[-1].item() == pytest.approx(2 * 3 * 5 * math.log2(25))
    assert uniform_bits(network.alphabets[-1], output.last) == pytest.approx(2 * 3 * 5 * math.log2(25))
