"""One outcome for each job, whatever happens to it; Ctrl-C ends the whole."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.file_jobs import STANDARD, Job, Outcome
from cli.job_pool import Interrupts, guarded, note_lines, outcomes_of, summary

PROGRAM = """
import os, sys, time
from pathlib import Path
from cli.file_jobs import Job, Outcome
from cli.job_pool import run_jobs
from modules.components.files.whole_files import unfinished

def work(job):
    job.source.touch()
    with unfinished(job.target) as temporary:
        temporary.touch()
        for _ in range(600):
            time.sleep(0.05)
    return Outcome(job.source, 1, 1, 1)

if __name__ == "__mp_main__":
    Path(f"starting-{os.getpid()}").touch()
    time.sleep(float(sys.argv[2]))

if __name__ == "__main__":
    jobs = [Job(Path(f"begun/{i}"), Path(f"done/{i}")) for i in range(9)]
    Path("begun").mkdir()
    sys.exit(run_jobs("compress", work, jobs, [], (), workers=int(sys.argv[1]), quiet=False))
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_cancels_what_has_not_begun_and_gives_up_the_rest(workers, whole_group):
    """From a terminal the signal reaches all processes, from elsewhere the first one only."""
    Path("program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, "program.py", str(workers), "0"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while len(list(Path().glob("done/.*.tmp"))) < workers:
        assert process.poll() is None
        time.sleep(0.02)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)  # each job alone would take 30 s, all of them 135
    assert process.returncode == 130
    assert "interrupted: 0 of 9 files were done" in errors and "Traceback" not in errors
    assert len(list(Path("begun").iterdir())) == workers
    assert list(Path("done").iterdir()) == []
    with pytest.raises(ProcessLookupError):  # nobody is left; multiprocessing's resource tracker is the last
        for _ in range(500):
            os.killpg(process.pid, 0)
            time.sleep(0.02)


def test_ctrl_c_while_workers_start_ends_them_too():
    Path("program.py").write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, "program.py", "2", "2"], stderr=subprocess.PIPE, text=True)
    while len(list(Path().glob("starting-*"))) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in errors
    assert len(list(Path("begun").iterdir())) <= 2 and not list(Path().glob("done/*"))


def test_after_an_interrupt_a_worker_begins_nothing():
    interrupts, seen = Interrupts(), []
    interrupts(signal.SIGINT, None)  # between two jobs
    with pytest.raises(KeyboardInterrupt):
        interrupts.guarded(lambda job: seen.append(job), Job(Path("a"), Path("b")))
    assert not seen

    def interrupted(job: Job) -> Outcome:
        try:
            fresh(signal.SIGINT, None)
        except KeyboardInterrupt:
            fresh(signal.SIGINT, None)  # a second one while the first is dealt with
            raise
        raise AssertionError("not reached")

    fresh = Interrupts()
    with pytest.raises(KeyboardInterrupt):
        fresh.guarded(interrupted, Job(Path("a"), Path("b")))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("wrong size"), "wrong size"),
        (OSError(), "OSError"),
        (MemoryError(), "MemoryError: "),
        (TypeError("not a tuple"), "TypeError: not a tuple"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_any_exception_is_the_files_error(error, line):
    def work(job: Job) -> Outcome:
        raise error

    assert guarded(work, Job(Path("a"), Path("b"))) == Outcome(Path("a"), error=line)


def half_fails(job: Job, limit: int) -> Outcome:
    if int(job.source.name) >= limit:
        raise ValueError("too large")
    if job.source.name == "0" and os.environ.get("DIE"):
        os._exit(1)
    return Outcome(job.source, 1, 2, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_has_an_outcome(workers):
    jobs = [Job(Path(str(i)), Path("out")) for i in range(4)]
    outcomes = sorted(outcomes_of(half_fails, jobs, (2,), workers))
    assert [str(o.source) for o in outcomes] == ["0", "1", "2", "3"]
    assert [o.error for o in outcomes] == ["", "", "too large", "too large"]


def own_process(job: Job) -> Outcome:
    return Outcome(job.source, os.getpid())


def test_standard_input_is_read_in_this_process():
    jobs = [Job(Path("a"), Path("out")), Job(STANDARD, STANDARD)]
    assert [o.bytes_in for o in outcomes_of(own_process, jobs, (), 2)] == [os.getpid()] * 2


def test_a_worker_that_dies_is_an_outcome_too(monkeypatch):
    monkeypatch.setenv("DIE", "1")
    outcomes = list(outcomes_of(half_fails, [Job(Path("0"), Path("out"))] * 2, (9,), 2))
    assert len(outcomes) == 2 and all("worker process died" in o.error for o in outcomes)


def test_summary_and_notes():
    done = [Outcome(Path(f"{i}"), 1000, 500, 2_000_000, notes=["cut"] if i else ["cut", "\x1b[0m"]) for i in range(5)]
    assert summary(done, "compress", 4.0) == (
        "5 compressed, 5,000 -> 2,500 bytes, 0.002 bpsp, 50 % smaller than the inputs, "
        "100 % smaller than raw pixels, 4.0 s, 2.50 MB/s of pixels"
    )
    assert summary(done[:1], "verify", 1.0) == "1 verified, 1,000 -> 500 bytes, 1.0 s, 2.00 MB/s of pixels"
    assert list(note_lines(done)) == ["0, 1, 2 and 2 more: cut", "0: \\x1b[0m"]
