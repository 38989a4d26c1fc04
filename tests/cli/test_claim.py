"""One process holds a folder, whatever ends it; what a failed start has made goes away, and nothing else."""

import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import claim, run_folder

HOLD = (
    "import sys, time; from pathlib import Path; from cli import claim; claim.lock(Path(sys.argv[1])); time.sleep(60)"
)


def hold(folder: Path) -> subprocess.Popen:
    """Another process that holds the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)])
    deadline = time.monotonic() + 60
    while not ((folder / ".lock").exists() and f"process {process.pid} on" in (folder / ".lock").read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    return process


def test_a_folder_is_held_until_its_process_dies() -> None:
    folder = Path("runs/000")
    other = hold(folder)
    with (
        pytest.raises(ValueError, match=rf"written by process {other.pid} on {platform.node()}: wait"),
        claim.session(),
    ):
        claim.lock(folder)
    assert f"process {other.pid} " in (folder / ".lock").read_text()
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with claim.session():
        claim.lock(folder)
        assert (folder / ".lock").read_text().split()[1] == str(os.getpid())
    again = hold(folder)  # let go at the end of the session, though this process lives
    again.kill()
    again.wait()


def test_a_fit_locks_its_folder_and_what_reads_or_shares_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.cli.test_run_folder import checkpoint, config

    last = str(checkpoint("000", "last"))
    other = hold(last_folder := Path(last).parents[1])
    try:
        with claim.session(), run_folder.forget_at_end(), pytest.raises(ValueError, match="written by process"):
            run_folder.place(config(last), "fit", "f")
        with claim.session(), run_folder.forget_at_end():
            assert run_folder.place(config(last), "test", "f") == last_folder
        monkeypatch.setenv(run_folder.CHOSEN, str(last_folder))  # a rank that Lightning has started
        with claim.session(), run_folder.forget_at_end():
            assert run_folder.place(config(last), "fit", "f") == last_folder
        monkeypatch.delenv(run_folder.CHOSEN)
        monkeypatch.setenv("WANDB_RUN_ID", "w")  # a rank of an outer launcher
        marker = last_folder.parent / ".launches" / "wandb-w-fit-f"
        marker.parent.mkdir()
        marker.write_text("000")
        monkeypatch.setenv("RANK", "1")
        with claim.session(), run_folder.forget_at_end():
            assert run_folder.place(config(last), "fit", "f") == last_folder
    finally:
        other.kill()
        other.wait()


def failing(folder: Path, *files: str, begun: bool = False) -> None:
    with pytest.raises(KeyError), claim.session():
        claim.make(folder)
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).touch()
        claim.leave_note(folder.parent / ".launches" / "slurm-1", folder.name)
        if begun:
            claim.begin()
        raise KeyError


def test_a_failed_start_leaves_nothing() -> None:
    Path("mine").mkdir()
    failing(Path("mine/l3c/small/000"), "wandb/log", "config.fit.yaml")
    assert Path("mine").is_dir() and not [*Path("mine").iterdir()]


def test_work_and_the_runs_of_others_stay() -> None:
    failing(Path("runs/a/000"), "checkpoints/last.ckpt")
    failing(Path("runs/a/001"), "csv/metrics.csv", begun=True)
    failing(Path("runs/a/002"))
    assert sorted(path.name for path in Path("runs/a").iterdir()) == [".launches", "000", "001"]
    assert Path("runs/a/.launches/slurm-1").exists()  # of the first
    with claim.session():
        claim.make(Path("runs/a/002"))
    with pytest.raises(FileExistsError):
        claim.make(Path("runs/a/002"))
    with pytest.raises(KeyError), claim.session():
        raise KeyError  # made nothing
    assert Path("runs/a/002").is_dir()


def test_a_trial_leaves_nothing_even_if_it_works() -> None:
    with claim.session():
        folder = claim.make_trial()
        claim.begin()
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        assert folder.is_dir()
    assert not folder.exists()


def test_a_note_is_replaced_at_once() -> None:
    with claim.session():
        for text in ("000", "001"):
            claim.leave_note(Path(".launches/job"), text)
    assert [path.name for path in Path(".launches").iterdir()] == ["job"]
    assert Path(".launches/job").read_text() == "001"
