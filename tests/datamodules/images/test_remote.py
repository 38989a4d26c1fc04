"""Paths behind a URL: what passes and is tried again, what is said once, what a server may not do."""

import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import fsspec
import pytest

from datamodules.images import remote
from datamodules.images.remote import Cache, RemotePath, image_root, may_pass
from tests.datamodules.images.range_server import RangeServer, serving

CONTENT = bytes(range(256)) * 5


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Instead of waiting."""
    found: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.fixture
def server(tmp_path: Path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "file.bin").write_bytes(CONTENT)
    (tmp_path / "set" / "empty").write_bytes(b"")
    with serving(tmp_path) as server:
        yield server


def path_of(server: RangeServer) -> RemotePath:
    return RemotePath(server.url + "/set/file.bin")


def test_ranges_sizes_and_what_is_there(server: RangeServer, waits: list[float]) -> None:
    path = path_of(server)
    assert path.read_range(3, 700) == CONTENT[3:700] and path.read_range(1279, 1280) == b"\xff"
    assert server.asked == [("file.bin", 3, 700), ("file.bin", 1279, 1280)]
    assert path.read_range(5, 5) == path.read_range(6, 5) == b"" and len(server.asked) == 2
    assert path.size() == 1280 and path.is_file() and path.exists() and not path.is_dir()
    folder = RemotePath(server.url + "/set/")
    assert not folder.is_dir() and not folder.exists() and not (folder / "other").is_file()
    (server.folder / "set" / "shards.json").write_text("{}")
    assert folder.is_dir() and folder.exists() and not folder.is_file()
    with pytest.raises(FileNotFoundError) as error:
        (folder / "other").size()
    assert error.value.filename == f"{server.url}/set/other" and "no such file" in str(error.value)
    assert waits == []


def test_a_whole_file_comes_in_pieces_after_its_first_byte(
    server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PIECE", 500)
    assert path_of(server).read_bytes() == CONTENT
    assert [asked[1:] for asked in server.asked] == [(0, 1), (1, 501), (501, 1001), (1001, 1280)]
    assert RemotePath(server.url + "/set/empty").read_bytes() == b""
    assert path_of(server).read_bytes(1280) == CONTENT
    with pytest.raises(ValueError, match=r"file\.bin has 1,280 bytes, more than the 1,279 that such a file may have"):
        path_of(server).read_bytes(1279)
    server.says_size = False
    with pytest.raises(ValueError, match=r"file\.bin is of unknown size: its server must say it"):
        path_of(server).read_bytes()


@pytest.mark.parametrize("fault", ["drop", "half", "short", "500", "503", "429", "408"])
def test_what_passes_is_tried_again_after_longer_waits(server: RangeServer, waits: list[float], fault: str) -> None:
    server.faults = [fault, fault, fault]
    assert path_of(server).read_range(10, 20) == CONTENT[10:20]
    assert len(server.asked) == 4
    assert len(waits) == 3 or fault == "drop"  # after which aiohttp may ask once more by itself
    for number, wait in enumerate(waits):
        assert 0.25 * 2**number <= wait <= 0.75 * 2**number and wait != 0.5 * 2**number


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("drop", r"cannot be read \(ServerDisconnectedError.*\) after 6 attempts; .*--ckpt_path last goes on"),
        ("short", r"cannot be read \(ShortAnswerError: 9 bytes came of 10\) after 6 attempts"),
        ("500", r"cannot be read \(ClientResponseError: 500.*\) after 6 attempts"),
        ("403", r"cannot be read \(ClientResponseError: 403[^)]*\)$"),
        ("whole", r"cannot be read \(1,280 bytes came of 10: its server does not answer ranges\)$"),
    ],
)
def test_what_stays_is_one_line(server: RangeServer, waits: list[float], fault: str, message: str) -> None:
    server.always = {"file.bin": fault}
    with pytest.raises(ValueError, match=message):
        path_of(server).read_range(10, 20)
    passing = "after" in message
    assert len(waits) == (5 if passing else 0)
    assert len(server.asked) == len(waits) + 1 or fault == "drop"


def test_a_server_that_is_away_is_not_taken_for_a_missing_file(
    server: RangeServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = RemotePath("http://127.0.0.1:9/set/file.bin")
    with pytest.raises(ValueError, match=r"cannot be read \(ClientConnectorError: .*\) after 6 attempts"):
        away.is_file()
    assert len(waits) == 5


def test_an_answer_that_does_not_come_is_not_waited_for(
    server: RangeServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    server.always = {"file.bin": "stall"}
    with pytest.raises(ValueError, match=r"cannot be read \(FSTimeoutError\) after 2 attempts"):
        path_of(server).read_range(0, 5)


def test_which_errors_may_pass() -> None:
    from_network, from_server, from_store = FileNotFoundError("x"), FileNotFoundError("x"), FileNotFoundError("x")
    from_network.__cause__, from_store.__cause__ = ConnectionResetError(), RuntimeError("NoSuchKey")
    from_server.__cause__ = FileNotFoundError("x")
    for error in (ConnectionResetError(), TimeoutError(), RuntimeError(), from_network, OSError(5, "I/O error")):
        assert may_pass(error)
    for error in (FileNotFoundError("x"), from_server, from_store, PermissionError(), ImportError(), ValueError()):
        assert not may_pass(error)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket/a", r"s3://bucket/a/shards\.json cannot be read \(.*s3fs"),
        ("nowhere://a", r"nowhere://a/shards\.json cannot be read \(Protocol not known: nowhere\)$"),
    ],
)
def test_a_missing_package_is_one_line(
    url: str, message: str, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(ValueError, match=message):
        RemotePath(url).is_dir()
    assert waits == []


def test_names() -> None:
    cache = Cache(Path("c"), 1)
    for root in ("memory://bucket/a/", "memory://bucket/a"):
        path = RemotePath(root, cache) / "b" / "train"
        assert isinstance(path, RemotePath) and path.cache is cache
        assert str(path) == "memory://bucket/a/b/train" and path.name == "train"
        assert str(path.with_name("val")) == "memory://bucket/a/b/val" and path.with_name("val").cache is cache
    assert str(RemotePath("memory://") / "a") == "memory:///a" and str(RemotePath("https://h//")) == "https://h"
    assert path / "/data/x" == Path("/data/x")
    other = path / "https://host/y"
    assert str(other) == "https://host/y" and other.cache is cache  # type: ignore[union-attr]
    assert other.connection is not path.connection  # type: ignore[union-attr]


def test_a_file_system_belongs_to_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").pipe_file("/remote/a", b"abc")
    path = RemotePath("memory://remote/a")
    assert path.read_bytes() == b"abc"
    assert path.connection.file_system() is path.connection.file_system()
    copy = pickle.loads(pickle.dumps(path))
    assert copy.connection._opened is None and copy.read_bytes() == b"abc"
    before = path.connection._opened
    monkeypatch.setattr(os, "getpid", lambda: -1)
    path.connection.file_system()
    assert path.connection._opened[0] == -1 != before[0]  # type: ignore[index]


def test_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSIMONY_DATA", "s3://bucket/data")
    assert str(image_root(None)) == "s3://bucket/data" and image_root(None).cache is None  # type: ignore[union-attr]
    found = image_root("https://host/x", "kept", 2.0)
    assert isinstance(found, RemotePath) and found.cache == (Path("kept"), 2**31)
    for path in ("data", "s3/bucket", "s3:/bucket", "/a/s3://b", "./memory://x", "C:data"):
        assert image_root(path) == Path(path)
    with pytest.raises(ValueError, match="shard_cache keeps what is read from a URL, and the root data is a folder"):
        image_root("data", "kept", 2.0)
    with pytest.raises(ValueError, match="shard_cache_limit_gib must be above 0, got 0"):
        image_root("https://host/x", "kept", 0)
