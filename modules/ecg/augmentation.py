"""Zeroed bursts and random time stretching of padded batches (section 5), on the device that holds them.

Letters: N batch, T samples of the padded signal [N, T], whose record i ends after ``length[i]`` samples.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

HIT_PROBABILITY = 0.5 * math.erfc(2 / math.sqrt(2))
"""P(N(0, 1) > 2) = 0.02275 for each sample: 6.8 hits a second at 300 Hz."""
REFERENCE_LENGTH = 18286
"""Samples that the published networks pad to; new lengths are whole numbers of this scale."""


def burst_starts(
    rows: int, samples: int, width: int, generator: torch.Generator | None, device: torch.device
) -> Tensor:
    """First samples [N, K] int64 of the bursts in a signal of ``samples`` samples; may lie outside [0, samples).

    Every sample from ``1 - width`` on is hit independently with HIT_PROBABILITY. Instead of one random number a
    sample, the gaps between hits are drawn, which are geometric; K leaves room for eight standard deviations.
    """
    expected = (samples + width) * HIT_PROBABILITY
    count = int(expected + 8 * math.sqrt(expected) + 8)
    gaps = torch.rand(rows, count, generator=generator, device=device)
    gaps = torch.log1p(-gaps).div_(math.log1p(-HIT_PROBABILITY)).long().add_(1)
    return gaps.cumsum(1) - width


def drop_bursts(signal: Tensor, width: int, generator: torch.Generator | None = None) -> Tensor:
    """Zero ``width`` samples after each hit: for width 11, 22.4 % of all samples."""
    rows, samples = signal.shape
    starts = burst_starts(rows, samples, width, generator, signal.device)
    zeroed = (starts.unsqueeze(2) + torch.arange(width, device=signal.device)).flatten(1)
    padded = nn.functional.pad(signal, (1, 1))  # a place for the hits before the first and behind the last sample
    return padded.scatter_(1, zeroed.add_(1).clamp_(0, samples + 1), 0.0)[:, 1:-1]


def draw_lengths(rows: int, draw: str, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """New lengths [N] int64 of a signal of REFERENCE_LENGTH samples.

    An assumed heart rate of 80 per minute becomes 60 to 120, that is a factor between 2/3 and 4/3; ``draw`` says what
    of it is uniform.
    """
    low, high = REFERENCE_LENGTH * 80 // 120, REFERENCE_LENGTH * 80 // 60
    uniform = torch.rand(rows, generator=generator, device=device, dtype=torch.float64)
    if draw == "length":
        return (low + uniform * (high - low)).long()
    return (REFERENCE_LENGTH * 80 / (60 + 60 * uniform)).long().clamp(low, high - 1)


def stretch(signal: Tensor, length: Tensor, new_lengths: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
    """Resample by linear interpolation so that REFERENCE_LENGTH samples would become ``new_lengths`` [N].

    The end points of that long signal stay where they are, as in the authors' code, which stretches the padding too;
    only samples of the record are made here. Records that outgrow ``limit`` samples lose their end.

    Returns:
        Signal [N, T'] and length [N]; T' is T if limit is T, else the longest new record.
    """
    step = (REFERENCE_LENGTH - 1) / (new_lengths - 1)
    stretched = (length - 1) * (new_lengths - 1) // (REFERENCE_LENGTH - 1) + 1
    if limit is not None:
        stretched = stretched.clamp(max=limit)
    width = signal.shape[1] if limit == signal.shape[1] else int(stretched.max())
    column = torch.arange(width, device=signal.device)
    position = torch.minimum(column * step.float().unsqueeze(1), (length - 1).unsqueeze(1))
    left = position.to(torch.int32)
    fraction = position.frac_()
    samples = nn.functional.pad(signal, (0, 1))
    first = torch.arange(len(signal), dtype=torch.int32, device=signal.device).unsqueeze(1) * samples.shape[1]
    left = left.add_(first).flatten()
    low = samples.view(-1).index_select(0, left).view(position.shape)
    high = samples.view(-1)[1:].index_select(0, left).view(position.shape)
    resampled = low.lerp_(high, fraction)
    return resampled.masked_fill_(column >= stretched.unsqueeze(1), 0.0), stretched


class Augmentation(nn.Module):
    """Bursts, then stretching; either can be switched off.

    Args:
        bursts: ``code`` zeroes 11 samples (36.7 ms) after each hit, ``paper`` 15 samples (50 ms); the paper gives no
            rate, so it is the code's. ``none`` zeroes nothing.
        resample: what is uniform when a stretch is drawn: the new ``length`` (code) or the ``heart_rate`` (paper).
        limit: records end after so many samples; None keeps them whole.
    """

    def __init__(
        self,
        bursts: Literal["code", "paper", "none"] = "code",
        resample: Literal["length", "heart_rate", "none"] = "length",
        limit: int | None = REFERENCE_LENGTH,
    ) -> None:
        super().__init__()
        if bursts not in ("code", "paper", "none"):
            raise ValueError(f"bursts must be code, paper or none, got {bursts!r}")
        if resample not in ("length", "heart_rate", "none"):
            raise ValueError(f"resample must be length, heart_rate or none, got {resample!r}")
        self.width = {"code": 11, "paper": 15, "none": 0}[bursts]
        self.resample, self.limit = resample, limit

    @torch.no_grad()
    def forward(
        self, signal: Tensor, length: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Signal [N, T] and length [N] -> the same, new; random by ``generator``, which lives on their device."""
        if self.width:
            signal = drop_bursts(signal, self.width, generator)
        if self.resample != "none":
            lengths = draw_lengths(len(signal), self.resample, generator, signal.device)
            signal, length = stretch(signal, length, lengths, self.limit)
        return signal, length
