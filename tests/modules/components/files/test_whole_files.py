"""Files that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from modules.components.files.whole_files import remove_leftovers, unfinished, write_whole


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "file.bin"
    with unfinished(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.startswith(".") and temporary.suffix == ".tmp"
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new" and list(target.parent.iterdir()) == [target]
    write_whole(target, b"newer")
    assert target.read_bytes() == b"newer" and list(target.parent.iterdir()) == [target]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write_whole(tmp_path / "file", b"old")
    with pytest.raises(RuntimeError), unfinished(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_two_writers_do_not_meet(tmp_path: Path) -> None:
    with unfinished(tmp_path / "file") as one, unfinished(tmp_path / "file") as other:
        assert one != other
        one.write_bytes(b"1")
        other.write_bytes(b"2")
    assert (tmp_path / "file").read_bytes() == b"1" and len(list(tmp_path.iterdir())) == 1


def test_the_leftovers_of_one_file_are_removed(tmp_path: Path) -> None:
    kept = []
    for name in ("file", "other", "x" * 250, os.fsdecode(b"\xff")):
        with unfinished(tmp_path / name) as temporary:
            temporary.write_bytes(b"half")
            os.link(temporary, left := temporary.with_name(temporary.name.replace(".tmp", "0.tmp")))
            kept.append(left)
    for number, name in enumerate(("file", "x" * 250, os.fsdecode(b"\xff"))):
        remove_leftovers(tmp_path / name)
        assert sum(path.exists() for path in kept) == 3 - number
    assert kept[1].exists()
    remove_leftovers(tmp_path / "nothing")
    assert kept[1].exists() and (tmp_path / "file").read_bytes() == b"half"
