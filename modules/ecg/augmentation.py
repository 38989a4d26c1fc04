"""Zeroed bursts and random time stretching of padded batches (section 5), and a low-pass, on their device.

Letters: N batch, T samples of the padded signal [N, T], whose record i ends after ``length[i]`` samples.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from modules.components.options import at_least, within
from modules.ecg import cpu_kernels
from modules.ecg.spectrogram import SAMPLING_RATE

HIT_PROBABILITY = 0.5 * math.erfc(2 / math.sqrt(2))
"""P(N(0, 1) > 2) = 0.02275 for each sample: 6.8 hits a second at 300 Hz."""
REFERENCE_LENGTH = 18286
"""Samples that the published networks pad to; new lengths are whole numbers of this scale."""
LOWEST_CUTOFF = 50.0
"""Hz, half of the lowest sampling rate that a low-pass stands for."""
ZERO_CROSSINGS, KAISER_BETA = 10, 5.0
"""Of the low-pass: the window and half the length of the filter in ``scipy.signal.resample_poly``."""
REACH = int(ZERO_CROSSINGS * SAMPLING_RATE / 2 / LOWEST_CUTOFF)
"""Samples on each side of the longest filter."""


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


def drop_bursts(signal: Tensor, starts: Tensor, width: int) -> Tensor:
    """Zero ``width`` samples from each start on: for width 11, 22.4 % of all samples."""
    samples = signal.shape[1]
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


def stretched_scale(length: Tensor, new_lengths: Tensor, limit: int | None) -> tuple[Tensor, Tensor]:
    """Old samples between two new ones, float64 [N], and the new length of each record, int64 [N].

    REFERENCE_LENGTH samples would become ``new_lengths`` [N]. The end points of that long signal stay where they are,
    as in the authors' code, which stretches the padding too. Records that outgrow ``limit`` samples lose their end.
    """
    step = (REFERENCE_LENGTH - 1) / (new_lengths - 1).double()
    stretched = (length - 1) * (new_lengths - 1) // (REFERENCE_LENGTH - 1) + 1
    return step, stretched if limit is None else stretched.clamp(max=limit)


def widest(columns: int, stretched: Tensor, limit: int | None) -> int:
    """Columns that hold every record of a stretched batch of ``columns`` samples.

    Elsewhere than on the CPU the largest stretch there is must do, 4/3: to ask how far this batch came would make the
    host wait for the device, to spare 2 to 5 % of the columns.
    """
    if columns == limit:
        return columns
    if stretched.device.type == "cpu":
        return int(stretched.max())
    longest = (columns - 1) * (REFERENCE_LENGTH * 80 // 60 - 2) // (REFERENCE_LENGTH - 1) + 1
    return longest if limit is None else min(longest, limit)


def interpolate(signal: Tensor, last: Tensor, step: Tensor, stretched: Tensor, columns: int) -> Tensor:
    """The signal [N, T] at column * step, linearly interpolated: [N, ``columns``], zero behind the new end.

    Args:
        last: int64 [N], last sample of each record.
        step, stretched: see ``stretched_scale``.
    """
    column = torch.arange(columns, device=signal.device)
    position = torch.minimum(column * step.unsqueeze(1), last.unsqueeze(1))
    left = position.to(torch.int32)
    fraction = position.sub_(left).to(signal.dtype)
    samples = nn.functional.pad(signal, (0, 1))
    first = torch.arange(len(signal), dtype=torch.int32, device=signal.device).unsqueeze(1) * samples.shape[1]
    left = left.add_(first).flatten()
    low = samples.view(-1).index_select(0, left).view(fraction.shape)
    high = samples.view(-1)[1:].index_select(0, left).view(fraction.shape)
    return high.sub_(low).mul_(fraction).add_(low).masked_fill_(column >= stretched.unsqueeze(1), 0.0)


def stretch(
    signal: Tensor, length: Tensor, new_lengths: Tensor, limit: int | None, starts: Tensor | None = None, width: int = 0
) -> tuple[Tensor, Tensor]:
    """Signal [N, T] whose REFERENCE_LENGTH samples would become ``new_lengths`` [N], and its length [N], both new.

    Bursts of ``width`` samples are zeroed before, where ``starts`` are given.
    """
    starts = length.new_empty(len(signal), 0) if starts is None else starts
    step, stretched = stretched_scale(length, new_lengths, limit)
    columns = widest(signal.shape[1], stretched, limit)
    if cpu_kernels.can_take(signal):
        return cpu_kernels.augment(signal, starts, width, length - 1, step, stretched, columns), stretched
    signal = drop_bursts(signal, starts, width)
    return interpolate(signal, length - 1, step, stretched, columns), stretched


def draw_cutoffs(rows: int, share: float, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Frequencies [N] float64 in Hz: for a ``share`` uniform from LOWEST_CUTOFF on, for the others half the rate."""
    is_cut, uniform = torch.rand(2, rows, generator=generator, device=device, dtype=torch.float64)
    nyquist = SAMPLING_RATE / 2
    return torch.where(is_cut < share, LOWEST_CUTOFF + uniform * (nyquist - LOWEST_CUTOFF), nyquist)


def low_pass_taps(cutoff: Tensor) -> Tensor:
    """Taps [N, REACH + 1] float64 at 0, 1, ... samples of symmetric low-passes at ``cutoff`` [N] Hz.

    Resampling from a rate of 2 ``cutoff`` leaves what such a filter leaves: -6 dB there, gain 1 at 0 Hz. At half the
    rate it is the identity.
    """
    nyquist = SAMPLING_RATE / 2
    at = torch.arange(REACH + 1, device=cutoff.device, dtype=torch.float64)
    share = (cutoff / nyquist).unsqueeze(1)
    half = (ZERO_CROSSINGS / share).floor()
    kaiser = torch.special.i0(KAISER_BETA * (1 - (at / half).square()).clamp(min=0).sqrt())
    taps = torch.where(at <= half, (at * share).sinc() * kaiser, 0.0)
    taps = taps / (2 * taps.sum(1, keepdim=True) - taps[:, :1])
    return torch.where(share < 1, taps, (at == 0).double())


def low_pass(signal: Tensor, length: Tensor, cutoff: Tensor) -> Tensor:
    """Signal [N, T] without what lies above ``cutoff`` [N] Hz; zero behind each record's ``length`` [N] as before."""
    taps = low_pass_taps(cutoff)
    if cpu_kernels.can_take(signal):
        return cpu_kernels.low_pass(signal, length, taps)
    weights = torch.cat([taps[:, 1:].flip(1), taps], 1).to(signal.dtype).unsqueeze(1)
    with torch.autocast(signal.device.type, enabled=False):
        filtered = nn.functional.conv1d(signal.unsqueeze(0), weights, padding=REACH, groups=len(signal))[0]
    column = torch.arange(signal.shape[1], device=signal.device)
    return filtered.masked_fill_(column >= length.unsqueeze(1), 0.0)


class Augmentation(nn.Module):
    """Bursts, then stretching, then a low-pass; each can be switched off.

    Args:
        bursts: ``code`` zeroes 11 samples (36.7 ms) after each hit, ``paper`` 15 samples (50 ms); the paper gives no
            rate, so it is the code's. ``none`` zeroes nothing.
        resample: what is uniform when a stretch is drawn: the new ``length`` (code) or the ``heart_rate`` (paper).
        limit: records end after so many samples; None keeps them whole.
        low_pass: share of the records that are cut off at a frequency uniform in 50 to 150 Hz, as a recording of 100
            to 300 Hz would be; not in the paper.
    """

    def __init__(
        self,
        bursts: Literal["code", "paper", "none"] = "code",
        resample: Literal["length", "heart_rate", "none"] = "length",
        limit: int | None = REFERENCE_LENGTH,
        low_pass: float = 0.0,
    ) -> None:
        super().__init__()
        if bursts not in ("code", "paper", "none"):
            raise ValueError(f"bursts must be code, paper or none, got {bursts!r}")
        if resample not in ("length", "heart_rate", "none"):
            raise ValueError(f"resample must be length, heart_rate or none, got {resample!r}")
        at_least(1, limit=limit)
        within(0, 1, low_pass=low_pass)
        self.width = {"code": 11, "paper": 15, "none": 0}[bursts]
        self.resample, self.limit, self.low_pass = resample, limit, low_pass

    @torch.no_grad()
    def forward(
        self, signal: Tensor, length: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Signal [N, T] and length [N] -> the same, new; random by ``generator``, which lives on their device."""
        rows, columns = signal.shape
        starts = length.new_empty(rows, 0)
        if self.width:
            starts = burst_starts(rows, columns, self.width, generator, signal.device)
        if self.resample == "none":
            signal = drop_bursts(signal, starts, self.width)
        else:
            new_lengths = draw_lengths(rows, self.resample, generator, signal.device)
            signal, length = stretch(signal, length, new_lengths, self.limit, starts, self.width)
        if self.low_pass:
            signal = low_pass(signal, length, draw_cutoffs(rows, self.low_pass, generator, signal.device))
        return signal, length
