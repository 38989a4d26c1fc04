"""The discretised mixture of logistics and its code length (section 3.3, eq. 7 to 10).

Letters: N batch, C channels of the coded tensor, K mixtures, h and w positions. Logarithms are natural (nats)
until ``bits_per_subpixel`` turns them into bits.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from modules.l3c.fused_likelihood import FusedNegativeLogLikelihood
from modules.l3c.nets import MIN_LOG_SCALE, MIN_PROBABILITY, Alphabet, Latent, PyramidOutput


def split_parameters(parameters: Tensor, alphabet: Alphabet, num_mixtures: int) -> tuple[Tensor, ...]:
    """Head output [N, P * C * K, h, w] as P tensors [N, C, K, h, w]: logits, means, log scales (, coefficients)."""
    n, _, h, w = parameters.shape
    return parameters.reshape(n, -1, alphabet.channels, num_mixtures, h, w).unbind(1)


def shift_means(means: Tensor, raw_coefficients: Tensor, x: Tensor) -> Tensor:
    """Means [N, 3, K, h, w] of R, G, B given the values ``x`` [N, 3, h, w] of the channels before (eq. 8).

    The coefficients are squashed by a sigmoid, as in the authors' code; out of place, so that a second call with
    the same tensors gives the same means.
    """
    a, b, c = torch.sigmoid(raw_coefficients).unbind(1)
    r, g = x[:, 0, None], x[:, 1, None]
    return torch.stack((means[:, 0], means[:, 1] + a * r, means[:, 2] + b * r + c * g), dim=1)


def mixture_log_likelihood(parameters: Tensor, x: Tensor, alphabet: Alphabet, num_mixtures: int) -> Tensor:
    """log p(x) [N, C, h, w] in nats of values ``x`` [N, C, h, w]; differentiable in both arguments.

    The first and the last symbol own the tails; a bin between them has at least 1e-12 in every mixture. With S the
    logistic function and bin edges u > l in units of the scale, a bin's mass is written as
    S(u) - S(l) = S(u) S(-l) (1 - exp(l - u)), which does not cancel in float32. Computed in float32 or wider,
    whatever autocast says.
    """
    if parameters.dtype not in (torch.float32, torch.float64):
        parameters = parameters.float()
    logits, means, log_scales, *coefficients = split_parameters(parameters, alphabet, num_mixtures)
    if alphabet.is_rgb:
        means = shift_means(means, coefficients[0], x)
    inverse_scales = torch.exp(-log_scales.clamp(min=MIN_LOG_SCALE))
    centre = (x.unsqueeze(2) - means) * inverse_scales
    half_bin = inverse_scales * (alphabet.step / 2)
    log_below_upper = -functional.softplus(-(centre + half_bin))
    log_above_lower = -functional.softplus(centre - half_bin)
    log_width = torch.log(-torch.expm1(-2 * half_bin))
    log_inner = (log_below_upper + log_above_lower + log_width).clamp(min=math.log(MIN_PROBABILITY))

    is_first = (x < alphabet.low + 0.001).unsqueeze(2)
    is_last = (x > alphabet.low + alphabet.step * (alphabet.num_symbols - 1) - 0.001).unsqueeze(2)
    log_bin = torch.where(is_first, log_below_upper, torch.where(is_last, log_above_lower, log_inner))
    return torch.logsumexp(torch.log_softmax(logits, dim=2) + log_bin, dim=2)


def uniform_bits(alphabet: Alphabet, latent: Latent) -> float:
    """Bits of the coarsest latent under its uniform prior, summed over the batch."""
    return latent.symbols.numel() * math.log2(alphabet.num_symbols)


def negative_log_likelihood(parameters: Tensor, x: Tensor, alphabet: Alphabet, num_mixtures: int) -> Tensor:
    """Sum of -log p(x) in nats: one fused pass on the CPU, tensor operations elsewhere and in float64."""
    if parameters.device.type != "cpu" or parameters.dtype == torch.float64:
        return -mixture_log_likelihood(parameters, x, alphabet, num_mixtures).sum()
    _, num_symbols, low, step, is_rgb = alphabet
    return FusedNegativeLogLikelihood.apply(parameters, x, is_rgb, low, step, num_symbols, num_mixtures)


def scale_bits(output: PyramidOutput, alphabets: list[Alphabet], num_mixtures: int) -> Tensor:
    """Bits [S] that the batch costs at scales 0..S-1 (without the uniform scale), as sums over the batch."""
    nats = [
        negative_log_likelihood(parameters, target, alphabet, num_mixtures)
        for parameters, target, alphabet in zip(output.parameters, output.targets, alphabets, strict=False)
    ]
    return torch.stack(nats) / math.log(2)


def image_bits(
    output: PyramidOutput, alphabets: list[Alphabet], num_mixtures: int, size: tuple[int, int] | torch.Size
) -> Tensor:
    """Bits [S + 1] of padded images whose true size is ``size``: pixels of the padding are not coded, latents are."""
    height, width = size
    pixels = mixture_log_likelihood(output.parameters[0], output.targets[0], alphabets[0], num_mixtures)
    coarser = PyramidOutput(output.targets[1:], output.parameters[1:], output.last)
    bits = [-pixels[..., :height, :width].sum() / math.log(2)]
    if coarser.targets:
        bits += scale_bits(coarser, alphabets[1 : len(output.targets) + 1], num_mixtures).unbind()
    bits.append(bits[0].new_tensor(uniform_bits(alphabets[len(output.targets)], output.last)))
    return torch.stack(bits)
