"""Which file becomes which, and what is refused before any work is done."""

import errno
import io
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import file_jobs
from cli.file_jobs import STANDARD, Existing, Job, Names, find_jobs, found_files, named, printable, read_whole
from cli.parts import WHOLE, Part
from modules.components.files.whole_files import stem_of

COMPRESS = Names(".l3c", {".png", ".jpg"})
DECOMPRESS = Names(".png", {".l3c"})


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def plan(
    names: Names, *sources: str, output: str = "out", part: Part = WHOLE, **existing: bool
) -> tuple[dict[str, str], list[str]]:
    jobs, refused, _ = find_jobs(
        [Path(s) for s in sources],
        Path(output),
        names,
        lambda path: path.suffix in names.replaced,
        Existing(**existing),
        part,
    )
    return {str(job.source): str(job.target) for job in jobs}, [f"{o.source}: {o.error}" for o in refused]


def test_names_of_results():
    assert [str(COMPRESS.short(Path(p))) for p in ("a.png", "d/B.JPG", "v1.2", "a.l3c.png")] == [
        "a.l3c",
        "d/B.l3c",
        "v1.2.l3c",
        "a.l3c",
    ]
    assert [str(DECOMPRESS.short(Path(p))) for p in ("a.l3c", "a.png.l3c", "a.jpg.l3c")] == [
        "a.png",
        "a.png",
        "a.jpg.png",
    ]


def test_files_that_differ_in_their_suffix_get_two_names():
    touch("in/a.png", "in/a.jpg", "in/b.png", "in/notes.txt")
    jobs, refused = plan(COMPRESS, "in")
    assert jobs == {"in/a.jpg": "out/a.jpg.l3c", "in/a.png": "out/a.png.l3c", "in/b.png": "out/b.l3c"}
    assert not refused
    touch("c/a.l3c", "c/a.png.l3c")
    assert plan(DECOMPRESS, "c")[0] == {"c/a.l3c": "out/a.l3c.png", "c/a.png.l3c": "out/a.png.l3c.png"}


def test_a_file_named_twice_is_one_and_two_folders_may_not_meet():
    touch("x/a.png", "y/a.png")
    assert plan(COMPRESS, "x/a.png", "x", "x/a.png") == ({"x/a.png": "out/a.l3c"}, [])
    jobs, refused = plan(COMPRESS, "x/a.png", "y/a.png")
    assert jobs == {"x/a.png": "out/a.png.l3c"}
    assert refused == ["y/a.png: another input already becomes out/a.png.l3c"]


def test_one_input_may_name_its_file():
    touch("a.png", "b.png", "in/a.png")
    assert plan(COMPRESS, "a.png", output="deep/x.l3c")[0] == {"a.png": "deep/x.l3c"}
    assert plan(COMPRESS, "a.png", output="deep/X.L3C")[0] == {"a.png": "deep/X.L3C"}
    Path("folder.l3c").mkdir()
    assert plan(COMPRESS, "a.png", output="folder.l3c")[0] == {"a.png": "folder.l3c/a.l3c"}
    for sources in (("a.png", "b.png"), ("in",)):
        for output in ("x.l3c", "-"):
            with pytest.raises(ValueError, match="one file, for one input"):
                plan(COMPRESS, *sources, output=output)
    for output in ("x.png", "b.png"):
        with pytest.raises(ValueError, match="no folder"):
            plan(COMPRESS, "a.png", output=output)
    touch("plain")
    with pytest.raises(ValueError, match="no folder"):
        plan(COMPRESS, "a.png", output="plain")


def test_standard_input_and_output(monkeypatch):
    touch("a.png")
    assert plan(COMPRESS, "-", output="-")[0] == {"-": "-"}
    assert plan(COMPRESS, "-", output="x.l3c")[0] == {"-": "x.l3c"}
    assert plan(COMPRESS, "a.png", output="-")[0] == {"a.png": "-"}
    with pytest.raises(ValueError, match="standard input needs"):
        plan(COMPRESS, "-")
    monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(ValueError, match="terminal"):
        plan(COMPRESS, "a.png", output="-")


def test_only_a_bare_dash_is_standard_input():
    assert named("-") == STANDARD and named("./a") == Path("a")
    assert named("./-") == Path.cwd() / "-" and named("x/-") == Path("x/-")
    touch("-", "x/-")
    pairs, refused = found_files([named("./-"), Path("."), Path("x")], lambda path: True)
    here = Path.cwd() / "-"
    assert pairs == [(here, Path("-")), (Path("x/-"), Path("x/-")), (Path("x/-"), Path("-"))] and not refused


def test_what_is_there_is_left_without_force():
    touch("a.png", "out/a.l3c")
    assert plan(COMPRESS, "a.png")[1] == ["a.png: out/a.l3c exists; --force overwrites it, --resume keeps it"]
    assert plan(COMPRESS, "a.png", force=True)[0] == {"a.png": "out/a.l3c"}


def test_pipes_devices_and_folders_are_neither_read_nor_replaced():
    touch("a.png")
    os.mkfifo("pipe.png")
    assert plan(COMPRESS, "pipe.png", "/dev/null", "none.png")[1] == [
        "pipe.png: not a regular file",
        "/dev/null: not a regular file",
        "none.png: no such file",
    ]
    Path("out").mkdir()
    os.mkfifo("out/a.l3c")
    assert "not a regular file" in plan(COMPRESS, "a.png", force=True)[1][0]
    Path("in").mkdir()
    os.mkfifo("in/b.png")
    assert plan(COMPRESS, "in")[1] == ["in: no files for this command in the folder"]


def test_names_at_the_limit():
    longest = "n" * 251 + ".png"
    touch(longest)
    assert plan(COMPRESS, longest)[0] == {longest: f"out/{'n' * 251}.l3c"}
    assert "longer than 255 bytes" in plan(Names(".l3c", ()), longest)[1][0]


def test_a_path_that_the_system_refuses_is_refused_alone(monkeypatch):
    touch("a.png", "in/b.png", "in/locked.png")
    long = "n" * 300 + ".png"
    assert plan(COMPRESS, long, "a.png") == ({"a.png": "out/a.l3c"}, [f"{long}: File name too long"])
    assert plan(COMPRESS, long, output="x.l3c") == ({}, [f"{long}: File name too long"])
    is_file = Path.is_file

    def locked(self):
        if "locked" in self.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return is_file(self)

    monkeypatch.setattr(Path, "is_file", locked)
    assert plan(COMPRESS, "in", "a.png") == (
        {"in/b.png": "out/b.l3c", "a.png": "out/a.l3c"},
        ["in/locked.png: Permission denied"],
    )


def test_a_target_that_the_system_refuses_is_refused_alone(monkeypatch):
    touch("a.png", "b.png")
    exists = Path.exists

    def locked(self):
        if self == Path("out/a.l3c"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return exists(self)

    monkeypatch.setattr(Path, "exists", locked)
    jobs, refused = plan(COMPRESS, "a.png", "b.png")
    assert jobs == {"b.png": "out/b.l3c"} and refused == ["a.png: out/a.l3c: Permission denied"]


def test_control_characters_are_escaped():
    assert printable("a\x1b[31m\u202eb\udc80\x9b ä\n c") == "a\\x1b[31m\\u202eb\\udc80\\x9b ä c"


def test_reading_is_bounded(monkeypatch):
    Path("a").write_bytes(b"12345")
    for limit in (5, 4):
        monkeypatch.setattr(file_jobs, "MAX_BYTES", limit)
        for source in (Path("a"), STANDARD):
            monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"12345")))
            if limit == 5:
                assert read_whole(source) == b"12345"
            else:
                with pytest.raises(ValueError, match="more than"):
                    read_whole(source)
    assert Job(Path("a"), STANDARD).target == Path("-")


def test_parts_share_the_files_whatever_is_written_meanwhile():
    touch(*(f"in/{number}.png" for number in range(7)))
    whole, _ = plan(COMPRESS, "in", "absent.png")
    first, refused = plan(COMPRESS, "in", "absent.png", part=Part(0, 3), resume=True)
    assert refused == ["absent.png: no such file"]
    touch(*first.values())  # while the others have not begun
    others = [plan(COMPRESS, "in", "absent.png", part=Part(number, 3), resume=True) for number in (1, 2)]
    assert [complaints for _, complaints in others] == [[], []]
    shares = [first, *(jobs for jobs, _ in others)]
    assert [len(share) for share in shares] == [3, 2, 2]
    assert {**shares[0], **shares[1], **shares[2]} == whole


def test_a_resumed_call_keeps_what_is_there_and_removes_what_a_killed_one_left():
    left, other = f"out/.{stem_of(Path('b.l3c'))}01234567.tmp", "out/.0123456789abcdef.tmp"
    touch("in/a.png", "in/b.png", "out/a.l3c", left, other)
    for existing in (Existing(), Existing(force=True)):  # another process may be writing
        find_jobs([Path("in")], Path("out"), COMPRESS, lambda path: True, existing)
        assert Path(left).exists()
    found = find_jobs([Path("in")], Path("out"), COMPRESS, lambda path: True, Existing(resume=True))
    assert found == ([Job(Path("in/b.png"), Path("out/b.l3c"))], [], 1)
    assert Path(other).exists() and not Path(left).exists()
    touch("x/a.png")
    refused = plan(COMPRESS, "in/a.png", "x/a.png", resume=True)[1]
    assert refused == ["x/a.png: another input already becomes out/a.png.l3c"]
