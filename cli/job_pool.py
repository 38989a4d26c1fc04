"""Jobs in this process or in several, one outcome each, and what a person sees of them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from types import FrameType
from typing import Any, cast

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.file_jobs import STANDARD, Job, Outcome, printable

MAX_NAMES = 3
Work = Callable[..., Outcome]

console = Console(stderr=True, soft_wrap=True)


def complain(text: object) -> None:
    console.print(printable(text), style="red", markup=False, highlight=False)


def guarded(work: Work, job: Job, *arguments: Any) -> Outcome:
    """The outcome of one file; whatever goes wrong with it becomes one line, and the other files go on."""
    try:
        return work(job, *arguments)
    except (ValueError, OSError, RuntimeError) as error:
        return Outcome(job.source, error=str(error) or type(error).__name__)
    except Exception as error:
        return Outcome(job.source, error=f"{type(error).__name__}: {error}")


class Interrupts:
    """Ctrl-C in a worker: the file at hand is given up, its part removed, and no other is begun."""

    def __init__(self) -> None:
        self.received = self.working = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if self.working:
            self.working = False  # a second one must not disturb the tidying up
            raise KeyboardInterrupt

    def guarded(self, work: Work, job: Job, *arguments: Any) -> Outcome:
        self.working = True
        try:
            if self.received:
                raise KeyboardInterrupt
            return guarded(work, job, *arguments)
        finally:
            self.working = False


_interrupts = Interrupts()


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, _interrupts)
    torch.set_num_threads(threads)


def _in_worker(work: Work, job: Job, *arguments: Any) -> Outcome:
    return _interrupts.guarded(work, job, *arguments)


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """For processes that are started meanwhile: they inherit it until they have a handler of their own."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def outcomes_of(work: Work, jobs: Sequence[Job], arguments: tuple, workers: int) -> Iterable[Outcome]:
    """Outcomes as they come, from this process or from ``workers`` processes that share the cores.

    Standard input is read in this process, as the others have none.
    """
    if workers == 1 or len(jobs) <= 1 or any(job.source == STANDARD for job in jobs):
        yield from (guarded(work, job, *arguments) for job in jobs)
        return
    workers = min(workers, len(jobs))
    threads = max(1, torch.get_num_threads() // workers)
    pool: Executor
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (threads,)) as pool:
        with _ctrl_c_ignored():
            futures: dict[Future[Outcome], Job] = {pool.submit(_in_worker, work, job, *arguments): job for job in jobs}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except Exception as error:  # a worker killed from outside, for memory say
                    yield Outcome(futures[future].source, error=f"its worker process died: {error}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _interrupt_workers()
            raise


def _interrupt_workers() -> None:
    """Until all are gone: one that is still starting ignores what it is told."""
    while children := multiprocessing.active_children():
        for process in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(cast(int, process.pid), signal.SIGINT)
        time.sleep(0.05)


def run_jobs(
    verb: str, work: Work, jobs: Sequence[Job], refused: list[Outcome], arguments: tuple, workers: int, quiet: bool
) -> int:
    """Do the work behind a progress bar, report, and return the exit code: 0, 1 if a file failed, 130 on Ctrl-C.

    Args:
        verb: compress, decompress or verify.
        work: called with a job and ``arguments``.
        jobs, refused: of ``file_jobs.find_jobs``.
        arguments: for ``work``, as they travel to other processes.
        workers: processes.
        quiet: keep standard output free, for the result itself.
    """
    done: list[Outcome] = []
    failed = list(refused)
    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    start, interrupted = time.perf_counter(), False
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, disable=len(jobs) < 2) as progress:
        task = progress.add_task(verb, total=len(jobs), rate="")
        try:
            for outcome in outcomes_of(work, jobs, arguments, workers):
                (failed if outcome.error else done).append(outcome)
                progress.update(task, advance=1, rate=rate(done, verb))
        except KeyboardInterrupt:
            interrupted = True
    seconds = time.perf_counter() - start
    for outcome in failed:
        complain(f"{outcome.source}: {outcome.error}")
    for line in note_lines(done):
        console.print(line, markup=False, highlight=False)
    if done:
        print(summary(done, verb, seconds), file=sys.stderr if quiet else sys.stdout)
    if interrupted:
        complain(f"interrupted: {len(done) + len(failed) - len(refused)} of {len(jobs)} files were done")
        return 130
    return 1 if failed else 0


def past(verb: str) -> str:
    return "verified" if verb == "verify" else f"{verb}ed"


def rate(done: Sequence[Outcome], verb: str) -> str:
    """Mean over files of the bits per sub-pixel."""
    if not done or verb != "compress":
        return ""
    return f"{sum(8 * o.bytes_out / o.subpixels for o in done) / len(done):.3f} bpsp"


def summary(done: Sequence[Outcome], verb: str, seconds: float) -> str:
    """Counts, sizes, time, and megabytes (10^6) of pixels a second."""
    speed = sum(o.subpixels for o in done) / 1e6 / seconds
    parts = [
        f"{len(done)} {past(verb)}",
        f"{sum(o.bytes_in for o in done):,} -> {sum(o.bytes_out for o in done):,} bytes",
        *([rate(done, verb), *savings(done)] if verb == "compress" else []),
        f"{seconds:.1f} s",
        f"{speed:.2f} MB/s of pixels",
    ]
    return ", ".join(parts)


def savings(done: Sequence[Outcome]) -> Iterator[str]:
    """How much smaller the results are than the sources and than raw pixels."""
    result = sum(o.bytes_out for o in done)
    for name, size in (("the inputs", sum(o.bytes_in for o in done)), ("raw pixels", sum(o.subpixels for o in done))):
        percent = 100 * (1 - result / size)
        yield f"{abs(percent):.0f} % {'smaller' if percent >= 0 else 'larger'} than {name}"


def note_lines(done: Sequence[Outcome]) -> Iterator[str]:
    """What results do not keep: a line for each kind, with the files that it is about."""
    sources: dict[str, list[str]] = {}
    for outcome in done:
        for note in outcome.notes:
            sources.setdefault(note, []).append(str(outcome.source))
    for note, names in sources.items():
        more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
        yield printable(f"{', '.join(names[:MAX_NAMES])}{more}: {note}")
