"""A recording as a picture: signal, spectrogram, and what the classifier says over time."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure

from modules.ecg.inference import CLASSES, Prediction
from modules.ecg.recordings import Recording
from modules.ecg.spectrogram import HOP, WINDOW, LogSpectrogram
from modules.ecg.windows import TARGET_RATE, read_window

COLOURS = ("#4c9f70", "#c8553d", "#3d6fb6", "#9a9a9a")
NAMES = ("normal", "atrial fibrillation", "other rhythm", "noisy")
MAX_SECONDS = 60.0
"""Signal and spectrogram show no more than the first minute; the prediction is drawn in full."""


def draw_prediction(recording: Recording, prediction: Prediction, title: str = "") -> Figure:
    """Signal (mV), log-spectrogram (Hz) and the probabilities of each time step, stacked."""
    stop = min(recording.num_samples, int(MAX_SECONDS * recording.sampling_rate))
    signal = read_window(recording, 0, stop).signal
    with matplotlib.rc_context({"font.size": 8}):
        figure = Figure(figsize=(9, 4.8), layout="constrained")
        top, middle, bottom = figure.subplots(3, height_ratios=(2, 1.6, 1.4))
    seconds = len(signal) / TARGET_RATE
    top.plot(np.arange(len(signal)) / TARGET_RATE, signal / 1000, color="black", linewidth=0.5)
    top.set(ylabel="mV", xlim=(0, seconds), title=title)
    spectrogram = LogSpectrogram()(torch.from_numpy(signal).unsqueeze(0))[0].T.numpy()
    low, high = np.percentile(spectrogram, (2, 99.8))
    ends = (
        (WINDOW - HOP) / 2 / TARGET_RATE,
        (WINDOW - HOP) / 2 / TARGET_RATE + spectrogram.shape[1] * HOP / TARGET_RATE,
    )
    middle.imshow(spectrogram, origin="lower", aspect="auto", extent=(*ends, 0, 150), vmin=low, vmax=high, cmap="magma")
    middle.set(ylabel="Hz", xlim=(0, seconds))
    draw_course(bottom, prediction, recording.seconds)
    return figure


def draw_course(axes: matplotlib.axes.Axes, prediction: Prediction, seconds: float) -> None:
    """Probabilities over time as stacked areas; gaps where nothing was classified."""
    bounds = np.concatenate([[0.0], (prediction.times[1:] + prediction.times[:-1]) / 2, [seconds]])
    floor = np.zeros(len(prediction.times))
    for column, (name, colour) in enumerate(zip(NAMES, COLOURS, strict=True)):
        share = np.nan_to_num(prediction.over_time[:, column])
        axes.stairs(floor + share, bounds, baseline=floor, fill=True, color=colour, label=name, linewidth=0)
        floor = floor + share
    axes.set(xlabel="seconds", ylabel="probability", xlim=(0, seconds), ylim=(0, 1))
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.45), frameon=False)


def heading(recording: Recording, prediction: Prediction) -> str:
    """Name and verdict, such as ``A00004: A  (N 0.02, A 0.95, O 0.03, ~ 0.00)``."""
    if prediction.probabilities is None:
        return f"{recording.name}: nothing that can be classified"
    shares = ", ".join(f"{name} {p:.2f}" for name, p in zip(CLASSES, prediction.probabilities, strict=True))
    return f"{recording.name}: {prediction.label}  ({shares})"


def save_picture(path: Path, recording: Recording, prediction: Prediction, note: str = "") -> None:
    """Write ``draw_prediction`` as PNG; ``note`` is appended to its heading."""
    draw_prediction(recording, prediction, heading(recording, prediction) + note).savefig(path, dpi=90)
