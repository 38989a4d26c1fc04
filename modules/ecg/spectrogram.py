"""The log-spectrogram that the networks see (section 3), computed for a padded batch on its device.

Letters: N batch, T samples, L frames, F = 33 frequency bins.
"""

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


def one_sided(window: Tensor) -> Tensor:
    """The factor [F] float64 that makes a squared magnitude behind ``window`` a one-sided density."""
    factor = torch.full((BINS,), 2 / (SAMPLING_RATE * float(window.square().sum())), dtype=torch.float64)
    factor[[0, -1]] /= 2  # these two bins have no twin at a negative frequency
    return factor


TAPER = tukey(WINDOW, 0.25)
"""[WINDOW] float64."""
FACTOR = one_sided(TAPER)
"""[F] float64."""


def num_frames(length: Tensor) -> Tensor:
    """Frames that hold nothing but samples of a record of ``length`` samples; at least 1."""
    return ((length - WINDOW).div(HOP, rounding_mode="floor") + 1).clamp(min=1)


def density(signal: Tensor, window: Tensor, factor: Tensor) -> Tensor:
    """One-sided power spectral density [N, L, F] of [N, T], in squared units of the signal per Hz.

    As ``scipy.signal.spectrogram(signal, 300, nperseg=64, noverlap=32)``: each frame loses its mean and is tapered.
    ``window`` and ``factor`` are TAPER and FACTOR on the signal's device.
    """
    window, factor = window.to(signal.dtype), factor.to(signal.dtype)
    frames = signal.unfold(-1, WINDOW, HOP)
    spectrum = torch.fft.rfft((frames - frames.mean(-1, keepdim=True)) * window)
    return torch.addcmul(spectrum.real.square(), spectrum.imag, spectrum.imag).mul_(factor)


def log_density(signal: Tensor, window: Tensor, factor: Tensor) -> Tensor:
    """Natural logarithm [N, L, F] of the density of [N, T]; 0 where that is 0."""
    with torch.autocast(signal.device.type, enabled=False):
        power = density(signal, window, factor)
        return torch.where(power > 0, power.log(), 0.0)


class LogSpectrogram(nn.Module):
    """Natural logarithm of the density, 0 where the density is 0 (padding, dropped bursts, a flat line).

    Args:
        truncate: round the logarithms toward zero to whole numbers, as an int16 placeholder does in the authors'
            code.
    """

    window: Tensor
    factor: Tensor

    def __init__(self, truncate: bool = False) -> None:
        super().__init__()
        self.truncate = truncate
        self.register_buffer("window", TAPER.float(), persistent=False)  # float64 is not for every device
        self.register_buffer("factor", FACTOR.float(), persistent=False)

    def forward(self, signal: Tensor) -> Tensor:
        """Signal [N, T] -> [N, L, F]; signals shorter than a window are padded to one."""
        if signal.shape[-1] < WINDOW:
            signal = nn.functional.pad(signal, (0, WINDOW - signal.shape[-1]))
        if cpu_kernels.can_take(signal):
            logarithm = cpu_kernels.log_density(signal, TAPER, FACTOR)
        else:
            logarithm = log_density(signal, self.window, self.factor)
        return logarithm.trunc() if self.truncate else logarithm
