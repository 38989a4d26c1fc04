"""Records in the challenge's own file format, written byte by byte."""

import struct
from pathlib import Path

import numpy as np

CLASSES = "NAO~"


def write_record(
    folder: Path, name: str, signal: np.ndarray, rate: int = 300, keep: float = 1.0, gain: str = "1000/mV"
) -> None:
    """``<name>.hea`` and ``<name>.mat`` (MATLAB level 4, int16); ``keep`` cuts the file's end."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(signal)
    header = f"{name} 1 {rate} {count} 05:05:15 1/05/2000\n{name}.mat 16+24 {gain} 16 0 {signal[0]} 0 0 ECG\n"
    (folder / f"{name}.hea").write_text(header)
    content = struct.pack("<5i", 30, 1, count, 0, 4) + b"val\0" + np.asarray(signal, "<i2").tobytes()
    (folder / f"{name}.mat").write_bytes(content[: int(keep * len(content))])


def beats(seconds: float, seed: int, irregular: bool, rate: int = 300) -> np.ndarray:
    """int16 [T]: sharp beats over noise; ``irregular`` varies their distance, as atrial fibrillation does."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(0, 20, int(seconds * rate))
    at = 0.2
    while at < seconds - 0.1:
        start = int(at * rate)
        signal[start : start + 10] += 800 * np.hanning(10)[: len(signal) - start]
        at += rng.uniform(0.35, 1.2) if irregular else 0.75
    return np.rint(signal).astype(np.int16)


def write_set(root: Path, count: int = 40, seed: int = 0) -> Path:
    """A set in the official layout below ``root``: ``count`` records of 3 to 6 s, the four classes in turn."""
    folder = root / "training2017"
    rng = np.random.default_rng(seed)
    lines = []
    for number in range(1, count + 1):
        label = CLASSES[number % 4]
        signal = beats(rng.uniform(3, 6), seed + number, irregular=label == "A")
        if label == "~":
            signal = rng.integers(-2000, 2000, len(signal))
        write_record(folder, f"A{number:05d}", signal)
        lines.append(f"A{number:05d},{label}\n")
    (folder / "REFERENCE-v3.csv").write_text("".join(lines))
    return root
