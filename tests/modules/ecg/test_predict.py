"""Any file in, class and course out; and one line for each file that cannot be used."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.ecg import predict, recordings
from modules.ecg.inference import load_classifier, majority, predict_recording
from modules.ecg.module import ECG
from modules.ecg.nets import CNN
from modules.ecg.recordings import Recording, flat_share, open_recording, read_window, resample
from tests.modules.ecg.wfdb_files import beats, write_record

NETWORK = {"num_blocks": 3, "layers_per_block": 1, "width": 2}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    module = ECG(CNN(**NETWORK))  # type: ignore[arg-type]
    settings = {"network": {"class_path": "modules.ecg.nets.CNN", "init_args": NETWORK}, "truncate_spectrogram": False}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": settings}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def recording(samples: np.ndarray, rate: float = 300.0) -> Recording:
    return Recording("x", rate, len(samples), lambda a, b: samples[a:b].astype(np.float32))


def test_formats_give_the_same_result(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    signal = beats(12, 1, irregular=True)
    write_record(tmp_path, "wfdb", signal)
    np.save(tmp_path / "array.npy", np.stack([signal, signal]).astype(np.float64) / 1000)
    (tmp_path / "text.csv").write_text("time,mv\n" + "".join(f"{i},{value / 1000}\n" for i, value in enumerate(signal)))
    out = tmp_path / "out"
    common = ["--checkpoint", str(checkpoint), "--output", str(out), "--sampling-rate", "300", "--units-per-mv", "1"]
    assert predict.main([str(tmp_path / "wfdb"), str(tmp_path / "array.npy"), *common]) == 0
    assert predict.main([str(tmp_path / "text.csv"), "--channel", "1", "--no-picture", *common]) == 0
    results = [json.loads((out / f"{name}.json").read_text()) for name in ("wfdb", "array", "text")]
    for result in results:
        assert result["seconds"] == pytest.approx(12)
        assert result["probabilities"] == pytest.approx(results[0]["probabilities"], abs=1e-4)
        assert sum(result["probabilities"].values()) == pytest.approx(1)
        assert max(result["probabilities"], key=result["probabilities"].get) == result["class"]
    rows = np.genfromtxt(out / "wfdb.csv", delimiter=",", skip_header=1)
    assert np.allclose(rows[:, 1:].sum(1), 1, atol=1e-4) and rows[-1, 0] < 12
    assert (out / "wfdb.png").stat().st_size > 10000 and not (out / "text.png").exists()
    assert "wfdb: " in capsys.readouterr().out


def test_one_line_for_each_file_that_cannot_be_used(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture
) -> None:
    write_record(tmp_path, "good", beats(5, 1, False))
    write_record(tmp_path, "cut", beats(5, 1, False), keep=0.5)
    write_record(tmp_path, "short", beats(1.9, 1, False))
    (tmp_path / "words.csv").write_text("one\ntwo\nthree\n")
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    files = ["absent", "cut", "short", "words.csv", "object.npy", "good"]
    words = [*(str(tmp_path / name) for name in files), "--checkpoint", str(checkpoint), "--sampling-rate", "300"]
    assert predict.main([*words, "--output", str(tmp_path), "--no-picture"]) == 1
    printed = capsys.readouterr()
    lines = printed.err.strip().splitlines()
    assert len(lines) == 5 and all(line.startswith("error: ") for line in lines)
    for line, text in zip(
        lines, ("no WFDB record", "cannot be read", "1.90 s", "is no number", "Python objects"), strict=True
    ):
        assert text in line
    assert printed.out.startswith("good: ")
    assert predict.main([str(tmp_path / "words.csv"), "--checkpoint", str(checkpoint)]) == 1
    assert "needs --sampling-rate" in capsys.readouterr().err


def test_only_our_checkpoints_are_read(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.ckpt")
    foreign = {"network": {"class_path": "os.system", "init_args": {"command": "true"}}}
    torch.save({"state_dict": {}, "hyper_parameters": foreign}, tmp_path / "foreign.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    for name, text in (("evil", "safely"), ("foreign", "os.system"), ("text", "safely"), ("absent", "no checkpoint")):
        assert predict.main(["x", "--checkpoint", str(tmp_path / f"{name}.ckpt")]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "touched").exists()


def test_loading_a_classifier_warns_of_nothing_and_keeps_its_outputs(checkpoint: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = load_classifier(checkpoint)
    signal, length = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0)), torch.tensor([3000, 2000])
    module = ECG(CNN(**NETWORK)).eval()  # type: ignore[arg-type]
    module.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    assert torch.equal(classifier(signal, length).logits, module(signal, length).logits)


def test_an_empty_line_is_a_missing_sample(tmp_path: Path) -> None:
    (tmp_path / "gaps.csv").write_text("mv\n" + "1\n\n2\nnan\n" * 300 + "\n\n")
    gaps = open_recording(tmp_path / "gaps.csv", 0, 300.0, 1.0)
    assert gaps.num_samples == 1200  # the empty lines at the end are none
    assert np.array_equal(gaps.read(0, 5), [1000, np.nan, 2000, np.nan, 1000], equal_nan=True)


def test_a_csv_longer_than_any_recording_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recordings, "MAX_SECONDS", 3.0)
    (tmp_path / "long.csv").write_text("0.5\n" * 500 + "no number\n")
    with pytest.raises(ValueError, match=r"lasts 4\.0. s; supported"):
        open_recording(tmp_path / "long.csv", 0, 100.0, 1.0)


def test_flat_and_missing_stretches_are_reported(checkpoint: Path) -> None:
    modules = [load_classifier(checkpoint)]
    signal = beats(180, 1, irregular=False).astype(np.float32)
    signal[60 * 300 : 120 * 300] = 5.0
    signal[130 * 300 : 136 * 300] = np.nan
    prediction = predict_recording(modules, recording(signal), 60)
    flat = [window["flat"] for window in prediction.windows]
    assert flat == pytest.approx([0, 1, 0], abs=1e-3)
    assert [window["missing"] for window in prediction.windows] == pytest.approx([0, 0, 0.1])
    assert prediction.windows[1]["label"] is None and prediction.label is not None
    inside = (prediction.times > 60) & (prediction.times < 120)
    assert np.isnan(prediction.over_time[inside]).all() and np.isfinite(prediction.over_time[~inside]).all()
    nothing = predict_recording(modules, recording(np.zeros(900)), 60)
    assert nothing.label is None and nothing.probabilities is None
    assert flat_share(np.r_[np.zeros(150), np.arange(150)], 300) == pytest.approx(0.5, abs=0.01)


def test_long_recordings_are_read_a_window_at_a_time(checkpoint: Path) -> None:
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return np.random.default_rng(start).normal(0, 100, stop - start).astype(np.float32)

    day = Recording("day", 100.0, 100 * 3600, read)
    prediction = predict_recording([load_classifier(checkpoint)], day, 60)
    assert len(prediction.windows) == 60
    assert max(stop - start for start, stop in asked) == 62 * 100  # a minute and a second on either side
    assert np.all(np.diff(prediction.times) > 0) and prediction.times[-1] < 3600
    mean = np.mean([window["probabilities"] for window in prediction.windows], axis=0)
    assert prediction.probabilities == pytest.approx(mean)


@pytest.mark.parametrize("rate", [100.0, 250.0, 360.0, 500.0, 1000.0, 128.0])
def test_resampling_keeps_a_slow_wave(rate: float) -> None:
    wave = np.sin(2 * np.pi * 5 * np.arange(int(20 * rate)) / rate).astype(np.float32)
    window = read_window(recording(wave, rate), int(8 * rate), int(12 * rate))
    expected = np.sin(2 * np.pi * 5 * (8 + np.arange(1200) / 300))
    assert window.signal.shape == (1200,)
    assert np.abs(window.signal - expected).max() < 0.01
    assert resample(wave, 300.0) is wave


def test_votes() -> None:
    probabilities = torch.tensor([[[0.6, 0.4, 0.0]], [[0.1, 0.9, 0.0]], [[0.6, 0.4, 0.0]]])
    assert majority(probabilities.argmax(2), probabilities).tolist() == [0]  # though the mean says 1
    assert majority(probabilities[:2].argmax(2), probabilities[:2]).tolist() == [1]  # one all: the mean decides


def test_units_of_a_wfdb_record(tmp_path: Path) -> None:
    signal = beats(3, 1, False)
    write_record(tmp_path, "a", signal)
    opened = open_recording(tmp_path / "a.hea", 0, None, 1000.0)
    assert opened.sampling_rate == 300 and opened.num_samples == 900
    assert np.allclose(opened.read(100, 200), signal[100:200], atol=1e-3)
    with pytest.raises(ValueError, match="channel 1 of 1"):
        open_recording(tmp_path / "a", 1, None, 1000.0)
