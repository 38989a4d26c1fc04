"""Records per second from disk to padded, augmented, spectrogrammed batches: ours against the per-record way, in turn.

    PARSIMONY_DATA=... python benchmarks/ecg_pipeline.py [--quick] [--device cuda] [--workers 2]

Ours: the packed cache, whole batches, augmentation and spectrogram of a whole batch on the device (compiled kernels
on the CPU, in one thread; tensor operations on an accelerator).
Per record, in loader workers: wfdb reads the record, numpy augments it by the published rules, scipy makes its
log-spectrogram, the batch is padded. Files and cache have been read before (page cache warm). On the CPU both are
judged by CPU-seconds of all their processes, which other work on the machine does not change; on an accelerator by
the clock. Without the challenge's files, records of the same length and format are written first.
"""

import argparse
import os
import resource
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as train.py does; read by torch

import numpy as np
import scipy.signal
import torch
import wfdb
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loaders import data_root
from datamodules.signals.batches import Records, training_batches
from datamodules.signals.cache import Cache, open_cache
from modules.ecg.augmentation import REFERENCE_LENGTH, Augmentation
from modules.ecg.spectrogram import LogSpectrogram

BATCH = 20


def published_augmentation(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bursts and stretching of one record, as the sheet gives them."""
    hits = rng.standard_normal(len(signal) + 10) > 2
    zeroed = hits[: len(signal)].copy()
    for shift in range(1, 11):
        zeroed |= hits[shift : shift + len(signal)]
    signal = np.where(zeroed, 0.0, signal)
    new_length = rng.integers(REFERENCE_LENGTH * 80 // 120, REFERENCE_LENGTH * 80 // 60)
    step = (REFERENCE_LENGTH - 1) / (new_length - 1)
    at = np.arange(int((len(signal) - 1) / step) + 1) * step
    return np.interp(at[:REFERENCE_LENGTH], np.arange(len(signal)), signal)


class PerRecord(Dataset):
    """Log-spectrograms [L, F], one record at a time."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        signal = wfdb.rdrecord(str(self.folder / self.names[index]), physical=False).d_signal[:, 0]
        augmented = published_augmentation(signal, np.random.default_rng(index))
        density = scipy.signal.spectrogram(augmented.astype(np.float32), fs=300, nperseg=64, noverlap=32)[2]
        return torch.from_numpy(np.log(density, out=np.zeros_like(density), where=density > 0).T)


def padded(items: list[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(items, batch_first=True)


def per_record(folder: Path, names: list[str], workers: int, device: torch.device) -> Iterable[Tensor]:
    loader = DataLoader(PerRecord(folder, names), BATCH, num_workers=workers, collate_fn=padded)
    for batch in loader:
        yield batch.to(device)


def ours(cache: Cache, count: int, device: torch.device) -> Iterable[Tensor]:
    rows = np.arange(count)
    records = Records(cache, rows, np.zeros(count, np.int64))
    augmentation, spectrogram = Augmentation(), LogSpectrogram().to(device)
    generator = torch.Generator(device).manual_seed(0)
    for batch in training_batches(records, BATCH, 0, 0, None):
        signal, _ = augmentation(batch["signal"].to(device), batch["length"].to(device), generator)
        yield spectrogram(signal)


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(batches: Callable[[], Iterable[Tensor]], device: torch.device) -> tuple[float, float]:
    """Records per CPU-second and per second of the clock."""
    start, cpu = time.perf_counter(), cpu_seconds()
    count = sum(len(batch) for batch in batches())
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return count / (cpu_seconds() - cpu), count / (time.perf_counter() - start)


def write_records(folder: Path, count: int) -> None:
    """Records of 30 s in the challenge's format."""
    rng = np.random.default_rng(0)
    for number in range(1, count + 1):
        name = f"A{number:05d}"
        header = f"{name} 1 300 9000 05:05:15 1/05/2000\n{name}.mat 16+24 1000/mV 16 0 0 0 0 ECG\n"
        (folder / f"{name}.hea").write_text(header)
        signal = rng.integers(-500, 500, 9000).astype("<i2")
        (folder / f"{name}.mat").write_bytes(struct.pack("<5i", 30, 1, 9000, 0, 4) + b"val\0" + signal.tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="of the per-record way")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)  # waiting threads would count as CPU time
    rounds, theirs_count, ours_count = (3, 600, 3000) if options.quick else (5, 1000, 8000)
    with tempfile.TemporaryDirectory() as scratch:
        folder = data_root() / "training2017"
        if not folder.is_dir():
            folder = Path(scratch)
            write_records(folder, 500 if options.quick else 2000)
        print(f"records of {folder if folder != Path(scratch) else 'made-up files'}, {device}, {rounds} rounds")
        cache = open_cache(folder, Path(scratch) / "cache", 300, 64)
        names = cache.names[:theirs_count]
        ways = {
            f"per record, {options.workers} workers": lambda: per_record(folder, names, options.workers, device),
            "ours": lambda: ours(cache, min(ours_count, len(cache.names)), device),
        }
        for way in ways.values():
            measure(way, device)  # warm up
        runs = [{name: measure(way, device) for name, way in ways.items()} for _ in range(rounds)]
    table = Table("way", "records per CPU-second", "records per second")
    for name in ways:
        table.add_row(name, *(f"{median(run[name][i] for run in runs):,.0f}" for i in (0, 1)))
    Console().print(table)
    judge = 1 if device.type == "cuda" else 0
    peer, own = ways
    print(f"ratio ecg_pipeline {median(run[own][judge] / run[peer][judge] for run in runs):.2f}")


if __name__ == "__main__":
    main()
