"""Statistics of the bursts, stretching against numpy's interpolation, the CPU's kernel against tensor operations."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import signal as dsp

from modules.ecg import cpu_kernels
from modules.ecg.augmentation import (
    HIT_PROBABILITY,
    REACH,
    REFERENCE_LENGTH,
    Augmentation,
    burst_starts,
    draw_cutoffs,
    draw_lengths,
    interpolate,
    low_pass,
    low_pass_taps,
    stretched_scale,
    widest,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drop_bursts(signal: torch.Tensor, seed: int, bursts: Any = "code") -> torch.Tensor:
    lengths = torch.full((len(signal),), signal.shape[1])
    return Augmentation(bursts, resample="none")(signal, lengths, generator(seed))[0]


def stretch(signal: torch.Tensor, length: torch.Tensor, new_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    step, stretched = stretched_scale(length, torch.full((len(signal),), new_length), REFERENCE_LENGTH)
    return interpolate(signal, length - 1, step, stretched, int(stretched.max())), stretched


def published_bursts(rows: int, samples: int, seed: int) -> np.ndarray:
    """The authors' rule, sample by sample: True where a sample is kept."""
    noise = np.random.default_rng(seed).normal(size=(rows, samples + 10)) > 2
    zeroed = np.zeros((rows, samples), bool)
    for shift in range(11):
        zeroed |= noise[:, shift : shift + samples]
    return ~zeroed


def test_bursts_zero_what_the_published_rule_zeroes() -> None:
    kept = drop_bursts(torch.ones(400, 9000), 0).numpy()
    reference = published_bursts(400, 9000, 1)
    assert 1 - kept.mean() == pytest.approx(0.224, abs=0.002)
    assert kept.mean() == pytest.approx(reference.mean(), abs=0.002)
    ours, theirs = np.diff(kept, axis=1) < 0, np.diff(reference.astype(int), axis=1) < 0
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.02)


def test_the_ends_of_a_signal_are_like_its_middle() -> None:
    kept = drop_bursts(torch.ones(20000, 30), 2).mean(0)
    assert (kept - (1 - HIT_PROBABILITY) ** 11).abs().max() < 0.015


def test_hits_per_second() -> None:
    starts = burst_starts(200, 9000, 11, generator(), torch.device("cpu"))
    hits = ((starts >= 0) & (starts < 9000)).sum(1).double()
    assert hits.mean() / 30 == pytest.approx(6.8, abs=0.1)
    assert hits.std() == pytest.approx(math.sqrt(9000 * HIT_PROBABILITY * (1 - HIT_PROBABILITY)), rel=0.15)
    assert starts[:, -1].min() > 9000  # enough draws for every signal


@pytest.mark.parametrize(("bursts", "samples"), [("code", 11), ("paper", 15)])
def test_length_of_a_burst(bursts: str, samples: int) -> None:
    """36.7 ms and 50 ms."""
    kept = drop_bursts(torch.ones(50, 3000), 3, bursts)
    for row in kept.numpy():
        edges = np.flatnonzero(np.diff(np.concatenate([[1], row, [1]])))
        runs = np.diff(edges)[::2]
        inner = runs[1:-1]
        assert inner.min() >= samples and (inner == samples).any()


@pytest.mark.parametrize("draw", ["length", "heart_rate"])
def test_lengths_are_uniform_in_what_was_asked(draw: str) -> None:
    lengths = draw_lengths(40000, draw, generator(), torch.device("cpu")).double()
    assert lengths.min() >= 12190 and lengths.max() < 24381
    uniform = lengths if draw == "length" else 80 * REFERENCE_LENGTH / lengths
    low, high = (12190, 24381) if draw == "length" else (60, 120)
    shares = torch.histc((uniform - low) / (high - low), 10, 0, 1) / len(lengths)
    assert (shares - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("new_length", [12190, 15000, 18286, 20001, 24380])
def test_stretching_is_the_published_interpolation(new_length: int) -> None:
    rng = np.random.default_rng(new_length)
    lengths = [2714, 9000, 18286]
    whole = np.zeros((3, REFERENCE_LENGTH), np.float32)
    for row, length in zip(whole, lengths, strict=True):
        row[:length] = rng.normal(size=length).cumsum()
    at = np.linspace(0, REFERENCE_LENGTH - 1, new_length)
    signal, length = stretch(torch.from_numpy(whole), torch.tensor(lengths), new_length)
    assert signal.shape == (3, min(new_length, REFERENCE_LENGTH))
    for row, kept, ours, count in zip(whole, lengths, signal.numpy(), length.tolist(), strict=True):
        expected = np.interp(at, np.arange(REFERENCE_LENGTH), row)[:REFERENCE_LENGTH]
        assert count == min(REFERENCE_LENGTH, np.count_nonzero(at <= kept - 1))
        assert np.abs(ours[:count] - expected[:count]).max() < 1e-4  # of a walk of unit steps, in float32
        assert not ours[count:].any()


@pytest.mark.parametrize("limit", [None, 9000, 5000, 4000, 2500])
def test_the_width_elsewhere_than_on_the_cpu_holds_the_largest_stretch(limit: int | None) -> None:
    """Without a look at the values, which a meta tensor does not have; on the CPU it is exact."""
    length, columns = torch.tensor([4000, 900]), 4000
    _, longest = stretched_scale(length, torch.tensor([24380, 24380]), limit)
    nowhere = torch.empty(2, dtype=torch.int64, device="meta")
    expected = 4000 if limit == 4000 else int(longest.max())
    assert widest(columns, nowhere, limit) == widest(columns, longest, limit) == expected
    _, shorter = stretched_scale(length, torch.tensor([15000, 20000]), limit)
    assert widest(columns, shorter, limit) == (4000 if limit == 4000 else int(shorter.max()))


def test_padding_does_not_change_a_stretched_record() -> None:
    record = torch.randn(1, 5000, generator=generator())
    wide = torch.nn.functional.pad(record, (0, 4000))
    narrow, first = stretch(record, torch.tensor([5000]), 13000)
    padded, second = stretch(wide, torch.tensor([5000]), 13000)
    assert first.equal(second) and narrow.equal(padded) and narrow.shape[1] == int(first)


@pytest.mark.parametrize("bursts", ["code", "paper", "none"])
@pytest.mark.parametrize("resample", ["length", "heart_rate"])
@pytest.mark.parametrize("limit", [REFERENCE_LENGTH, None, 4000, 2500])
@pytest.mark.parametrize("threads", [1, 3])
def test_kernel_and_tensor_operations_agree_bit_for_bit(
    bursts: Any, resample: Any, limit: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    length = torch.tensor([4000, 3999, 3000, 64, 2500])
    signal = 100 * torch.randn(5, 4000, generator=generator(1)).cumsum(1)
    signal[torch.arange(4000) >= length.unsqueeze(1)] = 0
    augment = Augmentation(bursts, resample, limit)
    fast, fast_length = augment(signal.clone(), length, generator(2))
    monkeypatch.setattr(cpu_kernels, "can_take", lambda signal: False)
    plain, plain_length = augment(signal.clone(), length, generator(2))
    assert fast.equal(plain) and fast_length.equal(plain_length)
    assert fast.dtype == torch.float32 and fast.isfinite().all()


def test_a_generator_decides_alone_and_switches_switch() -> None:
    signal, length = torch.randn(3, 4000, generator=generator()), torch.tensor([4000, 3000, 2000])
    augment = Augmentation()
    first, second = augment(signal, length, generator(5)), augment(signal, length, generator(5))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], augment(signal, length, generator(6))[0])
    same, kept = Augmentation(bursts="none", resample="none")(signal, length, generator())
    assert same.equal(signal) and kept.equal(length)
    with pytest.raises(ValueError, match="bursts must be"):
        Augmentation(bursts="often")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="resample must be"):
        Augmentation(resample="often")  # type: ignore[arg-type]


@pytest.mark.parametrize("cutoff", [50.0, 62.5, 77.0, 100.0, 125.0, 149.9])
def test_the_low_pass_is_the_filter_of_scipys_resampling(cutoff: float) -> None:
    half = int(10 * 150 / cutoff)
    expected = dsp.firwin(2 * half + 1, cutoff, window=("kaiser", 5.0), fs=300)
    [taps] = low_pass_taps(torch.tensor([cutoff], dtype=torch.float64)).numpy()
    assert taps.shape == (REACH + 1,) == (31,)
    assert np.abs(taps[: half + 1] - expected[half:]).max() < 1e-12 and not taps[half + 1 :].any()


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threads", [1, 3])
def test_low_passed_records(kernel: bool, dtype: torch.dtype, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy's convolution of each record alone; short records come after long ones."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if not kernel:
        monkeypatch.setattr(cpu_kernels, "can_take", lambda signal: False)
    length = torch.tensor([900, 899, 3, 500])
    signal = 100 * torch.randn(4, 900, generator=generator(1), dtype=dtype)
    signal[torch.arange(900) >= length.unsqueeze(1)] = 0
    cutoff = torch.tensor([50.0, 62.5, 90.0, 150.0], dtype=torch.float64)
    given = signal.clone()
    filtered = low_pass(signal, length, cutoff)
    assert filtered.dtype == dtype and signal.equal(given)
    for row, record, size, frequency in zip(filtered, signal, length.tolist(), cutoff.tolist(), strict=True):
        taps = [1.0]
        if frequency < 150:
            taps = dsp.firwin(2 * int(1500 / frequency) + 1, frequency, window=("kaiser", 5.0), fs=300)
        reach = len(taps) // 2
        expected = np.convolve(record[:size].double().numpy(), taps)[reach : reach + size]
        assert np.abs(row[:size].double().numpy() - expected).max() < (1e-4 if dtype == torch.float32 else 1e-11)
        assert not row[size:].any()
    assert filtered[3].equal(signal[3])


def test_the_kernel_takes_any_symmetric_filter() -> None:
    taps, signal = torch.rand(1, 31, generator=generator(), dtype=torch.float64), torch.randn(1, 200).double()
    whole = np.concatenate([taps[0].numpy()[:0:-1], taps[0].numpy()])
    expected = np.convolve(signal[0].numpy(), whole)[30:230]
    assert np.abs(cpu_kernels.low_pass(signal, torch.tensor([200]), taps)[0].numpy() - expected).max() < 1e-11


@pytest.mark.parametrize("kernel", [True, False])
def test_bursts_come_before_the_stretching(kernel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernel:
        monkeypatch.setattr(cpu_kernels, "can_take", lambda signal: False)
    signal, length = torch.ones(20, 9000), torch.full((20,), 9000)
    stretched, lengths = Augmentation("code", "length", limit=None)(signal, length, generator(1))
    is_inside = torch.arange(stretched.shape[1]) < lengths.unsqueeze(1)
    assert float((stretched[is_inside] == 0).float().mean()) == pytest.approx(0.205, abs=0.025)
    whole, lengths = Augmentation("none", "length", limit=None)(signal, length, generator(1))
    assert whole.equal((torch.arange(whole.shape[1]) < lengths.unsqueeze(1)).float())


def test_a_low_pass_leaves_what_a_recording_of_lower_rate_leaves() -> None:
    noise = np.random.default_rng(0).normal(size=30000)
    recorded = dsp.resample_poly(dsp.resample_poly(noise, 5, 12), 12, 5)  # 125 Hz, and read back
    ours = low_pass(torch.from_numpy(noise)[None], torch.tensor([30000]), torch.tensor([62.5]).double())[0].numpy()
    frequency, theirs = dsp.welch(recorded, 300, nperseg=512)
    _, power = dsp.welch(ours, 300, nperseg=512)
    decibels, difference = 10 * np.log10(power), 10 * np.log10(power / theirs)
    assert np.abs(difference[(frequency > 1) & (frequency < 55)]).max() < 0.2
    assert decibels[frequency > 72].max() < decibels[frequency < 55].mean() - 40


def test_cutoffs_are_uniform_for_a_share_of_the_records() -> None:
    cutoff = draw_cutoffs(40000, 0.3, generator(), torch.device("cpu"))
    drawn = cutoff[cutoff < 150]
    assert len(drawn) / len(cutoff) == pytest.approx(0.3, abs=0.01) and bool((cutoff <= 150).all())
    shares = torch.histc((drawn - 50) / 100, 10, 0, 1) / len(drawn)
    assert (shares - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("resample", ["length", "none"])
def test_augmentation_ends_with_the_low_pass(resample: Any) -> None:
    """After the stretching, with random numbers of its own: the rest is as without."""
    signal, length = torch.randn(6, 4000, generator=generator()), torch.tensor([4000, 3000, 2000, 4000, 1000, 64])
    plain, stretched = Augmentation(resample=resample)(signal, length, generator(5))
    cut, same = Augmentation(resample=resample, low_pass=0.5)(signal, length, generator(5))
    assert same.equal(stretched) and cut.shape == plain.shape
    is_cut = torch.tensor([not a.equal(b) for a, b in zip(plain, cut, strict=True)])
    assert is_cut.any() and not is_cut.all()
    every = Augmentation(resample=resample, low_pass=1.0)(signal, length, generator(5))[0]
    assert not any(a.equal(b) for a, b in zip(plain, every, strict=True))
    assert (plain - every).std() > 0.1 * plain.std()
    with pytest.raises(ValueError, match="low_pass must be 0 to 1, got 50"):
        Augmentation(low_pass=50)
