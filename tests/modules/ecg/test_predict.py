"""Any file in, class and course out; and one line for each file that cannot be used."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.ecg import inference, predict, recordings
from modules.ecg.inference import load_classifier, majority, predict_recording
from modules.ecg.module import ECG
from modules.ecg.nets import CNN
from modules.ecg.recordings import Recording, implausible_range, open_recording
from modules.ecg.units import unit_in
from modules.ecg.windows import flat_share, read_window, resample, window_edges
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
    words += ["--units-per-mv", "1000"]
    assert predict.main([*words, "--output", str(tmp_path / "out"), "--no-picture"]) == 1
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


def test_what_exists_is_kept(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    """No input is ever overwritten, no result without --force, and no result by that of another record."""
    text = "mv\n" + "".join(f"{value / 1000}\n" for value in beats(5, 1, False))
    for name in ("a.csv", "b.csv", "below/b.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    common = ["--checkpoint", str(checkpoint), "--sampling-rate", "300", "--no-picture", "--output"]

    def refused(files: list[str], output: Path, *more: str) -> str:
        assert predict.main([*(str(tmp_path / name) for name in files), *common, str(output), *more]) == 1
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        return printed

    assert "a.csv would overwrite an input" in refused(["a.csv"], tmp_path, "--force")
    (tmp_path / "linked").symlink_to(tmp_path)
    assert "would overwrite an input" in refused(["a.csv"], tmp_path / "linked", "--force")
    assert (tmp_path / "a.csv").read_text() == text and not (tmp_path / "a.json").exists()

    out = tmp_path / "out"
    assert "below/b.csv: another input already becomes" in refused(["b.csv", "below/b.csv"], out)
    (out / "b.json").unlink()
    before = (out / "b.csv").read_text()
    (out / "b.csv").write_text("mine")
    assert "b.csv exists; --force overwrites it" in refused(["b.csv"], out)
    assert (out / "b.csv").read_text() == "mine"
    assert predict.main([str(tmp_path / "b.csv"), *common, str(out), "--force"]) == 0
    assert (out / "b.csv").read_text() == before
    (out / "a.json").mkdir()
    assert "not a regular file" in refused(["a.csv"], out, "--force")
    (out / "b.png").write_text("a picture of mine")
    for name in ("b.json", "b.csv"):
        (out / name).unlink()
    assert predict.main([str(tmp_path / "b.csv"), *common, str(out)]) == 0  # --no-picture does not touch it


@pytest.mark.parametrize("below", [".", "results/of/today"])
def test_an_output_that_is_no_folder(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    assert predict.main(["x", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "file" / below)]) == 2
    assert capsys.readouterr().err.endswith("file is no folder\n")


def test_folders_that_cannot_be_written_to(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_record(tmp_path, "x", beats(5, 1, False))
    words = [str(tmp_path / "x"), "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out")]
    monkeypatch.setattr(predict.os, "access", lambda path, mode: Path(path) != tmp_path)
    assert predict.main(words) == 2
    assert capsys.readouterr().err.endswith(f"the folder {tmp_path} is read-only\n")
    monkeypatch.undo()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "x.png")

    monkeypatch.setattr(predict, "save_picture", full)
    assert predict.main(words) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device: 'x.png'\n"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hyper_parameters": "x"}, "is no checkpoint of an ECG classifier"),
        ({"state_dict": [1]}, "is no checkpoint of an ECG classifier"),
        ({"state_dict": {1: torch.zeros(1)}}, "is no checkpoint of an ECG classifier"),
        ({"state_dict": {"network.classifier.bias": 1}}, "is no checkpoint of an ECG classifier"),
        ({"state_dict": {}}, "the weights do not fit its network"),
        ({"init_args": [1]}, "its network cannot be built"),
        ({"init_args": {"width": 0}}, "its network cannot be built"),
        ({"init_args": {**NETWORK, "num_classes": 3}}, "its network tells 3 classes apart, not N, A, O, ~"),
        ({"nan": True}, "its weights hold NaN or infinity"),
    ],
)
def test_checkpoints_that_do_not_serve(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture, change: dict, message: str
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    if "init_args" in change:
        content["hyper_parameters"]["network"] |= change
    elif "nan" in change:
        content["state_dict"]["network.classifier.bias"][0] = torch.nan
    else:
        content |= change
    torch.save(content, tmp_path / "odd.ckpt")
    assert predict.main(["x", "--checkpoint", str(tmp_path / "odd.ckpt")]) == 2
    printed = capsys.readouterr().err
    assert message in printed and "odd.ckpt" in printed and printed.count("\n") == 1


@pytest.fixture
def in_files(tmp_path: Path) -> np.ndarray:
    """Twelve seconds in mV, beside them files that hold these and a count of samples."""
    signal = beats(12, 1, irregular=True) / 1000
    np.save(tmp_path / "array.npy", signal)
    np.save(tmp_path / "time.npy", np.stack([np.arange(3600) / 300, signal]))
    np.savetxt(tmp_path / "bare.csv", signal)
    for name, header in (("named", "t,ecg (mV)"), ("micro", "t,ecg_uV"), ("rows", "'Elapsed','ECG'\n's','mV'")):
        scale = 1000 if name == "micro" else 1
        lines = [f"{number / 300:.4f},{value * scale:.4f}" for number, value in enumerate(signal)]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *lines]))
    write_record(tmp_path, "bare", beats(12, 1, irregular=True), gain="0")
    return signal


@pytest.mark.parametrize(
    ("file", "units", "message"),
    [
        ("array.npy", None, "nothing says the unit of its numbers: add --units-per-mv"),
        ("bare.csv", None, "nothing says the unit of its numbers: add --units-per-mv"),
        ("bare", None, "gives signal 0 no gain: add --units-per-mv"),
        ("micro.csv", 1.0, "its header says 1000 units per mV and --units-per-mv 1:"),
    ],
)
def test_units_are_asked_for(
    tmp_path: Path, in_files: np.ndarray, file: str, units: float | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        open_recording(tmp_path / file, int(file == "micro.csv"), 300.0, units)


@pytest.mark.parametrize(
    ("file", "channel", "units"),
    [
        ("array.npy", 0, 1.0),
        ("time.npy", 1, 1.0),
        ("bare.csv", 0, 1.0),
        ("named.csv", 1, None),
        ("named.csv", 1, 1.0),
        ("micro.csv", 1, None),
        ("micro.csv", 1, 1000.0),
        ("rows.csv", 1, None),
        ("bare", 0, 1000.0),
    ],
)
def test_units_once_said(tmp_path: Path, in_files: np.ndarray, file: str, channel: int, units: float | None) -> None:
    opened = open_recording(tmp_path / file, channel, 300.0, units)
    assert opened.num_samples == 3600
    assert np.abs(opened.read(0, 3600) - 1000 * in_files).max() < 0.1
    assert implausible_range(opened) is None


@pytest.mark.parametrize(("file", "units"), [("time.npy", 1.0), ("named.csv", None), ("named.csv", 1.0)])
def test_time_is_no_ecg(tmp_path: Path, in_files: np.ndarray, file: str, units: float | None) -> None:
    with pytest.raises(
        ValueError, match=r"only rises or only falls.*--channel" if units else "nothing says|only rises"
    ):
        open_recording(tmp_path / file, 0, 300.0, units)


@pytest.mark.parametrize("kind", ["falls", "long", "gaps", "anew", "wfdb"])
def test_time_is_refused_wherever_it_stands(tmp_path: Path, kind: str) -> None:
    count = np.arange(90 * 300 if kind == "long" else 900).astype(float)
    if kind == "long":
        count[4000:4400] = 0  # between the stretches that are looked at
    if kind == "anew":
        count %= 60
    if kind == "gaps":
        count[::7] = np.nan
    if kind == "wfdb":
        write_record(tmp_path, "x", count)
    np.save(tmp_path / "x.npy", -count if kind == "falls" else count)
    with pytest.raises(ValueError, match="only rises or only falls"):
        open_recording(tmp_path / ("x" if kind == "wfdb" else "x.npy"), 0, 300.0, 1.0)


def test_a_flat_line_with_an_edge_is_not_time(tmp_path: Path) -> None:
    edge = np.r_[np.zeros(450), np.ones(450)]
    np.save(tmp_path / "edge.npy", edge)
    assert open_recording(tmp_path / "edge.npy", 0, 300.0, 1.0).num_samples == 900
    edge[450:459] = np.arange(9) / 10  # nine steps
    np.save(tmp_path / "edge.npy", edge)
    assert open_recording(tmp_path / "edge.npy", 0, 300.0, 1.0).num_samples == 900
    np.save(tmp_path / "edge.npy", np.r_[edge, 2.0])
    with pytest.raises(ValueError, match="only rises"):
        open_recording(tmp_path / "edge.npy", 0, 300.0, 1.0)


@pytest.mark.parametrize(("height", "is_odd"), [(0.049, True), (0.051, False), (19.9, False), (20.1, True)])
def test_odd_heights_are_told(height: float, is_odd: bool) -> None:
    wave = np.where(np.arange(90 * 300) % 2, 500 * height, -500 * height)
    wave[::300] *= 1000  # spikes do not count
    told = implausible_range(recording(wave))
    assert (told is not None) == is_odd
    assert told is None or ("check its units" in told and f"{height:.3g} mV" in told)
    assert "0 mV" in str(implausible_range(recording(np.full(900, np.nan))))


def test_a_factor_of_1000_is_a_warning(tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "mv.npy", beats(5, 1, False) / 1000)
    words = [
        str(tmp_path / "mv.npy"),
        "--checkpoint",
        str(checkpoint),
        "--no-picture",
        "--force",
        "--output",
        str(tmp_path),
    ]
    for units, is_warned in (("1000", True), ("1", False)):
        assert predict.main([*words, "--sampling-rate", "300", "--units-per-mv", units]) == 0
        assert ("check its units" in capsys.readouterr().out) == is_warned
        [*warnings] = json.loads((tmp_path / "mv.json").read_text())["warnings"]
        assert any("check its units" in text for text in warnings) == is_warned


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["ECG (mV)"], 1.0),
        (["mv"], 1.0),
        (["ii_MV"], 1.0),
        (["millivolts"], 1.0),
        (["II [uV]"], 1000.0),
        (["\u00b5V"], 1000.0),
        (["\u03bcV"], 1000.0),
        (["Microvolt"], 1000.0),
        (["ECG microV"], 1000.0),
        (["lead (V)"], 0.001),
        (["'volts'"], 0.001),
        (["V"], None),
        (["V1"], None),
        (["improve"], None),
        (["mvalue"], None),
        (["ECG", "mV"], 1.0),
        ([], None),
    ],
)
def test_units_in_headers(header: list[str], expected: float | None) -> None:
    assert unit_in(header) == expected


def test_a_header_has_two_lines_at_most(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("ecg\nmV\nmV\n" + "1\n2\n" * 900)
    with pytest.raises(ValueError, match="'mV' is no number"):
        open_recording(tmp_path / "x.csv", 0, 300.0, None)


def test_two_units_are_refused() -> None:
    with pytest.raises(ValueError, match="names two units"):
        unit_in(["ECG (uV)", "mV"])


def test_windows_are_equal_and_cover_all() -> None:
    edges = window_edges(recording(np.zeros(150 * 300)), 60)
    assert edges == [(0, 15000), (15000, 30000), (30000, 45000)]
    assert window_edges(recording(np.zeros(60 * 300)), 60) == [(0, 18000)]


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


def test_a_byte_order_mark_is_no_header(tmp_path: Path) -> None:
    values = np.round(np.random.default_rng(0).normal(size=900), 3)
    for name, header in (("bare", ""), ("named", "mv\n")):
        (tmp_path / f"{name}.csv").write_text(header + "\n".join(map(str, values)), encoding="utf-8-sig")
        opened = open_recording(tmp_path / f"{name}.csv", 0, 300.0, 1.0)
        assert opened.num_samples == 900 and opened.read(0, 1) == pytest.approx(1000 * values[0])


def test_endings_in_large_letters(tmp_path: Path, in_files: np.ndarray) -> None:
    for old, new in (("bare.csv", "X.CSV"), ("array.npy", "Y.Npy")):
        (tmp_path / old).rename(tmp_path / new)
        assert np.abs(open_recording(tmp_path / new, 0, 300.0, 1.0).read(0, 3600) - 1000 * in_files).max() < 0.1


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_that_is_not_utf_8(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "x.csv").write_text("ECG (\u00b5V)\n" + "1\n2\n" * 900, encoding=encoding)
    with pytest.raises(ValueError, match=r"x\.csv cannot be read: it is no text in UTF-8: save it again"):
        open_recording(tmp_path / "x.csv", 0, 300.0, None)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("ECG (mV)", "{value}"),
        ("t;ECG (mV)", "{time};{value}"),
        ("t\tECG (mV)", "{index}\t{value}"),
        ("t,ECG (mV)", "{index},{value}"),
        ("t,ECG (mV)", "{time},{value}"),
        ("", "{value}"),
        ("", "{time};{value}"),
    ],
)
def test_decimal_commas_are_refused(tmp_path: Path, header: str, line: str) -> None:
    values = np.random.default_rng(0).normal(size=900)
    values[1::3] = np.round(values[1::3])
    rows = [
        line.format(index=n, time=f"{n / 300:.3f}".replace(".", ","), value=f"{value:.4g}".replace(".", ","))
        for n, value in enumerate(values)
    ]
    (tmp_path / "x.csv").write_text("\n".join([header, *rows] if header else rows))
    with pytest.raises(ValueError, match="decimal commas: write points instead"):
        open_recording(tmp_path / "x.csv", 0, 300.0, 1.0)


def test_commas_between_numbers_are_not_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole, real = rng.integers(-900, 900, (900, 2)), rng.normal(size=(900, 2))
    for name, header, values, template in (
        ("integers", "", whole, "{},{}"),
        ("named", "a,b", whole, "{},{}"),
        ("ends", "a,b", whole, "{},{},"),
        ("points", "", real, "{},{}"),
        ("padded", "", abs(whole), "{:05d},{}"),
        ("semicolons", "a;b", real, "{};{}"),
        ("tabs", "", whole, "{}\t{}"),
    ):
        rows = [template.format(*row) for row in values.tolist()]
        (tmp_path / f"{name}.csv").write_text("\n".join([header, *rows] if header else rows))
        read = open_recording(tmp_path / f"{name}.csv", 1, 300.0, 1.0).read(0, 900)
        assert np.allclose(read, 1000 * values[:, 1], atol=0.01), name


def test_lines_of_unequal_width(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("ECG (mV)\n" + "0.5,1\n0.25,2\n" * 900)
    with pytest.raises(ValueError, match="more fields than its header, which has 1: name every column"):
        open_recording(tmp_path / "x.csv", 0, 300.0, None)
    (tmp_path / "x.csv").write_text("1,2\n,\n" * 900)
    assert open_recording(tmp_path / "x.csv", 1, 300.0, 1.0).num_samples == 1800
    (tmp_path / "x.csv").write_text("ECG (mV)\n" + "0.5\n0.25,artefact\n" * 900)
    assert open_recording(tmp_path / "x.csv", 0, 300.0, None).num_samples == 1800


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


@pytest.mark.parametrize("kind", ["missing", "flat"])
@pytest.mark.parametrize(("share", "is_used"), [(0.45, True), (0.55, False)])
def test_a_window_that_is_half_unusable_is_not_classified(
    checkpoint: Path, kind: str, share: float, is_used: bool
) -> None:
    signal = beats(20, 1, irregular=False).astype(np.float32)
    signal[: int(share * len(signal))] = np.nan if kind == "missing" else 3.0
    prediction = predict_recording([load_classifier(checkpoint)], recording(signal), 60)
    assert (prediction.label is not None) == is_used


def test_windows_vote_and_the_probabilities_are_means(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows that say N by a little win over one that is sure of A; one each, and the surer one wins."""
    rows = [[0.4, 0.3, 0.2, 0.1], [0.0, 1.0, 0.0, 0.0], [0.4, 0.3, 0.2, 0.1]]
    for count, label in ((3, "N"), (2, "A")):
        answers = iter(torch.tensor(rows[:count]))

        def classify(modules: object, window: object, answers: object = answers) -> tuple:
            probabilities = next(answers)  # type: ignore[call-overload]
            return probabilities.argmax(), probabilities, probabilities.expand(5, 4)

        monkeypatch.setattr(inference, "classify", classify)
        long = recording(beats(60 * count, 1, irregular=True).astype(float))
        prediction = predict_recording([load_classifier(checkpoint)], long, 60)
        assert prediction.label == label
        assert prediction.probabilities == pytest.approx(np.mean(rows[:count], axis=0))
        steps = (np.arange(5) + 0.5) * 12
        assert prediction.times == pytest.approx(np.concatenate([60 * window + steps for window in range(count)]))


def test_a_network_that_needs_its_padding_gets_it(tmp_path: Path) -> None:
    """As trained ``as_code``: every record padded to 18286 samples, whole-number spectrograms."""
    torch.manual_seed(0)
    settings = {**NETWORK, "mask_padding": False}
    module = ECG(CNN(**settings), truncate_spectrogram=True)  # type: ignore[arg-type]
    network = {"class_path": "modules.ecg.nets.CNN", "init_args": settings}
    hyper_parameters = {"network": network, "truncate_spectrogram": True}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": hyper_parameters}, tmp_path / "best.ckpt")
    signal = beats(20, 1, irregular=False).astype(np.float32)
    prediction = predict_recording([load_classifier(tmp_path / "best.ckpt")], recording(signal), 60)
    padded = torch.zeros(1, 18286)
    padded[0, :6000] = torch.from_numpy(signal)
    expected = module.eval()(padded, torch.tensor([6000])).logits.softmax(1)[0]
    assert prediction.probabilities == pytest.approx(expected.detach().numpy(), abs=1e-5)


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


@pytest.mark.parametrize("rate", [0.9, 100001, 700000])
def test_rates_beyond_resampling_are_refused(tmp_path: Path, rate: float) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=900))
    with pytest.raises(ValueError, match=rf"x\.npy has a sampling rate of {rate:g} Hz; supported are 1 Hz to 100 kHz"):
        open_recording(tmp_path / "x.npy", 0, rate, 1.0)


@pytest.mark.parametrize("rate", [recordings.MIN_RATE, recordings.MAX_RATE, recordings.MAX_RATE - 1])
def test_the_slowest_and_the_fastest_rate(rate: float) -> None:
    count = max(4, int(3 * rate))
    window = read_window(recording(np.ones(count), rate), 0, count)
    assert len(window.signal) == round(count * 300 / rate)


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
    for unit, scale in (("mv", 1), ("microV", 0.001), ("\u00b5V", 0.001), ("\u03bcV", 0.001), ("V", 1000)):
        write_record(tmp_path, "b", signal, gain=f"1000/{unit}")
        assert np.allclose(open_recording(tmp_path / "b", 0, None, None).read(100, 200), float(scale) * signal[100:200])
    (tmp_path / "c.hea").write_text("c/2 1 300 1800\na 900\nb 900\n")
    with pytest.raises(ValueError, match="consists of segments"):
        open_recording(tmp_path / "c", 0, None, 1.0)
