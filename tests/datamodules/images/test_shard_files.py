"""Packed sets behind a URL: the bytes of a local one, few and small questions, a cache that processes share."""

import json
import logging
import os
import pickle
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest

from datamodules.images import remote, shard_cache, shard_files
from datamodules.images.pack_images import pack_folder
from datamodules.images.reading import SkippedImageError
from datamodules.images.remote import Cache, RemotePath
from datamodules.images.shard_cache import ShardCache
from datamodules.images.shard_files import Place
from datamodules.images.shards import Shards
from tests.datamodules.conftest import WritePhoto
from tests.datamodules.images.range_server import RangeServer, serving

COUNT, BLOCK = 24, 8192


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(shard_files, "BLOCK", BLOCK)


@pytest.fixture
def server(tmp_path: Path, write_photo: WritePhoto) -> Iterator[RangeServer]:
    for number in range(COUNT):
        write_photo(tmp_path / "in" / f"{number:02d}.png", 30 + number)
    pack_folder(tmp_path / "in", tmp_path / "set", 30_720, quiet=True)
    with serving(tmp_path) as server:
        yield server


def opened(server: RangeServer, cache: Path | None = None, limit: int = 1 << 30) -> Shards:
    """The set behind its URL; what was asked for to open it is forgotten."""
    shards = Shards(RemotePath(server.url + "/set", None if cache is None else Cache(cache, limit)))
    server.asked.clear()
    return shards


def files(server: RangeServer) -> list[bytes]:
    return [(server.folder / "in" / f"{number:02d}.png").read_bytes() for number in range(COUNT)]


def everything(shards: Shards) -> list[bytes]:
    shards.fetch(np.random.default_rng(0).permutation(COUNT).tolist())
    return [shards.read(row) for row in range(COUNT)]


def places(shards: Shards) -> list[tuple[str, int, int]]:
    return [(*shards._place(row)[:2], shards._place(row).end) for row in range(COUNT)]


def test_opening_reads_the_index_and_no_shard(server: RangeServer) -> None:
    shards = Shards(RemotePath(server.url + "/set"))
    assert {name for name, *_ in server.asked} == {"shards.json", "samples.npy", "names.txt"}
    local = Shards(server.folder / "set")
    assert len(shards.shards) >= 3 and np.array_equal(shards.rows, local.rows)
    assert np.array_equal(shards.names, local.names) and shards.name(7) == "07.png"


def test_one_image_is_one_range(server: RangeServer) -> None:
    shards = opened(server)
    assert [shards.read(row) for row in (5, 5, 20)] == [files(server)[row] for row in (5, 5, 20)]
    assert server.asked == [places(shards)[row] for row in (5, 5, 20)]


def test_a_batch_is_asked_for_once_and_neighbours_together(server: RangeServer) -> None:
    shards = opened(server)
    assert everything(shards) == files(server)
    whole = places(shards)
    blocks = {(name, start // BLOCK) for name, start, _ in whole}
    assert len(server.asked) == len(blocks) < COUNT
    for name, number in blocks:
        inside = [(start, end) for n, start, end in whole if (n, start // BLOCK) == (name, number)]
        assert (name, inside[0][0], inside[-1][1]) in server.asked
    server.asked.clear()
    shards.fetch([3, 3, 17])
    assert [shards.read(3), shards.read(17)] == [files(server)[3], files(server)[17]] and len(server.asked) == 2
    assert shards.read(4) == files(server)[4] and len(server.asked) == 3  # the last batch is no longer held
    shards.fetch([])


@pytest.mark.parametrize("cached", [False, True])
def test_bytes_that_come_damaged_are_asked_for_once_more(server: RangeServer, tmp_path: Path, cached: bool) -> None:
    shards = opened(server, tmp_path / "kept" if cached else None)
    server.faults = ["wrong", "half", "500"]
    assert [shards.read(row) for row in (0, 23)] == [files(server)[row] for row in (0, 23)]
    assert len(server.asked) == 5


def test_what_was_altered_is_skipped_and_what_is_gone_ends_the_run(server: RangeServer) -> None:
    shards = opened(server)
    name, start, _ = places(shards)[4]
    data = bytearray((server.folder / "set" / name).read_bytes())
    data[start + 40] ^= 1
    (server.folder / "set" / name).write_bytes(data)
    shards.fetch([3, 4, 5])
    assert [shards.read(3), shards.read(5)] == [files(server)[3], files(server)[5]]
    with pytest.raises(SkippedImageError, match="altered since it was packed"):
        shards.read(4)
    (server.folder / "set" / name).unlink()
    with pytest.raises(ValueError, match="is no longer there"):
        shards.fetch([4])
    assert shards.files.ahead == {}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=rf"/set/{name} is no longer there: run .*pack_images. again, or copy"):
        shards.read(5)


def test_a_set_that_is_not_whole_is_one_line(server: RangeServer) -> None:
    folder, url = server.folder / "set", RemotePath(server.url + "/set")
    shard = folder / "shard-000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=rf"{server.url}/set/shard-000001\.tar has {len(whole) - 1:,} bytes instead"):
        Shards(url)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=rf"no shard {server.url}/set/shard-000001\.tar: run"):
        Shards(url)
    shard.write_bytes(whole)
    for name in ("samples.npy", "names.txt", "shards.json"):
        (folder / name).rename(folder / "away")
        with pytest.raises(FileNotFoundError, match=rf"no ({server.url}/set/)?{name}.*: run"):
            Shards(url)
        (folder / "away").rename(folder / name)
    server.always = {"samples.npy": "500"}
    with pytest.raises(ValueError, match=r"samples\.npy cannot be read"):
        Shards(url)


def test_an_index_that_is_too_large_is_not_fetched(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (server.folder / "set" / "samples.npy").stat().st_size
    monkeypatch.setattr(shard_files, "MAX_INDEX", size)
    opened(server)
    monkeypatch.setattr(shard_files, "MAX_INDEX", size - 1)
    with pytest.raises(ValueError, match=rf"samples\.npy has {size:,} bytes, more than {size - 1:,}"):
        opened(server)


def test_an_index_comes_in_pieces(server: RangeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_files, "PIECE", 500)
    assert np.array_equal(opened(server).rows, Shards(server.folder / "set").rows)


def test_from_memory_and_with_files_of_its_own_elsewhere(server: RangeServer) -> None:
    store = fsspec.filesystem("memory")
    for path in (server.folder / "set").iterdir():
        store.pipe_file(f"/shards/set/{path.name}", path.read_bytes())
    shards = Shards(RemotePath("memory://shards/set"))
    assert everything(shards) == files(server)
    shards = opened(server)
    everything(shards)
    copy = pickle.loads(pickle.dumps(shards))
    assert everything(copy) == files(server)


def test_what_a_place_holds() -> None:
    place = Place("a.tar", BLOCK, 3, zlib.crc32(b"abc"))
    assert place.holds(b"abc") and not place.holds(b"abd") and not Place("a.tar", 0, 3, 0).holds(b"")
    assert place.end == BLOCK + 3 and place.block() == ("a.tar", 1)


def test_a_cache_keeps_what_was_read(server: RangeServer, tmp_path: Path) -> None:
    shards = opened(server, tmp_path / "kept")
    assert shards.read(0) == files(server)[0]
    assert server.asked == [("shard-000000.tar", 0, -(-places(shards)[0][2] // BLOCK) * BLOCK)]
    assert everything(shards) == files(server)
    assert len(server.asked) == len(set(server.asked))
    sizes = shards.sizes
    assert all(start % BLOCK == 0 and (end % BLOCK == 0 or end == sizes[name]) for name, start, end in server.asked)
    server.asked.clear()
    shards.fetch([])
    assert [shards.read(row) for row in range(COUNT)] == files(server) and everything(shards) == files(server)
    other = Shards(RemotePath(server.url + "/set", Cache(tmp_path / "kept", 1 << 30)))
    assert everything(other) == files(server)
    assert {name for name, *_ in server.asked} == {"shards.json"}  # nor the index
    assert not list((tmp_path / "kept").rglob("*.tmp"))


def test_a_damaged_cache_heals(server: RangeServer, tmp_path: Path) -> None:
    everything(opened(server, tmp_path / "kept"))
    kept = next((tmp_path / "kept").glob("*/shard-000001.tar"))
    for damaged in (kept.read_bytes()[:-5000], b"\0" * 9999, kept.read_bytes()[::-1], b""):
        kept.write_bytes(damaged)
        assert everything(opened(server, tmp_path / "kept")) == files(server)
    server.folder.joinpath("set", "shard-000001.tar").write_bytes(b"0" * shard_size(server))
    assert everything(opened(server, tmp_path / "kept")) == files(server)  # held, all of it
    index = next((tmp_path / "kept").glob("*/samples.npy"))
    index.write_bytes(index.read_bytes()[:-1])
    assert everything(opened(server, tmp_path / "kept")) == files(server)


def shard_size(server: RangeServer) -> int:
    return (server.folder / "set" / "shard-000001.tar").stat().st_size


def test_another_set_has_a_folder_of_its_own(server: RangeServer, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept", 1 << 30)
    folders = {ShardCache(cache, *which).folder for which in (("a", b"1"), ("a", b"2"), ("b", b"1"), ("a", b"1"))}
    assert len(folders) == 3 and all(folder.parent == cache.folder for folder in folders)
    everything(opened(server, cache.folder))
    manifest = server.folder / "set" / "shards.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"key": "other"}))
    assert everything(opened(server, cache.folder)) == files(server)
    assert len(list(cache.folder.glob("*/samples.npy"))) == 2
    (server.folder / "copy").symlink_to("set")
    Shards(RemotePath(server.url + "/copy", cache))
    assert len(list(cache.folder.glob("*/samples.npy"))) == 3


def test_a_full_cache_is_said_once_and_the_rest_is_read_each_time(
    server: RangeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 12_288 + 2 * BLOCK  # the index takes at most three blocks of a file system
    shards = opened(server, tmp_path / "kept", limit)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert everything(shards) == files(server)
    assert caplog.text.count("keeps no more (28,672 bytes are the limit); the rest is read each time") == 1
    used = sum(512 * path.stat().st_blocks for path in (tmp_path / "kept").rglob("*.*"))
    assert 2 * BLOCK < used <= limit
    exact = [asked for asked in server.asked if asked[1] % BLOCK]
    assert exact and len(set(exact)) < len(exact)


def test_room_is_measured_again_for_what_others_wrote(
    server: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = ShardCache(Cache(tmp_path / "kept", 100_000), "u", b"m")
    assert cache.room == 100_000 and not cache.reserves(100_001) and cache.reserves(4096)
    cache.write("a.tar", 0, b"1" * 4096)
    assert cache.room == 95_904 and cache.unscanned == 4096
    (tmp_path / "kept" / "other").write_bytes(b"1" * 40_960)
    assert cache.reserves(90_000) and cache.room == 5904
    monkeypatch.setattr(shard_cache, "BETWEEN_SCANS", 94_096)
    assert not cache.reserves(54_945) and cache.unscanned == 0 and cache.reserves(54_944) and cache.room == 0
    assert cache.read("a.tar", 4090, 10) == b"1" * 6
    cache.write("a.tar", 1_000_000, b"2")  # a hole before it
    assert cache.measured_room() == 100_000 - 40_960 - 8192 and cache.read("a.tar", 9000, 2) == b"\0\0"


def test_a_full_disk_is_a_full_cache(
    server: RangeServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(*arguments: object) -> int:
        written.append(arguments)
        raise OSError(28, "No space left on device")

    shards = opened(server, tmp_path / "kept")
    monkeypatch.setattr(os, "pwrite", full)
    assert everything(shards) == files(server)
    tried = len(written)
    assert everything(shards) == files(server) and len(written) == tried > 0
    assert caplog.text.count("keeps no more (No space left on device)") == 1


def test_an_index_is_in_the_cache_whole_or_not_at_all(tmp_path: Path) -> None:
    def breaks_off(path: Path) -> None:
        path.write_bytes(b"half")
        raise ValueError("cannot be read")

    cache = ShardCache(Cache(tmp_path / "kept", 100_000), "u", b"m")
    with pytest.raises(ValueError, match="cannot be read"):
        cache.whole("names.txt", 8, breaks_off)
    assert list(cache.folder.iterdir()) == []
    assert cache.whole("names.txt", 4, lambda path: path.write_bytes(b"full")).read_bytes() == b"full"  # type: ignore
    assert cache.whole("names.txt", 4, breaks_off).read_bytes() == b"full" and cache.room == 100_000 - 4096


def test_a_cache_that_cannot_be_made(server: RangeServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"shard_cache .*file/kept cannot be made \(Not a directory\)"):
        opened(server, tmp_path / "file" / "kept")


def read_many(job: tuple[str, Path, int]) -> list[bytes]:
    url, cache, seed = job
    shards = Shards(RemotePath(url, Cache(cache, 1 << 30)))
    rows = np.random.default_rng(seed).permutation(COUNT).tolist()
    shards.fetch(rows[:12])
    found = {row: shards.read(row) for row in rows}
    return [found[row] for row in range(COUNT)]


def test_many_readers_share_a_cache(server: RangeServer, tmp_path: Path) -> None:
    jobs = [(server.url + "/set", tmp_path / "kept", seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert all(found == files(server) for found in pool.map(read_many, jobs))
    server.asked.clear()
    assert read_many(jobs[0]) == files(server) and {name for name, *_ in server.asked} == {"shards.json"}
