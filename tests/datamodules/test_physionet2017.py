"""The challenge's files as batches: what is packed, skipped, refused, split, bucketed and resumed."""

import json
import logging
import os
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.physionet2017 import PhysioNet2017, read_labels, read_split
from datamodules.signals import cache as ecg_cache
from datamodules.signals.batches import BucketSampler, Records, repeats
from datamodules.signals.cache import Cache, open_cache
from modules.ecg.recordings import open_recording
from tests.modules.ecg.wfdb_files import beats, write_record, write_set

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("set"))


def module(root: Path, stage: str = "fit", **options: object) -> PhysioNet2017:
    data = PhysioNet2017(root=str(root), **{"batch_size": 4, "num_folds": 3, **options})  # type: ignore[arg-type]
    data.prepare_data()
    data.setup(stage)
    return data


def names_of(data: PhysioNet2017, part: str) -> list[str]:
    records = data.sets[part]
    return [records.cache.names[row] for row in records.rows]


def synthetic_records(lengths: list[int], labels: list[int] | None = None) -> Records:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    signals = np.repeat(np.arange(1, len(lengths) + 1), lengths).astype(np.int16)
    cache = Cache(signals, offsets, [f"r{i}" for i in range(len(lengths))], {})
    return Records(cache, np.arange(len(lengths)), np.array(labels or [0] * len(lengths)))


def test_a_batch_holds_what_the_files_hold(official: Path) -> None:
    data = module(official)
    labels = read_labels(official / "training2017" / "REFERENCE-v3.csv")
    seen = []
    for batch in data.train_dataloader():
        assert batch["signal"].dtype == torch.float32
        assert batch["length"].dtype == batch["label"].dtype == torch.int64
        assert batch["signal"].shape == (4, int(batch["length"].max()))
        columns = (batch[key] for key in ("signal", "length", "label", "name"))
        for signal, length, label, name in zip(*columns, strict=True):
            stored = np.fromfile(official / "training2017" / f"{name}.mat", "<i2", offset=24)
            assert np.array_equal(signal[:length].numpy(), stored) and not signal[length:].any()
            assert label == labels[name]
            seen.append(name)
    assert len(seen) == len(set(seen)) == len(data.sets["train"]) // 4 * 4


def test_padding_as_published(official: Path) -> None:
    batch = next(iter(module(official, pad_to=18286).train_dataloader()))
    assert batch["signal"].shape == (4, 18286) and batch["length"].max() < 1801


def test_records_that_cannot_be_used_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_set(tmp_path) / "training2017"
    (folder / "A00001.mat").unlink()
    write_record(folder, "A00002", beats(4, 2, False), keep=0.5)
    write_record(folder, "A00003", beats(4, 3, False), rate=250)
    write_record(folder, "A00004", beats(4, 4, False)[:63])
    write_record(folder, "A00100", beats(4, 5, False))
    (folder / "A00005.hea").write_text("nonsense\n")
    for ending in ("hea", "mat"):
        (folder / f"A00006.{ending}").unlink()
    with caplog.at_level(logging.WARNING):
        data = module(tmp_path)
    for text in (
        "1 with a header or a signal file missing (A00001)",
        "2 truncated or unreadable (A00002, A00005)",
        "1 of another sampling rate (A00003)",
        "1 too short (A00004)",
        "1 without a label (A00100)",
        "1 without files (A00006)",
    ):
        assert text in caplog.text
    everything = [name for part in data.sets for name in names_of(data, part)]
    assert sorted(everything) == [f"A{number:05d}" for number in range(7, 41)]
    with pytest.raises(ValueError, match=r"left out .*A00003"):
        module(tmp_path, strict=True)


def test_the_shortest_record_is_one_window_long(tmp_path: Path) -> None:
    write_record(tmp_path, "a", beats(1, 1, False)[:64])
    assert len(ecg_cache.read_record(tmp_path / "a", 300, 64)) == 64


def test_the_cache_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = write_set(tmp_path, 8) / "training2017", tmp_path / "cache"

    def packed() -> Cache:
        return open_cache(folder, cache, 300, 64, quiet=True)

    first = packed()
    monkeypatch.setattr(ecg_cache, "read_record", lambda *args: pytest.fail("the files were read again"))
    assert np.array_equal(packed().signals, first.signals)
    monkeypatch.undo()
    write_record(folder, "A00001", beats(5, 77, True))
    changed = packed()
    assert np.array_equal(changed.signals[: changed.offsets[1]], beats(5, 77, True))
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize("times", [1, 2, 3])
def test_another_process_replaces_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """One of other settings removes it between building and loading: it is built again, though not for ever."""
    folder, cache = write_set(tmp_path, 8) / "training2017", tmp_path / "cache"
    build, others = ecg_cache.build, iter(range(65, 65 + times))

    def overtaken(*args: object) -> None:
        build(*args)  # type: ignore[arg-type]
        for min_samples in others:
            build(folder, cache, f"other{min_samples}", 300, min_samples, True)
            break

    monkeypatch.setattr(ecg_cache, "build", overtaken)
    if times == 3:
        with pytest.raises(ValueError, match=r"another process replaces the cache .*set cache_dir"):
            open_cache(folder, cache, 300, 64, quiet=True)
    else:
        assert len(open_cache(folder, cache, 300, 64, quiet=True).names) == 8


@pytest.mark.parametrize("lost", ["signals", "index"])
def test_a_cache_that_vanishes_while_it_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    folder, cache = write_set(tmp_path, 4) / "training2017", tmp_path / "cache"
    whole = np.array(open_cache(folder, cache, 300, 64, quiet=True).signals)
    read = Path.read_bytes

    def vanishing(path: Path) -> bytes:
        monkeypatch.undo()
        content = b"" if lost == "index" else read(path)
        next(cache.glob(f"{lost}-*")).unlink()
        return content or read(path)

    monkeypatch.setattr(Path, "read_bytes", vanishing)
    assert np.array_equal(open_cache(folder, cache, 300, 64, quiet=True).signals, whole)


@pytest.mark.parametrize("damage", ["shorter", "no index"])
def test_half_a_cache_is_not_trusted(tmp_path: Path, damage: str) -> None:
    folder, cache = write_set(tmp_path, 8) / "training2017", tmp_path / "cache"
    whole = np.array(open_cache(folder, cache, 300, 64, quiet=True).signals)
    if damage == "shorter":
        [data] = cache.glob("signals-*.bin")
        data.write_bytes(data.read_bytes()[:-100])
    else:
        next(cache.glob("index-*.json")).unlink()
    assert np.array_equal(open_cache(folder, cache, 300, 64, quiet=True).signals, whole)


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = write_set(tmp_path, 8) / "training2017", tmp_path / "cache"
    read, calls = ecg_cache.read_record, iter(range(100))

    def stopped(*args: object) -> np.ndarray:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return read(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(ecg_cache, "read_record", stopped)
    with pytest.raises(KeyboardInterrupt):
        open_cache(folder, cache, 300, 64, quiet=True)
    assert list(cache.iterdir()) == []


def test_no_record_is_in_two_folds(official: Path) -> None:
    tests = []
    for fold in range(3):
        data = module(official, fold=fold)
        parts = [name for part in data.sets for name in names_of(data, part)]
        assert len(parts) == len(set(parts)) == 40
        counts = Counter(data.sets["test"].labels.tolist())
        assert all(count in (3, 4) for count in counts.values())
        assert len(data.sets["valid"]) in (4, 5)
        assert set(data.sets["valid"].labels.tolist()) == {0, 1, 2, 3}
        tests += names_of(data, "test")
    assert sorted(tests) == [f"A{number:05d}" for number in range(1, 41)]
    assert names_of(module(official, seed=3), "test") != names_of(module(official, seed=4), "test")


def test_published_lists(official: Path, tmp_path: Path) -> None:
    lists = {"train": list(range(1, 21)), "valid": [21, 22], "test": ["A00023", "A00024"]}
    for part, numbers in lists.items():
        (tmp_path / f"{part}2.json").write_text(json.dumps(numbers))
    data = module(official, splits=str(tmp_path), fold=2)
    assert names_of(data, "test") == ["A00023", "A00024"]
    assert len(data.sets["train"]) == 20
    (tmp_path / "valid2.json").write_text("[20, 21]")
    with pytest.raises(ValueError, match="A00020 is listed twice"):
        module(official, splits=str(tmp_path), fold=2)
    (tmp_path / "valid2.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"valid2\.json"):
        module(official, splits=str(tmp_path), fold=2)


def test_the_real_lists_share_nothing(tmp_path: Path) -> None:
    shared = Path(os.environ.get("PARSIMONY_SHARED", ROOT.parent / "shared"))
    archive = shared / "data" / "cinc2017_splits.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}: set PARSIMONY_SHARED to the folder of the shared data")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    splits = [read_split(tmp_path / "splits" / "split_5_6_14", fold) for fold in range(5)]
    assert sorted(name for split in splits for name in split.test) == [f"A{n:05d}" for n in range(1, 8529)]
    assert {len(split.train) + len(split.valid) + len(split.test) for split in splits} == {8528}


def test_buckets_pad_little_and_miss_nothing() -> None:
    rng = np.random.default_rng(0)
    records = synthetic_records(rng.integers(2700, 18300, 400).tolist())
    order = torch.tensor([index for _, index in BucketSampler(records, 10, seed=1)])
    assert sorted(order.tolist()) == list(range(400))
    lengths = torch.from_numpy(records.lengths)[order].view(-1, 10)
    assert lengths.amax(1).sum() * 10 < 1.1 * lengths.sum()
    plain = torch.tensor([index for _, index in BucketSampler(records, 10, seed=1, bucket=False)])
    lengths = torch.from_numpy(records.lengths)[plain].view(-1, 10)
    assert lengths.amax(1).sum() * 10 > 1.4 * lengths.sum()


def test_batches_come_in_a_random_order() -> None:
    """Else every epoch, or every 32 batches of it, would go from short records to long ones."""
    records = synthetic_records(list(range(1000, 1320)))
    sampler = BucketSampler(records, 10, seed=1)
    means = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = torch.tensor([index for _, index in sampler])
        batches = records.lengths[order].reshape(-1, 10)
        assert (batches.max(1) - batches.min(1) == 9).all()  # 32 batches are one bucketing: neighbours in length
        means.append(batches.mean(1))
        assert 0.3 < (np.diff(means[-1]) > 0).mean() < 0.7
    assert not np.array_equal(*means)
    plain = torch.tensor([index for _, index in BucketSampler(records, 10, seed=1, bucket=False)])
    assert 0.4 < (plain.diff() > 0).double().mean() < 0.6
    other = torch.tensor([index for _, index in BucketSampler(records, 10, seed=2, bucket=False)])
    assert not torch.equal(plain, other)


def test_evaluation_has_every_record_once_with_its_index(official: Path) -> None:
    data = module(official, "predict", val_batch_size=5)
    records, seen = data.sets["test"], {}
    loader = data.predict_dataloader()
    lengths = []
    for batch in loader:
        assert len(batch["name"]) <= 5
        lengths += batch["length"].tolist()
        seen.update(zip(batch["index"].tolist(), zip(batch["name"], batch["label"].tolist(), strict=True), strict=True))
    assert lengths == sorted(lengths) and len(lengths) == len(records)
    names = [records.cache.names[row] for row in records.rows]
    assert [seen[i] for i in range(len(records))] == list(zip(names, records.labels.tolist(), strict=True))


def test_units_of_a_header_are_kept(tmp_path: Path) -> None:
    """What the cache holds is in 1/1000 mV, whatever gain and unit the header names."""
    signal = beats(3, 1, False)
    for name, gain, expected in (
        ("a", "1000/mV", signal),
        ("b", "500/mV", 2 * signal),
        ("c", "1/uV", signal),
        ("d", "1000000/V", signal),
        ("e", "1000(10)/mV", signal - 10),
        ("h", "1/\u00b5V", signal),
        ("i", "500/mv", 2 * signal),
    ):
        write_record(tmp_path, name, signal, gain=gain)
        assert np.array_equal(ecg_cache.read_record(tmp_path / name, 300, 64), expected), name
    write_record(tmp_path, "f", signal, gain="1000/mmHg")
    with pytest.raises(ecg_cache.SkippedRecordError, match="no voltage"):
        ecg_cache.read_record(tmp_path / "f", 300, 64)
    write_record(tmp_path, "g", np.full(900, 30000), gain="500/mV")
    assert (ecg_cache.read_record(tmp_path / "g", 300, 64) == 32767).all()  # cut, not wrapped around


def test_training_and_predicting_read_one_signal(tmp_path: Path) -> None:
    """Missing samples are 0 for both, also where the baseline is not, and a signal of unknown gain is for neither."""
    signal = beats(3, 1, False)
    signal[[0, 100, 899]] = -32768
    for name, gain in (("a", "1000/mV"), ("b", "500(30)/mV"), ("c", "1/uV")):
        write_record(tmp_path, name, signal, gain=gain)
        packed = ecg_cache.read_record(tmp_path / name, 300, 64)
        predicted = open_recording(tmp_path / name, 0, None, None).read(0, 900)
        assert np.flatnonzero(np.isnan(predicted)).tolist() == [0, 100, 899]
        assert np.array_equal(packed, np.rint(np.nan_to_num(predicted)))
    for name, gain in (("d", "0"), ("e", "0/mV")):
        write_record(tmp_path, name, signal, gain=gain)
        with pytest.raises(ecg_cache.SkippedRecordError, match="without a gain"):
            ecg_cache.read_record(tmp_path / name, 300, 64)
        with pytest.raises(ValueError, match="no gain"):
            open_recording(tmp_path / name, 0, None, None)


def test_two_ranks_share_the_batches() -> None:
    records = synthetic_records(list(range(100, 148)))
    samplers = [BucketSampler(records, 4, seed=2, rank=rank, world_size=2) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(3)
    first, second = ([index for _, index in sampler] for sampler in samplers)
    assert sorted(first + second) == list(range(48))
    for start in range(0, 24, 4):  # 48 records are one bucketing: a joint batch of 8 is 8 neighbours by length
        assert np.ptp(first[start : start + 4] + second[start : start + 4]) == 7


def test_oversampling_as_published() -> None:
    labels = [0] * 595 + [1] * 89 + [2] * 283 + [3] * 33
    assert repeats(torch.tensor([0, 1, 2, 3]).repeat(1)).tolist() == [1, 1, 1, 1]
    assert [int(repeats(torch.tensor(labels))[labels.index(c)]) for c in range(4)] == [1, 3, 1, 7]
    records = synthetic_records([100] * 1000, labels)
    counts = np.zeros(4)
    sampler = BucketSampler(records, 20, oversample=True)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        drawn = [labels[index] for _, index in sampler]
        assert len(drawn) == 1000
        counts += np.bincount(drawn, minlength=4)
    assert np.allclose(counts / counts.sum(), [0.431, 0.194, 0.205, 0.167], atol=0.01)


def test_an_epoch_goes_on_where_it_stopped(official: Path) -> None:
    def names(loader: object, count: int) -> list[str]:
        iterator = iter(loader)  # type: ignore[call-overload]
        return [name for _ in range(count) for name in next(iterator)["name"]]

    loader = module(official, oversample=True).train_dataloader()
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    whole = names(loader, 5)
    again = module(official, oversample=True).train_dataloader()
    again.sampler.set_epoch(1)  # type: ignore[attr-defined]
    again.load_state_dict({"epoch": 1, "batches": 2})
    assert names(again, 3) == whole[8:]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"folder": "absent"}, FileNotFoundError, "no folder .*absent.*physionet.org"),
        ({"reference": "absent.csv"}, FileNotFoundError, "absent.csv"),
        ({"fold": 3}, ValueError, r"fold must be in 0\.\.2, got 3"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ({"pad_to": 0}, ValueError, "pad_to must be at least 1"),
        ({"num_folds": 20}, ValueError, "every class needs at least 20"),
        ({"splits": "absent"}, FileNotFoundError, r"train0\.json"),
    ],
)
def test_mistakes(official: Path, options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        module(official, **options)


def test_a_wrong_label_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("A00001,N\nA00002,X\n")
    with pytest.raises(ValueError, match="line 2: expected a record and one of N, A, O, ~"):
        read_labels(tmp_path / "labels.csv")
