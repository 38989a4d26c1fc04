"""Sampling from the pyramid: what the model believes where nothing is coded (section 5.4, figure 4)."""

import torch
from torch import Tensor
from torch.nn import functional

from modules.l3c.losses import shift_means, split_parameters
from modules.l3c.nets import MIN_LOG_SCALE, Alphabet, Pyramid


def sample_mixture(
    parameters: Tensor, alphabet: Alphabet, num_mixtures: int, generator: torch.Generator | None = None
) -> Tensor:
    """Symbols [N, C, h, w] int64 drawn from the mixture with parameters [N, P*C*K, h, w].

    R, G, B are drawn in turn, each from means shifted by the channels before.
    """
    logits, means, log_scales, *coefficients = split_parameters(parameters.float(), alphabet, num_mixtures)
    n, c, _, h, w = logits.shape
    uniform = torch.rand(2, n, c, 1, h, w, generator=generator, device=generator.device if generator else None)
    uniform = uniform.to(parameters.device).clamp(1e-6, 1 - 1e-6)
    chosen = (logits.softmax(2).cumsum(2) < uniform[0]).sum(2, keepdim=True).clamp(max=num_mixtures - 1)
    spread = torch.exp(log_scales.gather(2, chosen).clamp(min=MIN_LOG_SCALE)) * torch.logit(uniform[1])

    def nearest(values: Tensor) -> Tensor:
        return ((values - alphabet.low) / alphabet.step).round().clamp(0, alphabet.num_symbols - 1)

    if not alphabet.is_rgb:
        return nearest(means.gather(2, chosen) + spread).squeeze(2).long()
    x = torch.zeros(n, c, h, w, device=parameters.device)
    for channel in range(c):
        shifted = shift_means(means, coefficients[0], x).gather(2, chosen) + spread
        x[:, channel] = nearest(shifted[:, channel, 0])
    return x.long()


@torch.no_grad()
def sample_images(network: Pyramid, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Images [S, N, 3, H, W] uint8: the i-th has scales 0..i sampled and the coarser ones taken from ``x``.

    So the first keeps z_1, ..., z_S of the image and the last only z_S. H and W are multiples of 2^S.
    """
    latents = network.encode(x.float())
    images = []
    for sampled_from in range(len(latents)):
        feature, symbols = None, latents[-1].symbols
        for scale in range(len(latents), 0, -1):
            prediction = network.predict(scale, network.values(scale, symbols), feature)
            feature = prediction.feature
            if scale - 1 <= sampled_from:
                alphabet = network.alphabets[scale - 1]
                symbols = sample_mixture(prediction.parameters, alphabet, network.num_mixtures, generator)
            else:
                symbols = latents[scale - 2].symbols
        images.append(symbols.to(torch.uint8))
    return torch.stack(images)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Images [N, C, H, W] with edges replicated right and below until H and W are multiples."""
    height, width = x.shape[-2:]
    return functional.pad(x.float(), (0, -width % multiple, 0, -height % multiple), mode="replicate").to(x.dtype)
