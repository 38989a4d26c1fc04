"""WFDB records of one lead, packed once into a single memory-mapped array.

::

    <cache>/signals-<fingerprint>.bin    int16 [S]: all records one after the other, 1000 units per mV
            index-<fingerprint>.json     names, offsets, and the records that were left out, by reason

When a cache is used again and when it is not says datamodules/loading/packing.py.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb

from datamodules.loading.packing import fingerprint, load_or_build, remove_others
from datamodules.loading.reporting import track
from modules.components.files.voltages import calibration, per_mv
from modules.components.files.whole_files import unfinished, write_whole

UNITS_PER_MV = 1000
VERSION = 2
"""Of what ``build`` writes; part of the fingerprint."""
MISSING = "with a header or a signal file missing"
DAMAGED = "truncated or unreadable"
OTHER_RATE = "of another sampling rate"
TOO_SHORT = "too short"
NO_VOLTAGE = "in a unit that is no voltage"
NO_GAIN = "without a gain in the header"


class SkippedRecordError(ValueError):
    """A record that the rules leave out; its message is the reason."""


class Cache(NamedTuple):
    """All usable records of a folder."""

    signals: np.ndarray
    """int16 [S], memory mapped; record i is ``signals[offsets[i]:offsets[i + 1]]``."""
    offsets: np.ndarray
    """int64 [R + 1]."""
    names: list[str]
    """[R], sorted."""
    skipped: dict[str, list[str]]
    """Reason -> names of the records left out."""


def read_record(path: Path, sampling_rate: int, min_samples: int) -> np.ndarray:
    """The only signal of a WFDB record as int16 [T], in 1/1000 mV; missing samples are 0, as when predicting.

    Raises:
        SkippedRecordError: if it is missing, damaged, too short, of another sampling rate, no voltage or of unknown
            gain.
    """
    if not (path.with_suffix(".hea").is_file() and path.with_suffix(".mat").is_file()):
        raise SkippedRecordError(MISSING)
    try:
        record = wfdb.rdrecord(str(path), physical=False)
        signal = record.d_signal[:, 0].astype(np.int32)
        is_missing = np.isnan(record.dac()[:, 0])
        gain, baseline, declared = record.adc_gain[0], record.baseline[0], record.sig_len
        has_gain, unit = calibration(path.with_suffix(".hea"), 0)
    except Exception as error:  # wfdb raises whatever a damaged header makes it stumble over
        raise SkippedRecordError(DAMAGED) from error
    if len(signal) != declared:
        raise SkippedRecordError(DAMAGED)
    if record.fs != sampling_rate:
        raise SkippedRecordError(OTHER_RATE)
    if len(signal) < min_samples:
        raise SkippedRecordError(TOO_SHORT)
    from_header = per_mv(unit)
    if from_header is None:
        raise SkippedRecordError(NO_VOLTAGE)
    if not has_gain:
        raise SkippedRecordError(NO_GAIN)
    scale = UNITS_PER_MV / (gain * from_header)
    if (scale, baseline) != (1, 0):
        signal = np.rint((signal - baseline) * scale)
    return np.where(is_missing, 0, np.clip(signal, -32768, 32767)).astype(np.int16)


def record_files(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return sorted((e for e in entries if e.name.endswith((".hea", ".mat"))), key=lambda entry: entry.name)


def read_all(
    folder: Path, names: list[str], sampling_rate: int, min_samples: int, skipped: dict[str, list[str]], quiet: bool
) -> Iterator[tuple[str, np.ndarray]]:
    """(name, signal) of the usable records; the others are added to ``skipped``."""
    for name in track(names, len(names), f"packing {folder.name}", quiet):
        try:
            yield name, read_record(folder / name, sampling_rate, min_samples)
        except SkippedRecordError as error:
            skipped.setdefault(str(error), []).append(name)


def build(folder: Path, cache: Path, key: str, sampling_rate: int, min_samples: int, quiet: bool) -> None:
    """Pack all records of ``folder``; older caches in ``cache`` are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    names = sorted({Path(entry.name).stem for entry in record_files(folder)})
    skipped: dict[str, list[str]] = {}
    kept: list[str] = []
    offsets = [0]
    data = cache / f"signals-{key}.bin"
    with unfinished(data) as temporary, temporary.open("wb") as file:
        for name, signal in read_all(folder, names, sampling_rate, min_samples, skipped, quiet):
            file.write(signal.astype("<i2").tobytes())
            kept.append(name)
            offsets.append(offsets[-1] + len(signal))
    index = {"names": kept, "offsets": offsets, "skipped": skipped}
    write_whole(cache / f"index-{key}.json", json.dumps(index).encode())
    remove_others(cache, key, "signals-*.bin", "index-*.json")


def load(cache: Path, key: str) -> Cache | None:
    """The finished cache of this key; None if there is none or a file has lost its end."""
    data, index = cache / f"signals-{key}.bin", cache / f"index-{key}.json"
    try:
        content = json.loads(index.read_bytes())
        offsets = np.asarray(content["offsets"], np.int64)
        if data.stat().st_size != 2 * offsets[-1]:
            return None
        empty = np.zeros(0, np.int16)
        signals = np.memmap(data, "<i2", mode="r").view(np.ndarray) if offsets[-1] else empty  # itself slow to slice
    except OSError:  # such as where another process has just replaced it
        return None
    return Cache(signals, offsets, content["names"], content["skipped"])


def open_cache(folder: Path, cache: Path, sampling_rate: int, min_samples: int, quiet: bool = False) -> Cache:
    """The records of ``folder``, packed into ``cache`` first where that has not been done.

    Args:
        folder: holds ``<name>.hea`` and ``<name>.mat``.
        cache: a folder for the packed files, made if needed.
        sampling_rate: in Hz; records of another rate are left out.
        min_samples: shorter records are left out.
        quiet: no progress bar.

    Raises:
        ValueError: if the cache cannot be written, or another process replaces it again and again by one of other
            records or settings.
    """
    files = ((entry.name, entry.stat()) for entry in record_files(folder))
    key = fingerprint(files, VERSION, (sampling_rate, min_samples))
    return load_or_build(
        cache, lambda: load(cache, key), lambda: build(folder, cache, key, sampling_rate, min_samples, quiet)
    )
