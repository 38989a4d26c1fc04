"""The jobs of one process of several: who takes which file, and who names what is none."""

from argparse import Namespace
from pathlib import Path

import pytest

from cli.codec_files import is_image
from cli.file_jobs import Job, Names
from cli.own_jobs import own_files, own_jobs
from cli.parts import LAUNCHERS

NAMES = Names(".l3c", (".png",))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Namespace:
    """Five images in a folder, and a file that is not there."""
    for variable in (name for names in LAUNCHERS for name in names):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.png").write_text("x")
    files = [tmp_path / "in", tmp_path / "absent.png"]
    return Namespace(files=files, output=tmp_path / "out", part=None, force=False, resume=False)


@pytest.mark.parametrize(("part", "numbers"), [(None, [0, 1, 2, 3, 4]), ("1/2", [0, 2, 4]), ("2/2", [1, 3])])
def test_the_part_of_a_call(
    call: Namespace, part: str | None, numbers: list[int], capsys: pytest.CaptureFixture
) -> None:
    call.part = part
    sources = [call.files[0] / f"{number}.png" for number in numbers]
    for found in (lambda: own_jobs(call, NAMES, is_image), lambda: own_files(call, is_image)):
        jobs, refused = found()
        assert [job.source for job in jobs] == sources
        assert [outcome.error for outcome in refused] == ([] if part == "2/2" else ["no such file"])
        said = capsys.readouterr().err
        assert said == (f"part {part[0]} of 2: {len(numbers)} files\n" if part else "")
    assert own_files(call, is_image)[0] == [Job(source, source) for source in sources]
    assert [job.target.name for job in own_jobs(call, NAMES, is_image)[0]] == [f"{number}.l3c" for number in numbers]


def test_what_is_there_is_kept_or_refused(call: Namespace, capsys: pytest.CaptureFixture) -> None:
    call.output.mkdir()
    (call.output / "3.l3c").write_text("there")
    assert len(own_jobs(call, NAMES, is_image)[1]) == 2 and capsys.readouterr().err == ""
    call.resume = True
    jobs, refused = own_jobs(call, NAMES, is_image)
    assert len(jobs) == 4 and len(refused) == 1
    assert capsys.readouterr().err == "1 results are there already\n"
    call.resume, call.force = False, True
    assert len(own_jobs(call, NAMES, is_image)[0]) == 5
