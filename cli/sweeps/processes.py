"""Trials as processes: the command, a group and a share of the machine each, and finding them again.

A trial's process and its forked workers hold a lock on ``<trial>/.lock``, which the sweep opened for them. A sweep that
is killed leaves its trials running; the next one sees the lock and waits for them.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cli.checkout import ROOT
from cli.sweeps.distributions import Parameters
from cli.sweeps.trial import Trial

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

DEFAULT_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]
ENVIRONMENT = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")


def command_of(sweep: Parameters, parameters: Parameters, json_file: Path) -> list[str]:
    """The words that wandb's agent would run."""
    flags = [f"--{name}={value}" for name, value in parameters.items()]
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [str(ROOT / sweep.get("program", "train.py"))],
        "${args}": flags,
        "${args_no_equals}": [word for flag in flags for word in flag.split("=", 1)],
        "${args_json}": [json.dumps(parameters)],
        "${args_json_file}": [str(json_file)],
    }
    words = [word for chunk in sweep.get("command", DEFAULT_COMMAND) for word in macros.get(str(chunk), [str(chunk)])]
    return [ENVIRONMENT.sub(lambda found: os.environ.get(found[1], found[1]), word) for word in words]


class Share(NamedTuple):
    """What one of several workers has of the machine."""

    worker: int
    workers: int

    def environment(self) -> dict[str, str]:
        """Threads and GPUs of this worker's trials, as far as the user has not said it.

        GPUs are shared only where CUDA_VISIBLE_DEVICES names at least one for each worker.
        """
        if self.workers == 1:
            return {}
        found = {}
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if "OMP_NUM_THREADS" not in os.environ:
            found["OMP_NUM_THREADS"] = str(max(1, cores // self.workers))
        devices = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        if len(devices) >= self.workers:
            found["CUDA_VISIBLE_DEVICES"] = ",".join(devices[self.worker :: self.workers])
        return found


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Any]:
    """The open lock file of a trial, held; a BlockingIOError where a process of the trial still lives."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        if fcntl is not None:
            # flock's locks, unlike record locks, go with the open file, and so to the process that inherits it.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file


def is_alive(folder: Path) -> bool:
    """Whether a process of the trial lives."""
    with contextlib.suppress(BlockingIOError), locked(folder):
        return False
    return True


class Process:
    """A running trial, of this sweep (``popen``) or left by one that was killed."""

    def __init__(self, trial: Trial, share: Share, popen: subprocess.Popen | None) -> None:
        self.trial, self.share, self.popen = trial, share, popen
        self.is_told, self.num_judged = False, -1

    def exit_code(self) -> int | None:
        """None while it runs; nobody knows that of another sweep's process, which counts as 0."""
        if self.popen is not None:
            return self.popen.poll()
        return None if is_alive(self.trial.folder) else 0

    def tell_to_stop(self) -> None:
        """Once, and only the leader: it tells its ranks, while its workers must live until it has saved."""
        if not self.is_told:
            self.is_told = True
            self._signal(os.kill, signal.SIGTERM)

    def kill(self) -> None:
        self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send: Callable[[int, int], None], number: int) -> None:
        pid = self.popen.pid if self.popen is not None else self.trial.record.get("pid")
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if isinstance(pid, int) and self.exit_code() is None:
                send(pid, number)

    def last_line(self) -> str:
        """What it said last, where it did not say it here."""
        file = self.trial.folder / "output.txt"
        lines = file.read_text(errors="replace").split("\n") if self.share.workers > 1 and file.exists() else []
        return next((f": {line.strip()}" for line in reversed(lines) if line.strip()), "")


def start(sweep: Parameters, trial: Trial, share: Share) -> Process:
    """Run a trial, or go on with it where it runs already.

    The wandb run id leads a trial that is started again back to its run folder. Side by side, trials print to
    ``output.txt``.
    """
    folder = trial.folder
    try:
        with locked(folder) as lock:
            json_file = folder / "parameters.json"
            json_file.write_text(json.dumps(trial.parameters, indent=2) + "\n")
            environment = os.environ | {
                "WANDB_RUN_ID": f"{folder.parent.name}-{folder.name}",
                "WANDB_SWEEP_ID": folder.parent.name,
                "WANDB_MODE": os.environ.get("WANDB_MODE", "offline"),
                **share.environment(),
            }
            words = [*command_of(sweep, trial.parameters, json_file.resolve()), f"--run.dir={folder}"]
            trial.note(starts=trial.starts + 1, state="unfinished")
            with contextlib.ExitStack() as stack:
                output = None if share.workers == 1 else stack.enter_context((folder / "output.txt").open("ab"))
                popen = subprocess.Popen(
                    words,
                    env=environment,
                    stdout=output,
                    stderr=output,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),) if fcntl is not None else (),
                )
            trial.note(pid=popen.pid)
            return Process(trial, share, popen)
    except BlockingIOError:
        return Process(trial, share, None)
