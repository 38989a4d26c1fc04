"""The log-spectrogram that the networks see (section 3), computed for a padded batch on its device.

Letters: N batch, T samples, L frames, F = 33 frequency bins.
"""

from functools import cache

import torch
from torch import Tensor, nn

from modules.ecg import cpu_kernels

SAMPLING_RATE = 300.0
"""Hz, of everything the networks see."""
WINDOW = 64
"""Samples: 213 ms."""
HOP = 32
"""Samples: 106.7 ms."""
BINS = WINDOW // 2 + 1
"""0 to 150 Hz in steps of 4.6875 Hz."""


def tukey(size: int, shape: float) -> Tensor:
    """The periodic Tukey window [size] float64: a cosine taper over ``shape / 2`` of either end."""
    position = torch.arange(size, dtype=torch.float64)
    edge = shape * size / 2
    ramp = torch.minimum(position, size - position).clamp(max=edge)
    return 0.5 * (1 - torch.cos(torch.pi * ramp / edge))


@cache
def window_like(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """The window [WINDOW] and the factor [F] that makes a squared magnitude a one-sided density."""
    window = tukey(WINDOW, 0.25)
    factor = torch.full((BINS,), 2 / (SAMPLING_RATE * float(window.square().sum())), dtype=torch.float64)
    factor[[0, -1]] /= 2  # these two bins have no twin at a negative frequency
    return window.to(device, dtype), factor.to(device, dtype)


def num_frames(length: Tensor) -> Tensor:
    """Frames that hold nothing but samples of a record of ``length`` samples; at least 1."""
    return ((length - WINDOW).div(HOP, rounding_mode="floor") + 1).clamp(min=1)


def density(signal: Tensor) -> Tensor:
    """One-sided power spectral density [N, L, F] of [N, T], in squared units of the signal per Hz.

    As ``scipy.signal.spectrogram(signal, 300, nperseg=64, noverlap=32)``: each frame loses its mean and is tapered.
    """
    window, factor = window_like(signal.dtype, signal.device)
    frames = signal.unfold(-1, WINDOW, HOP)
    spectrum = torch.fft.rfft((frames - frames.mean(-1, keepdim=True)) * window)
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag).mul_(factor)


def log_density(signal: Tensor) -> Tensor:
    """Natural logarithm [N, L, F] of the density of [N, T]; 0 where that is 0."""
    with torch.autocast(signal.device.type, enabled=False):
        power = density(signal)
        return torch.where(power > 0, power.log(), 0.0)


class LogSpectrogram(nn.Module):
    """Natural logarithm of the density, 0 where the density is 0 (padding, dropped bursts, a flat line).

    Args:
        truncate: round the logarithms toward zero to whole numbers, as an int16 placeholder does in the authors'
            code.
    """

    def __init__(self, truncate: bool = False) -> None:
        super().__init__()
        self.truncate = truncate

    def forward(self, signal: Tensor) -> Tensor:
        """Signal [N, T] -> [N, L, F]; signals shorter than a window are padded to one."""
        if signal.shape[-1] < WINDOW:
            signal = nn.functional.pad(signal, (0, WINDOW - signal.shape[-1]))
        if cpu_kernels.can_take(signal):
            logarithm = cpu_kernels.log_density(signal, *window_like(torch.float64, signal.device))
        else:
            logarithm = log_density(signal)
        return logarithm.trunc() if self.truncate else logarithm
