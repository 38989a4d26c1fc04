"""Running the trials of a sweep, several at a time, until the search has no other or the limit is reached."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from cli.sweeps import processes
from cli.sweeps.distributions import Parameters
from cli.sweeps.hyperband import Hyperband
from cli.sweeps.processes import Process, Share
from cli.sweeps.search import Search
from cli.sweeps.trial import FAILED, FINISHED, STOPPED, Trial, recorded

MAX_STARTS = 3
"""Of one trial in one sweep: a process that is killed, for memory say, is not the config's mistake."""
PAUSE = 0.2
"""Seconds between two looks at the trials."""


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM ends a sweep as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


class Runner:
    """The loop of a sweep. All that it knows beyond its own processes lies in the trials' folders.

    Args:
        sweep: the checked file.
        folder: of the sweep.
        search: what to try next.
        limit: trials at most, those of earlier starts among them; None for no limit.
        hyperband: early termination, if the file asks for it.
        workers: trials that run side by side.
    """

    def __init__(
        self,
        sweep: Parameters,
        folder: Path,
        search: Search,
        limit: int | None,
        hyperband: Hyperband | None,
        workers: int,
    ) -> None:
        self.sweep, self.folder, self.search = sweep, folder, search
        self.limit, self.hyperband = limit, hyperband
        metric = sweep.get("metric", {})
        self.metric, self.target = metric.get("name"), metric.get("target")
        self.maximize = metric.get("goal") == "maximize"
        self.planned = search.goes_on_from(recorded(folder))[:limit]
        self.waiting = list(self.planned)
        self.running: list[Process] = []
        self.free = [Share(worker, workers) for worker in range(workers)]
        self.failures: dict[str, int] = {}

    def run(self) -> list[Trial]:
        """Every trial of the sweep, once none is left to run.

        Raises:
            KeyboardInterrupt: at Ctrl-C or SIGTERM, after the trials have saved their checkpoints.
        """
        with sigterm_as_ctrl_c():
            try:
                while self.fill() or self.running:
                    time.sleep(PAUSE)
                    self.look()
            except BaseException:  # a full disk, too
                self.leave()
                raise
        return self.planned

    def fill(self) -> bool:
        """Start trials while a worker is free; whether one was started."""
        begun = False
        while self.free and (trial := self.next_trial()):
            begun = True
            self.say(trial, f"number {trial.number}{f' of {self.limit}' if self.limit else ''} {trial.parameters}")
            self.running.append(processes.start(self.sweep, trial, self.free.pop(0)))
        return begun

    def next_trial(self) -> Trial | None:
        """The next one that is not done."""
        while trial := self.waiting.pop(0) if self.waiting else self.plan():
            # A sweep that was killed may have left the process of a trial that it meant to stop.
            if trial.state not in (FINISHED, STOPPED) or (trial.state == STOPPED and processes.is_alive(trial.folder)):
                return trial
        return None

    def plan(self) -> Trial | None:
        if (self.limit is not None and len(self.planned) >= self.limit) or self.is_reached():
            return None
        proposal = self.search.propose(self.planned)
        if proposal is None:
            return None
        trial = Trial(proposal[0], self.folder, proposal[1], len(self.planned) + 1)
        self.planned.append(trial)
        return trial

    def is_reached(self) -> bool:
        """Whether a finished trial is as good as the metric's target."""
        if self.target is None:
            return False
        scores = [trial.score(self.metric, self.maximize) for trial in self.planned if trial.state == FINISHED]
        return any(
            score is not None and (score >= self.target if self.maximize else score <= self.target) for score in scores
        )

    def look(self) -> None:
        """Take note of the trials that have ended, and end those that early termination gives up."""
        for process in list(self.running):
            code = process.exit_code()
            if code is not None:
                self.running.remove(process)
                self.free.append(process.share)
                self.ended(process, code)
            elif self.hyperband and not process.is_told:
                self.judge(process, self.hyperband)

    def judge(self, process: Process, hyperband: Hyperband) -> None:
        """End a trial that is not among the best at its band."""
        trial, history = process.trial, process.trial.history(self.metric)
        if len(history) == process.num_judged:
            return
        process.num_judged = len(history)
        band = hyperband.stops(history, [other.history(self.metric) for other in self.planned])
        if band is not None:
            trial.note(state=STOPPED, band=band)  # before the signal: a sweep that is killed here knows
        if trial.state == STOPPED:
            process.tell_to_stop()

    def ended(self, process: Process, code: int) -> None:
        trial = process.trial
        if trial.state == FINISHED:
            trial.note(state=FINISHED)
            return self.say(trial, f"finished, {self.metric} {trial.score(self.metric, self.maximize)}")
        if trial.state == STOPPED:
            return self.say(trial, f"stopped at band {trial.record.get('band')}")
        was_killed = code < 0 or code > 128 or process.popen is None
        self.failures[trial.name] = self.failures.get(trial.name, 0) + 1
        if was_killed and self.failures[trial.name] < MAX_STARTS:
            self.say(trial, f"was killed (exit code {code}): it goes on from its last checkpoint", is_error=True)
            self.waiting.insert(0, trial)
        else:
            trial.note(state=FAILED, exit_code=code)
            self.say(trial, f"failed with exit code {code}{process.last_line()}", is_error=True)

    def say(self, trial: Trial, text: str, is_error: bool = False) -> None:
        print(f"trial {trial.name}: {text}", file=sys.stderr if is_error else sys.stdout, flush=True)

    def leave(self) -> None:
        """Let the trials save their checkpoints; a second Ctrl-C ends them at once."""
        print(
            f"stopping {len(self.running)} trials, which save a checkpoint first; Ctrl-C to leave at once", flush=True
        )
        try:
            for process in self.running:
                process.tell_to_stop()
            while any(process.exit_code() is None for process in self.running):
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            for process in self.running:
                process.kill()
