"""Packed sets that are incomplete, damaged or foreign; many shards, threads and processes."""

import json
import multiprocessing
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datamodules.images import shard_cache
from datamodules.images.pack_images import pack_folder
from datamodules.images.reading import SkippedImageError
from datamodules.images.shards import ROW, Shards
from tests.datamodules.conftest import WritePhoto


@pytest.fixture
def packed(tmp_path: Path, write_photo: WritePhoto) -> Path:
    for number in range(6):
        write_photo(tmp_path / "in" / f"{number}.png")
    pack_folder(tmp_path / "in", tmp_path / "out", 1, quiet=True)
    return tmp_path / "out"


def rewrite(packed: Path, **changes: object) -> None:
    file = packed / "shards.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_truncated_or_missing_file_is_one_line(packed: Path) -> None:
    shard = packed / "shard-000002.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    message = r"shard-000002\.tar has 10,239 bytes instead of 10,240: run .*pack_images. again, or copy"
    with pytest.raises(ValueError, match=message):
        Shards(packed)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"no shard .*shard-000002\.tar: run"):
        Shards(packed)
    shard.write_bytes(whole)
    Shards(packed)
    for name in ("samples.npy", "names.txt"):
        shutil.move(packed / name, packed / "away")
        with pytest.raises(FileNotFoundError, match=rf"no .*{name}: run"):
            Shards(packed)
        (packed / name).write_bytes((packed / "away").read_bytes()[:-1])
        with pytest.raises(ValueError, match=r"index of .* is damaged|does not belong to its shards"):
            Shards(packed)
        shutil.move(packed / "away", packed / name)
    Shards(packed)
    (packed / "shards.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds shards but no shards\.json"):
        Shards(packed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "is of version 2; this program reads 1"),
        ({"shards": 3}, r"shards\.json is damaged \(TypeError\)"),
        ({"shards": [{"name": "a"}]}, r"shards\.json is damaged \(KeyError\)"),
        ({"skipped": []}, r"shards\.json is damaged \(AttributeError\)"),
        ({"shards": [{"name": "../in/0.png", "bytes": 1}]}, r"no shard .*\.\./in/0\.png"),
        ({"shards": [{"name": "../shard-000000.tar", "bytes": 1}]}, r"no shard .*\.\./shard"),
        ({"shards": [{"name": "samples.npy", "bytes": 416}]}, r"no shard .*samples\.npy"),
    ],
)
def test_a_foreign_manifest_is_refused(packed: Path, changes: dict, message: str) -> None:
    rewrite(packed, **changes)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Shards(packed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("offset", 10_240),
        ("offset", 2**64 - 1),
        ("bytes", 9_900),
        ("bytes", 2**32 - 1),
        ("name", 36),
        ("name", 2**64 - 1),
        ("name_bytes", 7),
        ("shard", 6),
        ("label", 0),
        ("label", -2),
    ],
)
def test_places_outside_of_the_files_are_refused(packed: Path, field: str, value: int) -> None:
    rows = np.load(packed / "samples.npy")
    rows[field][5] = value
    np.save(packed / "samples.npy", rows)
    with pytest.raises(ValueError, match=r"samples\.npy does not belong to its shards"):
        Shards(packed)


def test_an_image_longer_than_its_shard_is_refused(packed: Path) -> None:
    rows = np.load(packed / "samples.npy")
    rows["offset"][5], rows["bytes"][5] = 0, 10_241
    np.save(packed / "samples.npy", rows)
    with pytest.raises(ValueError, match="does not belong to its shards"):
        Shards(packed)


@pytest.mark.parametrize("rows", [np.zeros(3, np.int64), np.zeros((1, 1), ROW), np.empty(0)])
def test_a_foreign_index_is_refused(packed: Path, rows: np.ndarray) -> None:
    np.save(packed / "samples.npy", rows)
    with pytest.raises(ValueError, match="does not belong"):
        Shards(packed)


def test_a_pickled_index_is_not_opened(packed: Path) -> None:
    np.save(packed / "samples.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(ValueError, match="is damaged"):
        Shards(packed)


def test_an_altered_image_is_noticed(packed: Path) -> None:
    shards = Shards(packed)
    data = bytearray((packed / "shard-000003.tar").read_bytes())
    data[int(shards.rows["offset"][3]) + 40] ^= 1
    (packed / "shard-000003.tar").write_bytes(data)
    for row in (2, 4):
        assert shards.read(row).startswith(b"\x89PNG")
    with pytest.raises(SkippedImageError, match="altered since it was packed"):
        Shards(packed).read(3)
    (packed / "shard-000004.tar").write_bytes(b"")  # while it is open
    with pytest.raises(SkippedImageError, match="altered"):
        shards.read(4)


def test_many_threads_and_few_open_files(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_cache, "MAX_OPEN", 2)
    shards = Shards(packed)
    opened = shards.files.opened.files  # type: ignore[attr-defined]
    names = [shards.name(row) for row in range(6)]
    rows = np.random.default_rng(0).integers(0, 6, 2000).tolist()
    assert [len(shards.read(row)) > 0 and len(opened) for row in range(6)] == [1, 2, 2, 2, 2, 2]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shards.read, rows))
    assert found == [(packed.parent / "in" / names[row]).read_bytes() for row in rows]


def read_elsewhere(shards: Shards, queue: multiprocessing.Queue) -> None:
    queue.put([shards.read(row) for row in range(6)])


def test_another_process_reads_with_files_of_its_own(packed: Path) -> None:
    shards = Shards(packed)
    here = [shards.read(row) for row in range(6)]
    assert not pickle.loads(pickle.dumps(shards)).files.opened.files
    assert len(shards.files.opened.files) == 6  # type: ignore[attr-defined]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=read_elsewhere, args=(shards, queue))
    process.start()
    assert queue.get(timeout=60) == here
    process.join()
