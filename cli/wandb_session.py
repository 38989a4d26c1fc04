"""wandb around one run: offline unless somebody is logged in, never a question, closed at the end."""

import atexit
import json
import netrc
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pytorch_lightning.loggers import WandbLogger

from cli import claim

AGENT_PARAMETER = "_wandb"
"""A preempted run comes back from the agent with this extra parameter, which no config knows (wandb#4237)."""


def is_logged_in() -> bool:
    """True if wandb would find a key by itself."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


class OurWandbLogger(WandbLogger):
    """WandbLogger that opens its run with the first batch behind it: a start that fails leaves no crashed run.

    Training outlives wandb's own process, which the kernel may end where memory is short: a warning, and nothing more
    is sent. It also leaves out the argument that wandb 0.31 warns of in every run.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wandb_init.pop("anonymous", None)
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.is_lost = False

    @property
    def experiment(self) -> Any:
        """wandb's run. Lightning asks with ``hasattr`` whether there is one before anything else is ready."""
        if self._experiment is None and not claim.has_begun():
            raise AttributeError("the wandb run opens with the first batch")
        return super().experiment

    def __getstate__(self) -> dict[str, Any]:
        """Of a copy, such as averages of weights make with the module of all it knows. Lightning's opens the run."""
        return super().__getstate__() if claim.has_begun() else self.__dict__ | {"waiting": []}

    def log_hyperparams(self, params: Any) -> None:
        self._log(super().log_hyperparams, params)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._log(super().log_metrics, metrics, step)

    def define_metric(self, name: str, step_metric: str) -> None:
        """Draw ``name`` over ``step_metric`` on the run's page."""
        self._log(lambda: self.experiment.define_metric(name, step_metric=step_metric))

    def _log(self, write: Callable[..., None], *content: Any) -> None:
        self.waiting.append((write, content))
        if claim.has_begun():
            waiting, self.waiting = self.waiting, []
            for write_one, its_content in waiting:
                if not self.is_lost:
                    self.is_lost = not survives(write_one, *its_content)


def is_loss(error: Exception) -> bool:
    """True for what wandb raises where its process is gone; its own two errors have no public place."""
    return isinstance(error, ConnectionError) or type(error).__name__ in ("MailboxClosedError", "HandleAbandonedError")


def survives(call: Callable[..., Any], *content: Any, **options: Any) -> bool:
    """Call wandb; False, after a line on stderr, if its process is gone. The run is closed then."""
    try:
        call(*content, **options)
    except Exception as error:
        if not is_loss(error):
            raise
        found = whereabouts()
        close_without_process()
        kept = f", and {found} has what came before" if found else ""
        print(f"warning: wandb's process has ended: from here on metrics.csv alone is written{kept}", file=sys.stderr)
        return False
    return True


def close_without_process() -> None:
    """Give the output streams back and take back what wandb would do when Python ends."""
    import wandb

    for close in (lambda: wandb.finish(exit_code=1), wandb.teardown):
        try:
            close()
        except Exception as error:
            if not is_loss(error):
                raise
    wandb.run = None  # finish() reaches this only behind a message to the process


@contextmanager
def session() -> Iterator[None]:
    """Choose what the environment does not, the mode and silence, and finish the run however the block ends."""
    chosen = {"WANDB_MODE": "online" if is_logged_in() else "offline", "WANDB_SILENT": "true"}
    chosen = {name: value for name, value in chosen.items() if name not in os.environ}
    os.environ.update(chosen)
    failed = True
    try:
        yield
        failed = False
    finally:
        if (wandb := sys.modules.get("wandb")) and wandb.run is not None:
            survives(wandb.finish, exit_code=int(failed))
        for name in chosen:
            os.environ.pop(name, None)


@contextmanager
def stop_is_no_failure() -> Iterator[None]:
    """End by SIGTERM itself, in place of exit code 143, where wandb's agent told a trial to stop.

    The agent takes any code above 0 for a failure, and gives up after three in its first minute, or five that are half
    of all: early termination would end the sweep.
    """
    try:
        yield
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGTERM and "WANDB_SWEEP_ID" in os.environ:
            atexit._run_exitfuncs()  # a signal leaves them out
            sys.stdout.flush()
            sys.stderr.flush()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        raise


def whereabouts() -> str | None:
    """Where to look at the run that is open: its page, or the command that uploads it; None if there is none."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None or wandb.run.disabled:
        return None
    if wandb.run.url:
        return wandb.run.url
    return f"wandb sync {os.path.relpath(Path(wandb.run.dir).parent)}"


def _clean_json(word: str) -> str:
    """``word``; if it is or ends in ``=`` and a JSON file with the agent's parameter, a copy's path in its place."""
    option, _, path = word.rpartition("=")
    if not path.endswith(".json") or not Path(path).is_file():
        return word
    try:
        content = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict) or AGENT_PARAMETER not in content:
        return word
    del content[AGENT_PARAMETER]
    with tempfile.NamedTemporaryFile("w", prefix="sweep-", suffix=".json", delete=False) as copy:
        json.dump(content, copy)
    return f"{option}={copy.name}" if option else copy.name


def without_agent_parameters(args: Any) -> Any:
    """``args`` (None: the command line) without ``--_wandb=...`` and with JSON files cleaned of it."""
    words = sys.argv[1:] if args is None else args
    if not isinstance(words, list):
        return args
    words = [_clean_json(w) for w in words if not str(w).startswith(f"--{AGENT_PARAMETER}")]
    return args if args is None and words == sys.argv[1:] else words
