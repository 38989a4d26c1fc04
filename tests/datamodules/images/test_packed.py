"""Packed folders of small images: what is kept, what is named, and when a packed copy is trusted."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.images import packed as image_cache
from datamodules.images.packed import PackedImages, open_cache
from datamodules.images.reading import decode
from tests.datamodules.conftest import WritePhoto

SIZE = 12


@pytest.fixture
def folder(tmp_path: Path, write_photo: WritePhoto) -> Path:
    for name, count in (("b", 3), ("a", 2), ("c", 1)):
        for number in range(count):
            write_photo(tmp_path / "set" / name / f"{number}{name}.png", SIZE, SIZE)
    return tmp_path / "set"


def packed(folder: Path, size: int = SIZE) -> PackedImages:
    return open_cache(folder, folder.with_name("cache"), size, quiet=True)


def test_images_come_class_by_class(folder: Path) -> None:
    found = packed(folder)
    assert found.classes == ["a", "b", "c"] and found.labels.tolist() == [0, 0, 1, 1, 1, 2]
    paths = sorted(folder.glob("*/*.png"))
    assert np.array_equal(found.images, np.stack([decode(path) for path in paths]))
    assert found.skipped == {}


def test_files_that_cannot_be_used_are_named(folder: Path, write_photo: WritePhoto) -> None:
    write_photo(folder / "a" / "cut.jpg", SIZE, SIZE, cut=0.5)
    write_photo(folder / "a" / "gray.png", SIZE, SIZE, mode="L")
    write_photo(folder / "b" / "00_wide.png", SIZE, SIZE + 1)
    (folder / "c" / "empty.png").touch()
    (folder / "c" / "notes.txt").write_text("no image")
    found = packed(folder)
    assert found.skipped == {
        "unreadable": ["a/cut.jpg", "c/empty.png"],
        "not 8-bit RGB": ["a/gray.png"],
        "not 12x12": ["b/00_wide.png"],
    }
    assert found.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert np.array_equal(found.images[2], decode(folder / "b" / "0b.png"))


def test_the_cache_follows_the_files(folder: Path, write_photo: WritePhoto, monkeypatch: pytest.MonkeyPatch) -> None:
    first = packed(folder)
    monkeypatch.setattr(image_cache, "decode", lambda path: pytest.fail("the files were read again"))
    again = packed(folder)
    assert np.array_equal(again.images, first.images) and np.array_equal(again.labels, first.labels)
    monkeypatch.undo()
    write_photo(folder / "a" / "9.png", SIZE, SIZE)
    assert packed(folder).labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert len(list(folder.with_name("cache").iterdir())) == 2
    assert packed(folder, size=5).skipped["not 5x5"][0] == "a/0a.png"


@pytest.mark.parametrize("damage", ["shorter", "empty", "other shape", "no index", "half an index", "other index"])
def test_half_a_cache_is_not_trusted(folder: Path, damage: str) -> None:
    whole = packed(folder)
    [data], [index] = (list(folder.with_name("cache").glob(pattern)) for pattern in ("*.npy", "*.json"))
    if damage == "shorter":
        data.write_bytes(data.read_bytes()[:-1])
    elif damage == "empty":
        data.write_bytes(b"")
    elif damage == "other shape":
        np.save(data, whole.images[:-1])
    elif damage == "no index":
        index.unlink()
    else:
        index.write_bytes(index.read_bytes()[:10] if damage == "half an index" else b"{}")
    again = packed(folder)
    assert np.array_equal(again.images, whole.images) and np.array_equal(again.labels, whole.labels)


def test_an_interrupted_build_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(file: object, array: object, allow_pickle: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", stopped)
    with pytest.raises(KeyboardInterrupt):
        packed(folder)
    assert list(folder.with_name("cache").iterdir()) == []


def test_a_cache_that_cannot_be_written(folder: Path) -> None:
    folder.with_name("cache").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match=r"cannot write the cache .*set cache_dir"):
        packed(folder)


@pytest.mark.parametrize("step", ["save", "json"])
def test_an_interrupted_build_leaves_no_part(folder: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    save = np.save

    def half(file, array, **options) -> None:
        save(file, array[:1], **options)
        raise KeyboardInterrupt

    def stop(path: Path, content: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(*((image_cache.np, "save", half) if step == "save" else (image_cache, "write_whole", stop)))
        packed(folder)
    left = [path.suffix for path in folder.with_name("cache").iterdir()]
    assert left == ([] if step == "save" else [".npy"])
    assert len(packed(folder).labels) == 6
