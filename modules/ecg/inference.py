"""Trained classifiers on recordings: windows, votes, probabilities over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from modules.components.checkpoint_file import read_checkpoint
from modules.ecg import nets
from modules.ecg.augmentation import REFERENCE_LENGTH
from modules.ecg.recordings import Recording
from modules.ecg.spectrogram import HOP, LogSpectrogram, num_frames
from modules.ecg.views import AS_IT_IS, check_views, log_mean_probabilities, outputs_of_views
from modules.ecg.windows import TARGET_RATE, Window, read_window, window_edges

CLASSES = ("N", "A", "O", "~")
MAX_UNUSABLE = 0.5
"""A window with a larger share of missing and flat samples is not classified."""


class Classifier(nn.Module):
    """What of a trained module makes predictions: the spectrogram, the network and the views."""

    def __init__(
        self, network: nets.CNN | nets.CRNN, truncate_spectrogram: bool, views: Sequence[float] = AS_IT_IS
    ) -> None:
        super().__init__()
        self.views = check_views(views, network)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.spectrogram = LogSpectrogram(truncate_spectrogram)

    def forward(self, signal: Tensor, length: Tensor) -> nets.Classification:
        """As ``ECG.forward``."""
        return self.network(self.spectrogram(signal), num_frames(length))


class Prediction(NamedTuple):
    """What the classifiers say of one recording."""

    label: str | None
    """The class with most votes; None if no window could be classified."""
    probabilities: np.ndarray | None
    """[K]: means over the networks and, weighted by length, over the windows."""
    times: np.ndarray
    """[S] seconds: the middle of each time step."""
    over_time: np.ndarray
    """[S, K]: the probabilities each step alone would give; NaN where nothing was classified."""
    windows: list[dict[str, Any]]
    """Start, seconds, label, shares of missing and flat samples of each window."""


def load_classifier(path: Path) -> Classifier:
    """The classifier of a checkpoint of ``ECG``, in eval mode on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no classifier of this project, or cannot be read safely.
    """
    content = read_checkpoint(path)
    settings, state = content.get("hyper_parameters"), content.get("state_dict")
    if not (isinstance(settings, dict) and isinstance(state, dict) and all(map(is_named_tensor, state.items()))):
        raise ValueError(f"{path} is no checkpoint of an ECG classifier")
    network = network_of(settings, path)
    try:
        views = check_views(settings.get("views", AS_IT_IS), network)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: its views cannot be used: {error}") from error
    classifier = Classifier(network, bool(settings.get("truncate_spectrogram", False)), views)
    try:
        classifier.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: the weights do not fit its network") from error
    if not all(bool(value.isfinite().all()) for value in classifier.state_dict().values()):
        raise ValueError(f"{path}: its weights hold NaN or infinity; choose an earlier checkpoint")
    return classifier.eval()


def is_named_tensor(entry: tuple[Any, Any]) -> bool:
    return isinstance(entry[0], str) and isinstance(entry[1], Tensor)


def network_of(settings: dict[str, Any], path: Path) -> Any:
    """The network that the hyper-parameters describe: only classes of modules.ecg.nets are built."""
    described = settings.get("network")
    described = described if isinstance(described, dict) else {}
    name = str(described.get("class_path", ""))
    allowed = {f"modules.ecg.nets.{cls.__name__}": cls for cls in (nets.CNN, nets.CRNN)}
    if name not in allowed:
        raise ValueError(f"{path} is no checkpoint of an ECG classifier (its network is {name or 'unknown'})")
    try:
        network = allowed[name](**described.get("init_args", {}))
    except Exception as error:  # torch raises whatever strange sizes provoke
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: its network cannot be built: {reason}") from error
    if network.classifier.out_features != len(CLASSES):
        raise ValueError(
            f"{path}: its network tells {network.classifier.out_features} classes apart, not {', '.join(CLASSES)}"
        )
    return network


def majority(votes: Tensor, probabilities: Tensor) -> Tensor:
    """The class [N] with most of the votes [M, N]; among equals, the one with the highest mean probability.

    Args:
        votes: int64 classes.
        probabilities: [M, N, K] of the same M networks.
    """
    counts = torch.nn.functional.one_hot(votes, probabilities.shape[-1]).sum(0)
    return (counts + probabilities.mean(0)).argmax(-1)


def padded_for(module: Classifier, signal: Tensor) -> Tensor:
    """A network that lets padding leak in needs the padding it was trained with."""
    missing = max(0, REFERENCE_LENGTH - signal.shape[1])
    return signal if module.network.features.mask_padding else torch.nn.functional.pad(signal, (0, missing))


@torch.no_grad()
def classify(modules: Sequence[Classifier], window: Window) -> tuple[Tensor, Tensor, Tensor]:
    """One window -> class [], probabilities [K], and over time [S, K] (time steps of the coarsest network)."""
    signal = torch.from_numpy(window.signal).unsqueeze(0)
    length = torch.tensor([signal.shape[1]])
    views = [outputs_of_views(module, padded_for(module, signal), length, module.views) for module in modules]
    probabilities = torch.stack([log_mean_probabilities(outputs).exp() for outputs in views])
    steps = min(int(output.steps) for outputs in views for output in outputs)
    courses = [output.over_time[:, : int(output.steps)].softmax(2) for outputs in views for output in outputs]
    aligned = [torch.nn.functional.adaptive_avg_pool1d(c.transpose(1, 2), steps)[0].T for c in courses]
    label = majority(probabilities.argmax(2), probabilities)[0]
    return label, probabilities.mean(0)[0], torch.stack(aligned).mean(0)


def predict_recording(modules: Sequence[Classifier], recording: Recording, window_seconds: float) -> Prediction:
    """Classify window after window; only one is in memory."""
    step = max(module.network.step for module in modules) * HOP / TARGET_RATE
    rows: list[dict[str, Any]] = []
    times, courses = [], []
    total, votes = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    for start, stop in window_edges(recording, window_seconds):
        window = read_window(recording, start, stop)
        seconds = (stop - start) / recording.sampling_rate
        row: dict[str, Any] = {"start": window.start, "seconds": seconds, "label": None}
        row |= {"missing": window.missing, "flat": window.flat}
        if window.missing + window.flat <= MAX_UNUSABLE:
            label, probabilities, course = classify(modules, window)
            row |= {"label": CLASSES[int(label)], "probabilities": probabilities.tolist()}
            total += seconds * probabilities.numpy()
            votes[int(label)] += seconds
        else:
            course = torch.full((max(1, round(seconds / step)), len(CLASSES)), torch.nan)
        rows.append(row)
        courses.append(course.numpy())
        times.append(window.start + (np.arange(len(course)) + 0.5) * seconds / len(course))
    known = total.sum()
    probabilities_of_all = total / known if known else None
    label_of_all = CLASSES[int((votes + total / (known or 1)).argmax())] if known else None
    return Prediction(label_of_all, probabilities_of_all, np.concatenate(times), np.concatenate(courses), rows)
