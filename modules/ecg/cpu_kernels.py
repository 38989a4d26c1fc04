"""Augmentation and log-spectrogram in one pass over each record, for the CPU.

With tensor operations a batch is read and written some twenty times; here a record stays in the processor's cache.
The random numbers are drawn outside, so the augmentation equals the tensor operations of augmentation.py bit for bit.
The transform is computed in double precision, whatever the signal's: the weakest bins of a frame can lie ten orders of
magnitude below its strongest.

Letters: N batch, T samples, L frames, W = 64 samples of the window, F = W / 2 + 1 frequency bins.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules.components.kernels import kernel

LANES = 96
"""Frames that are transformed side by side: loops over them are what the compiler vectorises."""


def can_take(signal: Tensor) -> bool:
    """Whether the kernels can have this signal; they give no gradient."""
    return signal.device.type == "cpu" and signal.dtype in (torch.float32, torch.float64) and not signal.requires_grad


def over_rows(kernel: Callable[..., Any], rows: int, *arguments: Any) -> None:
    """Call ``kernel(begin, end, *arguments)`` on runs of rows, one for each of torch's threads."""
    threads = min(rows, torch.get_num_threads())
    if threads <= 1:
        kernel(0, rows, *arguments)
        return
    edges = [rows * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda begin, end: kernel(begin, end, *arguments), edges[:-1], edges[1:]))


@kernel()
def _augment(begin, end, signal, starts, width, last, step, stretched, out):
    """Rows begin to end: zero the bursts, then interpolate at column * step; ``last`` is a record's last sample."""
    samples, columns = signal.shape[1], out.shape[1]
    record, fraction = np.zeros(samples + 1, signal.dtype), np.empty(columns, signal.dtype)
    left = np.empty(columns, np.int32)
    for row in range(begin, end):
        record[:samples] = signal[row]
        for start in starts[row]:
            for column in range(max(start, 0), min(start + width, samples)):
                record[column] = 0
        for column in range(stretched[row]):  # apart from the next loop, so that the compiler vectorises it
            position = column * step[row]
            position = position if position < last[row] else float(last[row])
            left[column] = int(position)
            fraction[column] = position - left[column]
        for column in range(stretched[row]):
            low, high = record[left[column]], record[left[column] + 1]
            out[row, column] = low + fraction[column] * (high - low)
        out[row, stretched[row] :] = 0


@kernel()
def _low_pass(begin, end, signal, length, taps, out):
    """Rows begin to end, convolved with ``taps`` [N, R + 1] to both sides; zero outside of a record."""
    reach = taps.shape[1] - 1
    record = np.zeros(signal.shape[1] + 2 * reach, signal.dtype)
    for row in range(begin, end):
        size = length[row]
        record[reach : reach + size] = signal[row, :size]
        record[reach + size :] = 0
        out[row, :size] = taps[row, 0] * signal[row, :size]
        out[row, size:] = 0
        for tap in range(1, reach + 1):
            weight = taps[row, tap]
            if weight != 0:
                for column in range(size):
                    out[row, column] += weight * (record[reach + column - tap] + record[reach + column + tap])


@kernel()
def _load(samples, first, lanes, window, pieces, total, re, im):
    """Frames from ``first`` on without their mean, tapered: their even samples to re [W/2, LANES], the odd to im.

    A frame is two pieces of W/2 samples, of which the next frame shares the second; ``pieces`` [W/2, LANES + 1].
    """
    half = len(window) // 2
    for lane in range(lanes + 1):
        for n in range(half):
            pieces[n, lane] = samples[(first + lane) * half + n]
    total[:] = 0
    for n in range(half):
        for lane in range(LANES + 1):
            total[lane] += pieces[n, lane]
    for lane in range(LANES):
        total[lane] = (total[lane] + total[lane + 1]) / len(window)
    for n in range(half):
        row, shift = 2 * n % half, 2 * n // half
        for lane in range(LANES):
            re[n, lane] = (pieces[row, lane + shift] - total[lane]) * window[2 * n]
            im[n, lane] = (pieces[row + 1, lane + shift] - total[lane]) * window[2 * n + 1]


@kernel(fastmath={"contract"})
def _radix_4(re, im, re_out, im_out, roots, size):
    """The stage of a self-sorting FFT (Stockham's) that leaves transforms of ``size / 4``, over the rows."""
    quarter, stride = size // 4, len(re) // size
    for p in range(quarter):
        w1, w2, w3 = roots[len(roots) // size * p], roots[len(roots) // size * 2 * p], roots[len(roots) // size * 3 * p]
        for q in range(stride):
            a = q + stride * p
            b, c, d = a + stride * quarter, a + stride * 2 * quarter, a + stride * 3 * quarter
            e = q + stride * 4 * p
            f, g, h = e + stride, e + stride * 2, e + stride * 3
            for lane in range(LANES):
                ac_re, ac_im = re[a, lane] + re[c, lane], im[a, lane] + im[c, lane]
                bd_re, bd_im = re[b, lane] + re[d, lane], im[b, lane] + im[d, lane]
                re_out[e, lane], im_out[e, lane] = ac_re + bd_re, ac_im + bd_im
                x, y = ac_re - bd_re, ac_im - bd_im
                re_out[g, lane], im_out[g, lane] = x * w2.real - y * w2.imag, x * w2.imag + y * w2.real
                ac_re, ac_im = re[a, lane] - re[c, lane], im[a, lane] - im[c, lane]
                bd_re, bd_im = im[d, lane] - im[b, lane], re[b, lane] - re[d, lane]  # times i
                x, y = ac_re - bd_re, ac_im - bd_im
                re_out[f, lane], im_out[f, lane] = x * w1.real - y * w1.imag, x * w1.imag + y * w1.real
                x, y = ac_re + bd_re, ac_im + bd_im
                re_out[h, lane], im_out[h, lane] = x * w3.real - y * w3.imag, x * w3.imag + y * w3.real


@kernel()
def _last_radix_2(values, out):
    """The last stage, of either part: sums and differences."""
    half = len(values) // 2
    for q in range(half):
        for lane in range(LANES):
            out[q, lane] = values[q, lane] + values[q + half, lane]
            out[q + half, lane] = values[q, lane] - values[q + half, lane]


@kernel(fastmath={"contract"})
def _power(re, im, roots, factor, power):
    """Density [F, LANES] from the transform of even samples + i odd samples: X[k] and X[W/2 - k] are E +- u."""
    half = len(re)
    for k in range(half // 2 + 1):
        cosine, sine = roots[k].real, roots[k].imag
        mirror, other = (half - k) % half, half - k
        for lane in range(LANES):
            e_re, e_im = re[k, lane] + re[mirror, lane], im[k, lane] - im[mirror, lane]
            d_re, d_im = re[k, lane] - re[mirror, lane], im[k, lane] + im[mirror, lane]
            u_re, u_im = sine * d_re + cosine * d_im, sine * d_im - cosine * d_re
            power[k, lane] = ((e_re + u_re) ** 2 + (e_im + u_im) ** 2) * (factor[k] / 4)
            power[other, lane] = ((e_re - u_re) ** 2 + (e_im - u_im) ** 2) * (factor[other] / 4)


@kernel()
def _densities(begin, end, signal, window, factor, roots, out):
    """Rows begin to end of the density [N, L, F], with 1 in place of 0."""
    half, frames = len(window) // 2, out.shape[1]
    pieces, power, total = np.zeros((half, LANES + 8)), np.empty((half + 1, LANES + 8)), np.empty(LANES + 1)
    work = np.empty((4, half, LANES + 8))  # rows of 2^n bytes would share cache sets
    re, im, re_2, im_2 = work[0], work[1], work[2], work[3]
    one = out.dtype.type(1)
    for row in range(begin, end):
        for first in range(0, frames, LANES):
            lanes = min(LANES, frames - first)
            _load(signal[row], first, lanes, window, pieces, total, re, im)
            _radix_4(re, im, re_2, im_2, roots, half)
            _radix_4(re_2, im_2, re, im, roots, half // 4)
            _last_radix_2(re, re_2)
            _last_radix_2(im, im_2)
            _power(re_2, im_2, roots, factor, power)
            for lane in range(lanes):
                for k in range(half + 1):
                    value = out.dtype.type(power[k, lane])
                    out[row, first + lane, k] = value if value != 0 else one


def augment(
    signal: Tensor, starts: Tensor, width: int, last: Tensor, step: Tensor, stretched: Tensor, columns: int
) -> Tensor:
    """Zeroed bursts and linear interpolation of [N, T] -> [N, ``columns``]; zero behind the new end.

    Args:
        starts: int64 [N, K], first samples of the bursts, each ``width`` long.
        last: int64 [N], last sample of each record.
        step: float64 [N], old samples between two new ones.
        stretched: int64 [N], new samples of each record, at most ``columns``.
    """
    assert int(last.min()) >= 0 and int(last.max()) < signal.shape[1], "records end inside the signal"
    assert int(stretched.max()) <= columns, "new records end inside the new signal"
    out = signal.new_empty(len(signal), columns)
    rest = (starts.numpy(), width, last.numpy(), step.numpy(), stretched.numpy(), out.numpy())
    over_rows(_augment, len(signal), signal.contiguous().numpy(), *rest)
    return out


def low_pass(signal: Tensor, length: Tensor, taps: Tensor) -> Tensor:
    """Each record of [N, T], ``length`` [N] samples long, filtered by its symmetric ``taps`` [N, R + 1] float64."""
    assert int(length.min()) >= 0 and int(length.max()) <= signal.shape[1], "records end inside the signal"
    out = torch.empty_like(signal, memory_format=torch.contiguous_format)
    rest = (length.numpy(), taps.to(signal.dtype).numpy(), out.numpy())
    over_rows(_low_pass, len(signal), signal.contiguous().numpy(), *rest)
    return out


def log_density(signal: Tensor, window: Tensor, factor: Tensor) -> Tensor:
    """Natural logarithm [N, L, F] of the density of [N, T], 0 where that is 0; float64 ``window`` and ``factor``."""
    size = len(window)
    out = signal.new_empty(len(signal), signal.shape[1] * 2 // size - 1, size // 2 + 1)
    roots = np.exp(-2j * np.pi * np.arange(size) / size)
    constants = window.numpy(), factor.numpy(), roots
    over_rows(_densities, len(signal), signal.contiguous().numpy(), *constants, out.numpy())
    return out.log_()
