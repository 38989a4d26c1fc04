"""F1 of the shipped networks on records of 125, 250, 300 and 500 Hz: each fold's network on its own test records.

    PARSIMONY_DATA=... python benchmarks/ecg_rates.py [--folds 0 1 2 3 4] [--weights weights/ecg] [--quick]

The challenge's records, of 300 Hz, become files of another rate: resampled and rounded to whole 1/1000 mV, as a device
of that rate would store them. They are read back through what ``python -m modules.ecg.predict`` reads files with. Other
than there, the network sees many records at once, each in one window (none lasts more than 61 s), in bf16 as in a test.
``--quick`` takes 100 records of the first fold.
"""

import argparse
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.signal import resample_poly
from torch import Tensor

from datamodules.physionet2017 import PhysioNet2017
from datamodules.signals.batches import Records
from modules.ecg.inference import Classifier, load_classifier
from modules.ecg.metrics import challenge_f1
from modules.ecg.recordings import open_recording
from modules.ecg.views import log_mean_probabilities, outputs_of_views
from modules.ecg.windows import read_window

RATES = (125, 250, 300, 500)
BATCH = 40


def recorded_at(samples: np.ndarray, rate: int) -> np.ndarray:
    """int16 [T] at 300 Hz -> int16 at ``rate`` Hz."""
    if rate == 300:
        return samples
    ratio = Fraction(rate, 300)
    resampled = resample_poly(samples.astype(np.float64), ratio.numerator, ratio.denominator)
    return np.rint(resampled).clip(-32768, 32767).astype(np.int16)


def read_back(samples: np.ndarray, rate: int, folder: Path) -> Tensor:
    """float32 [T] at 300 Hz of a file of ``samples`` at ``rate`` Hz."""
    np.save(folder / "record.npy", samples)
    recording = open_recording(folder / "record.npy", 0, rate, units_per_mv=1000)
    return torch.from_numpy(read_window(recording, 0, recording.num_samples).signal)


def batches(records: Records, rate: int, count: int, folder: Path) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Signals [N, T], their lengths [N] and labels [N], shortest first."""
    order = np.argsort(records.lengths[:count], kind="stable")
    for part in np.array_split(order, -(-len(order) // BATCH)):
        rows = records.rows[part]
        spans = zip(records.cache.offsets[rows], records.cache.offsets[rows + 1], strict=True)
        signals = [read_back(recorded_at(records.cache.signals[a:b], rate), rate, folder) for a, b in spans]
        length = torch.tensor([len(signal) for signal in signals])
        yield torch.nn.utils.rnn.pad_sequence(signals, batch_first=True), length, records.labels[torch.from_numpy(part)]


@torch.no_grad()
def confusion(classifier: Classifier, records: Records, rate: int, count: int) -> Tensor:
    """Counts [K, K] over the first ``count`` records, rows the true class."""
    counts = torch.zeros(4, 4, dtype=torch.int64)
    with tempfile.TemporaryDirectory() as folder:
        for signal, length, label in batches(records, rate, count, Path(folder)):
            with torch.autocast("cpu", torch.bfloat16):
                outputs = outputs_of_views(classifier, signal, length, classifier.views)
            predicted = log_mean_probabilities(outputs).argmax(1)
            counts.view(-1).add_(torch.bincount(4 * label + predicted, minlength=16))
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--weights", type=Path, default=Path(__file__).parents[1] / "weights" / "ecg")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    folds = options.folds[:1] if options.quick else options.folds
    scores: dict[int, list[float]] = {rate: [] for rate in RATES}
    for fold in folds:
        data = PhysioNet2017(splits="splits/split_5_6_14", fold=fold)
        data.setup("test")
        records = data.sets["test"]
        count = min(100, len(records)) if options.quick else len(records)
        classifier = load_classifier(options.weights / f"fold{fold}.pt")
        for rate in RATES:
            scores[rate].append(float(challenge_f1(confusion(classifier, records, rate, count))))
            print(f"fold {fold}, {rate} Hz: {scores[rate][-1]:.4f}", flush=True)
    table = Table("Hz", *(f"fold {fold}" for fold in folds), "mean")
    for rate in RATES:
        table.add_row(str(rate), *(f"{score:.3f}" for score in scores[rate]), f"{fmean(scores[rate]):.3f}")
    Console().print(table)
    print(f"ratio ecg_f1_at_125_hz {fmean(scores[125]) / fmean(scores[300]):.3f}")


if __name__ == "__main__":
    main()
