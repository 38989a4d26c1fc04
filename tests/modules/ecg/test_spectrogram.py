"""The batched log-spectrogram against scipy's."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import scipy.signal
import torch

from modules.ecg import spectrogram
from modules.ecg.spectrogram import FACTOR, TAPER, LogSpectrogram, num_frames, tukey
from tests.modules.ecg.wfdb_files import beats

density = partial(spectrogram.density, window=TAPER, factor=FACTOR)
log_density = partial(spectrogram.log_density, window=TAPER, factor=FACTOR)


def reference(signal: np.ndarray) -> np.ndarray:
    """[T] -> density [L, F]."""
    return scipy.signal.spectrogram(signal, fs=300, nperseg=64, noverlap=32)[2].T


def test_window_is_scipys() -> None:
    assert np.allclose(tukey(64, 0.25), scipy.signal.get_window(("tukey", 0.25), 64), atol=1e-15)


@pytest.mark.parametrize("transform", [LogSpectrogram(), log_density])
@pytest.mark.parametrize("samples", [64, 95, 96, 600, 3104, 3136, 9000, 9011])
def test_equals_scipy(samples: int, transform: Callable) -> None:
    signals = np.stack([beats(40, seed, irregular=True)[:samples].astype(float) for seed in range(3)])
    ours = transform(torch.from_numpy(signals)).numpy()
    theirs = np.log(np.stack([reference(signal) for signal in signals]))
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 1e-10


def test_weak_bins_of_a_float32_signal_are_exact_on_the_cpu() -> None:
    walks = torch.randn(4, 9000, generator=torch.Generator().manual_seed(0)).cumsum(1) * 10
    theirs = np.log(np.stack([reference(walk) for walk in walks.double().numpy()]))
    assert np.abs(LogSpectrogram()(walks).numpy() - theirs).max() < 5e-6
    assert np.abs(log_density(walks).numpy() - theirs).max() > 1e-4  # why the kernel computes in float64


def test_threads_share_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    signals = torch.randn(5, 2000, generator=torch.Generator().manual_seed(0))
    results = []
    for threads in (1, 2, 8):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(LogSpectrogram()(signals))
    assert results[0].equal(results[1]) and results[0].equal(results[2])
    assert torch.cat([LogSpectrogram()(signal[None]) for signal in signals]).equal(results[0])


def test_views_autocast_and_gradients() -> None:
    signals = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    expected = LogSpectrogram()(signals)
    assert LogSpectrogram()(signals.t().contiguous().t()).equal(expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert LogSpectrogram()(signals).equal(expected)
    learned = signals.clone().requires_grad_()
    differentiable = LogSpectrogram()(learned)
    differentiable.sum().backward()
    assert learned.grad is not None and learned.grad.isfinite().all()
    assert (differentiable.exp() - expected.exp()).abs().max() < 1e-5 * expected.exp().max()


def test_float32_is_as_close_as_its_digits_allow() -> None:
    signal = beats(30, 1, irregular=False).astype(np.float32)
    ours = density(torch.from_numpy(signal).unsqueeze(0))[0].numpy()
    theirs = reference(signal.astype(np.float64))
    assert np.abs(ours - theirs).max() < 1e-5 * theirs.max()
    assert np.median(np.abs(ours / theirs - 1)) < 1e-5


@pytest.mark.parametrize("transform", [LogSpectrogram(), log_density])
def test_zero_density_stays_zero(transform: Callable) -> None:
    signal = torch.zeros(2, 400)
    signal[0, :200] = torch.from_numpy(beats(1, 1, False)[:200].astype(np.float32))
    signal[1] = 517.0
    result = transform(signal)
    assert result[0, :6].ne(0).all()
    assert not result[0, 7:].any() and not result[1].any()


def test_truncation_is_toward_zero() -> None:
    signal = torch.from_numpy(beats(5, 2, True).astype(np.float32)).unsqueeze(0) / 50
    exact, whole = LogSpectrogram()(signal), LogSpectrogram(truncate=True)(signal)
    assert torch.equal(whole, torch.from_numpy(exact.numpy().astype(np.int16).astype(np.float32)))
    assert exact.min() < -1 and not whole[(exact.abs() < 1)].any()


def test_frames_of_a_record() -> None:
    lengths = [1, 63, 64, 95, 96, 2714, 18286]
    expected = [1, 1] + [reference(np.random.default_rng(n).normal(size=n)).shape[0] for n in lengths[2:]]
    assert num_frames(torch.tensor(lengths)).tolist() == expected
    assert LogSpectrogram()(torch.ones(1, 30)).shape == (1, 1, 33)
