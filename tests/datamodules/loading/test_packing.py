"""When a packed copy is built, and how often."""

from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.loading.packing import fingerprint, load_or_build, remove_others


def counted(found: list[str | None]) -> tuple[Callable[[], str | None], Callable[[], None], list[str]]:
    """What successive loads find, and a record of the builds."""
    answers, builds = iter(found), list[str]()
    return lambda: next(answers), lambda: builds.append("built"), builds


@pytest.mark.parametrize(
    ("found", "num_builds"), [(["x"], 0), ([None, "x"], 1), ([None, None, "x"], 2), ([None, None, None, "x"], 3)]
)
def test_a_copy_that_is_removed_before_it_is_loaded_is_built_again(found: list[str | None], num_builds: int) -> None:
    load, build, builds = counted(found)
    assert load_or_build(Path("cache"), load, build) == "x"
    assert len(builds) == num_builds


def test_but_not_for_ever() -> None:
    load, build, builds = counted([None] * 9)
    with pytest.raises(ValueError, match="another process replaces the cache here by its own: set cache_dir"):
        load_or_build(Path("here"), load, build)
    assert len(builds) == 3


def test_a_cache_that_cannot_be_written_is_named() -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match=r"cannot write the cache here \(No space left on device\): set cache_dir"):
        load_or_build(Path("here"), lambda: None, full)


def test_a_fingerprint_follows_names_sizes_times_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("one")

    def key(name: str = "a", *settings: object) -> str:
        return fingerprint([(name, file.stat())], *settings)

    first = key()
    assert len(first) == 16 and key() == first
    assert len({first, key("b"), key("a", 1), key("a", 2)}) == 4
    file.write_text("longer")
    assert key() != first


def test_only_other_keys_and_their_patterns_are_removed(tmp_path: Path) -> None:
    for name in ("images-1.npy", "images-2.npy", "index-1.json", "notes-1.txt"):
        (tmp_path / name).touch()
    remove_others(tmp_path, "2", "images-*.npy", "index-*.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images-2.npy", "notes-1.txt"]
