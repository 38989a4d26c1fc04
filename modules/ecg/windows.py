"""Stretches of a recording as the networks take them: resampled to 300 Hz, without gaps, with what is wrong in them."""

from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.signal import resample_poly

from modules.ecg.recordings import Recording

TARGET_RATE = 300
MARGIN_SECONDS = 1.0
"""Read on both sides of a window, so that resampling has no edges inside the recording."""


def resample(samples: np.ndarray, rate: float) -> np.ndarray:
    """float32 samples at ``rate`` Hz -> at 300 Hz, band limited."""
    if rate == TARGET_RATE:
        return samples
    ratio = Fraction(TARGET_RATE / rate).limit_denominator(1000)
    return resample_poly(samples, ratio.numerator, ratio.denominator).astype(np.float32)


class Window(NamedTuple):
    start: float
    """Seconds."""
    signal: np.ndarray
    """float32 [T] at 300 Hz in 1/1000 mV; missing samples are 0."""
    missing: float
    """Share of samples that are missing, in 0..1."""
    flat: float
    """Share of samples in stretches of at least half a second without any change, missing ones not counted."""


def flat_share(samples: np.ndarray, rate: float) -> float:
    """The share of samples that sit in a constant stretch of half a second or more."""
    changes = np.flatnonzero(np.diff(samples) != 0)
    edges = np.concatenate([[0], changes + 1, [len(samples)]])
    runs = np.diff(edges)
    return float(runs[runs >= max(2.0, rate / 2)].sum() / max(1, len(samples)))


def read_window(recording: Recording, start: int, stop: int) -> Window:
    """Samples [start, stop) of the recording, checked and resampled."""
    margin = int(MARGIN_SECONDS * recording.sampling_rate)
    first, last = max(0, start - margin), min(recording.num_samples, stop + margin)
    samples = recording.read(first, last)
    inside = samples[start - first : stop - first]
    missing = float(np.isnan(inside).mean())
    flat = flat_share(inside, recording.sampling_rate)
    resampled = resample(np.nan_to_num(samples, nan=0.0), recording.sampling_rate)
    ratio = TARGET_RATE / recording.sampling_rate
    begin, size = round((start - first) * ratio), max(1, round((stop - start) * ratio))
    return Window(start / recording.sampling_rate, resampled[begin : begin + size], missing, flat)


def window_edges(recording: Recording, seconds: float) -> list[tuple[int, int]]:
    """Windows of equal length, at most ``seconds``, that cover the recording: [(start, stop)] in samples."""
    count = max(1, int(np.ceil(recording.seconds / seconds)))
    edges = np.linspace(0, recording.num_samples, count + 1).round().astype(int).tolist()
    return list(pairwise(edges))
