"""Recordings of any length and rate, read piece by piece: WFDB, CSV or NumPy files.

A recording gives its samples in 1/1000 mV as float32, NaN where there is none, any stretch at a time; only CSV files
are read whole.
"""

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import islice, pairwise, repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb
from scipy.signal import resample_poly

MIN_SECONDS, MAX_SECONDS = 2.0, 24 * 3600.0
TARGET_RATE = 300
MARGIN_SECONDS = 1.0
"""Read on both sides of a window, so that resampling has no edges inside the recording."""


class Recording(NamedTuple):
    name: str
    sampling_rate: float
    """Hz."""
    num_samples: int
    read: Callable[[int, int], np.ndarray]
    """``read(start, stop)`` -> float32 [stop - start] in 1/1000 mV, NaN for missing samples."""

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sampling_rate


def open_wfdb(path: Path, channel: int) -> Recording:
    """A WFDB record, named with or without ``.hea``; physical units must be volts of some kind."""
    stem = str(path.with_suffix("") if path.suffix in (".hea", ".mat", ".dat") else path)
    header = wfdb.rdheader(stem)
    if not header.sig_len or not header.n_sig:
        raise ValueError("the header names no samples")
    if channel >= header.n_sig:
        raise ValueError(f"channel {channel} of {header.n_sig}")
    units = (header.units or ["mV"])[channel]
    scale = {"mV": 1000.0, "uV": 1.0, "V": 1e6}.get(units)
    if scale is None:
        raise ValueError(f"unit {units} is no voltage")

    def read(start: int, stop: int) -> np.ndarray:
        part = wfdb.rdrecord(stem, sampfrom=start, sampto=stop, channels=[channel])
        return (part.p_signal[:, 0] * scale).astype(np.float32)

    read(max(0, header.sig_len - 2), header.sig_len)  # a truncated signal file has lost its end
    return Recording(path.stem, float(header.fs), int(header.sig_len), read)


def open_array(path: Path, channel: int, sampling_rate: float, units_per_mv: float) -> Recording:
    """A .npy file, memory mapped: [T], [T, channels] or [channels, T] of numbers."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf" or 0 in array.shape:
        raise ValueError(f"expected numbers [T] or [T, channels], got {array.dtype} {list(array.shape)}")
    if array.ndim == 2:
        array = array.T if array.shape[0] < array.shape[1] else array
        if channel >= array.shape[1]:
            raise ValueError(f"channel {channel} of {array.shape[1]}")
        array = array[:, channel]

    def read(start: int, stop: int) -> np.ndarray:
        return finite(np.asarray(array[start:stop], np.float64) * (1000 / units_per_mv))

    return Recording(path.stem, sampling_rate, len(array), read)


def open_csv(path: Path, channel: int, sampling_rate: float, units_per_mv: float) -> Recording:
    """A CSV file, one sample a line, a header line allowed; an empty field or line or ``nan`` is a missing sample.

    A day at 1 kHz is 350 MB as float32. What is longer than any recording may be is not read to its end.
    """
    limit = int((MAX_SECONDS + 1) * sampling_rate)
    with path.open(encoding="utf-8") as lines:
        first = next(lines, "")
        has_header = not is_number(column_of(first, channel))
        texts = texts_of(islice(lines, limit), channel)
        samples = np.fromiter((to_number(text) for text in texts), np.float32)
    if not has_header:
        samples = np.concatenate([[np.float32(to_number(column_of(first, channel)))], samples])
    if not len(samples):
        raise ValueError("no samples")

    def read(start: int, stop: int) -> np.ndarray:
        return finite(samples[start:stop] * np.float32(1000 / units_per_mv))

    return Recording(path.stem, sampling_rate, len(samples), read)


def texts_of(lines: Iterable[str], channel: int) -> Iterator[str]:
    """The field of each line; an empty line is an empty field, unless only empty ones follow."""
    empty = 0
    for line in lines:
        if not line.strip():
            empty += 1
            continue
        yield from repeat("", empty)
        empty = 0
        yield column_of(line, channel)


def column_of(line: str, channel: int) -> str:
    fields = line.rstrip("\r\n").replace(";", ",").replace("\t", ",").split(",")
    if channel >= len(fields):
        raise ValueError(f"column {channel} in a line of {len(fields)}: {line.strip()[:40]!r}")
    return fields[channel].strip()


def is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def to_number(text: str) -> float:
    if not is_number(text):
        raise ValueError(f"{text[:40]!r} is no number")
    return float(text or "nan")


def finite(samples: np.ndarray) -> np.ndarray:
    """float32 with NaN in place of infinities too."""
    return np.where(np.isfinite(samples), samples, np.nan).astype(np.float32)


def open_recording(path: Path, channel: int, sampling_rate: float | None, units_per_mv: float) -> Recording:
    """Any recording; ``sampling_rate`` (Hz) and ``units_per_mv`` describe CSV and NumPy files, WFDB has its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be used, with the reason.
    """
    is_plain = path.suffix in (".csv", ".npy")
    if not (path if is_plain else path.with_suffix(".hea")).is_file():
        raise FileNotFoundError(f"no {'file' if is_plain else 'WFDB record'} {path}")
    if is_plain and not sampling_rate:
        raise ValueError(f"{path}: a {path.suffix} file needs --sampling-rate")
    try:
        if not is_plain:
            recording = open_wfdb(path, channel)
        elif path.suffix == ".npy":
            recording = open_array(path, channel, float(sampling_rate or 0), units_per_mv)
        else:
            recording = open_csv(path, channel, float(sampling_rate or 0), units_per_mv)
    except Exception as error:  # wfdb and numpy raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if not MIN_SECONDS <= recording.seconds <= MAX_SECONDS:
        raise ValueError(f"{path} lasts {recording.seconds:.2f} s; supported are 2 s to 24 h")
    return recording


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
