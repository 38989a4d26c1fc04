"""Recordings of any length and rate, read piece by piece: WFDB, CSV or NumPy files.

A recording gives its samples in 1/1000 mV as float32, NaN where there is none, any stretch at a time; only CSV files
are read whole.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb

from modules.components.files.voltages import calibration, per_mv
from modules.ecg.csv_samples import read_csv
from modules.ecg.units import HOW_TO_SAY

MIN_SECONDS, MAX_SECONDS = 2.0, 24 * 3600.0
MIN_RATE, MAX_RATE = 1.0, 1e5
"""Hz; the ratios between these and 300 Hz are fractions of small numbers."""
MIN_HEIGHT, MAX_HEIGHT = 0.05, 20.0
"""mV."""
ONE_WAY = (0.05, 0.95)
"""Of an ECG's changes about half go up."""
UNCALIBRATED_GAIN = 200
"""What WFDB divides by where a header gives no gain."""


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


def open_wfdb(path: Path, channel: int, units_per_mv: float | None) -> Recording:
    """A WFDB record, named with or without ``.hea``; physical units must be volts of some kind.

    ``units_per_mv`` is for a signal whose header gives no gain, and is not looked at otherwise.
    """
    stem = str(path.with_suffix("") if path.suffix in (".hea", ".mat", ".dat") else path)
    header = wfdb.rdheader(stem)
    if isinstance(header, wfdb.MultiRecord):
        raise ValueError("it consists of segments: name one of them, or join them first")
    if not header.sig_len or not header.n_sig:
        raise ValueError("the header names no samples")
    if channel >= header.n_sig:
        raise ValueError(f"channel {channel} of {header.n_sig}")
    has_gain, unit = calibration(Path(f"{stem}.hea"), channel)
    from_header = per_mv(unit)
    if from_header is None:
        raise ValueError(f"unit {unit} is no voltage")
    scale = 1000 / from_header
    if not has_gain:
        if units_per_mv is None:
            raise ValueError(f"its header gives signal {channel} no gain: {HOW_TO_SAY}")
        scale = 1000 * UNCALIBRATED_GAIN / units_per_mv

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


def open_csv(path: Path, channel: int, sampling_rate: float, units_per_mv: float | None) -> Recording:
    """A CSV file, one sample a line; an empty field or line or ``nan`` is a missing sample.

    It may begin with a header line, and another of units; one of them names the unit, unless ``units_per_mv`` does. A
    day at 1 kHz is 350 MB as float32. What is longer than any recording may be is not read to its end.
    """
    try:
        samples, units_per_mv = read_csv(path, channel, int((MAX_SECONDS + 1) * sampling_rate), units_per_mv)
    except UnicodeDecodeError as error:
        raise ValueError("it is no text in UTF-8: save it again as CSV in UTF-8") from error
    if not len(samples):
        raise ValueError("no samples")

    def read(start: int, stop: int) -> np.ndarray:
        return finite(samples[start:stop] * np.float32(1000 / units_per_mv))

    return Recording(path.stem, sampling_rate, len(samples), read)


def finite(samples: np.ndarray) -> np.ndarray:
    """float32 with NaN in place of infinities too."""
    return np.where(np.isfinite(samples), samples, np.nan).astype(np.float32)


def open_recording(path: Path, channel: int, sampling_rate: float | None, units_per_mv: float | None) -> Recording:
    """Any recording; ``sampling_rate`` (Hz) and ``units_per_mv`` describe CSV and NumPy files, WFDB has its own.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be used, with the reason: among others where nothing says its units, and where its
            samples count up or down like a column of time.
    """
    suffix = path.suffix.lower()
    is_plain = suffix in (".csv", ".npy")
    if not (path if is_plain else path.with_suffix(".hea")).is_file():
        raise FileNotFoundError(f"no {'file' if is_plain else 'WFDB record'} {path}")
    if is_plain and not sampling_rate:
        raise ValueError(f"{path}: a {suffix} file needs --sampling-rate")
    if suffix == ".npy" and units_per_mv is None:
        raise ValueError(f"{path}: nothing says the unit of its numbers: {HOW_TO_SAY}")
    try:
        if not is_plain:
            recording = open_wfdb(path, channel, units_per_mv)
        elif suffix == ".npy":
            recording = open_array(path, channel, float(sampling_rate or 0), float(units_per_mv or 0))
        else:
            recording = open_csv(path, channel, float(sampling_rate or 0), units_per_mv)
    except Exception as error:  # wfdb and numpy raise whatever a damaged file makes them stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read: {reason}") from error
    if not MIN_RATE <= recording.sampling_rate <= MAX_RATE:
        raise ValueError(f"{path} has a sampling rate of {recording.sampling_rate:g} Hz; supported are 1 Hz to 100 kHz")
    if not MIN_SECONDS <= recording.seconds <= MAX_SECONDS:
        raise ValueError(f"{path} lasts {recording.seconds:.2f} s; supported are 2 s to 24 h")
    if is_monotonic(probe(recording)):
        raise ValueError(
            f"{path}: channel {channel} only rises or only falls, like time or a count of samples, "
            "and is no ECG: choose another with --channel (from 0)"
        )
    return recording


def probe(recording: Recording) -> np.ndarray:
    """Its known samples, of a long recording six stretches of ten seconds from its beginning to its end, float32."""
    size, pieces = int(10 * recording.sampling_rate), 6
    if recording.num_samples <= pieces * size:
        samples = recording.read(0, recording.num_samples)
    else:
        starts = np.linspace(0, recording.num_samples - size, pieces).astype(int).tolist()
        samples = np.concatenate([recording.read(start, start + size) for start in starts])
    return samples[np.isfinite(samples)]


def is_monotonic(samples: np.ndarray) -> bool:
    """Whether nearly all changes go one way, also of a clock that starts anew now and then.

    Fewer than ten changes are a flat line with an edge, which is another matter.
    """
    changes = np.diff(samples)
    changes = changes[changes != 0]
    rising = float((changes > 0).mean()) if len(changes) >= 10 else 0.5
    return not ONE_WAY[0] < rising < ONE_WAY[1]


def implausible_range(recording: Recording) -> str | None:
    """What to tell the user of a recording whose 1st and 99th percentile are no ECG's height apart; None of others."""
    samples = probe(recording)
    low, high = np.percentile(samples, (1, 99)) if len(samples) else (0.0, 0.0)
    height = float(high - low) / 1000
    if MIN_HEIGHT <= height <= MAX_HEIGHT:
        return None
    return f"it is {height:.3g} mV high, where an ECG has {MIN_HEIGHT:g} to {MAX_HEIGHT:g}: check its units"
