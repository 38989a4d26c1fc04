"""wandb never asks and never sees the agent's own parameter."""

import copy
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import claim
from cli.wandb_session import (
    OurWandbLogger,
    is_logged_in,
    session,
    stop_is_no_failure,
    whereabouts,
    without_agent_parameters,
)


def test_the_agents_parameter_is_taken_out() -> None:
    Path("a.json").write_text(json.dumps({"model.lr": 1, "_wandb": {"x": 2}}))
    Path("b.json").write_text(json.dumps({"model.lr": 1}))
    words = without_agent_parameters(
        ["fit", "--config", "a.json", "--config=a.json", "--config", "b.json", "--_wandb={}"]
    )
    assert words[0] == "fit" and words[4:] == ["--config", "b.json"]
    for path in (words[2], words[3].removeprefix("--config=")):
        assert json.loads(Path(path).read_text()) == {"model.lr": 1}


def test_the_command_line_is_cleaned_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "fit", "--_wandb={'a': 1}"])
    assert without_agent_parameters(None) == ["fit"]
    monkeypatch.setattr("sys.argv", ["train.py", "fit"])
    assert without_agent_parameters(None) is None


def test_a_damaged_file_is_named() -> None:
    Path("a.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"a\.json is no JSON"):
        without_agent_parameters(["fit", "--config", "a.json"])


class Page:
    """Stands for wandb's run."""

    id = "ab"

    def __init__(self) -> None:
        self.config: dict[str, object] = {}
        self.config_update = self.config.update
        self.rows: list[dict[str, object]] = []
        self.log = self.rows.append


def test_nothing_is_opened_before_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page()
    opened: list[object] = []

    class Config(dict):
        def update(self, values: dict, allow_val_change: bool) -> None:  # type: ignore[override]
            super().update(values)

    page.config = Config()
    monkeypatch.setattr("wandb.init", lambda **options: opened.append(options) or page)
    with claim.session():
        logger = OurWandbLogger(save_dir="x", id="ab", name="n")
        assert not hasattr(logger, "experiment")  # as Lightning asks
        logger.log_hyperparams({"lr": 3})
        logger.log_metrics({"lr-Adam": 0.1}, 0)
        copied = copy.deepcopy(logger)  # as averages of weights do, with all that the module knows
        assert not opened and not copied.waiting and len(logger.waiting) == 2
        claim.begin()
        logger.log_metrics({"loss": 2.0}, 9)
        logger.log_hyperparams({"seed": 4})
    assert len(opened) == 1 and "anonymous" not in opened[0] and page.config == {"lr": 3, "seed": 4}  # type: ignore[operator]
    steps = "trainer/global_step"
    assert page.rows == [{"lr-Adam": 0.1, steps: 0}, {"loss": 2.0, steps: 9}]


class HandleAbandonedError(Exception):
    """As wandb's, which has no public place."""


class Gone:
    """wandb whose process has ended, with an open run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.error, self.calls = error, 0
        run = SimpleNamespace(
            log=self.fail, id="ab", disabled=False, url=None, dir=str(Path("w/run-1/files").resolve())
        )
        monkeypatch.setattr("wandb.init", lambda **options: run)
        monkeypatch.setattr("wandb.run", run)
        for name in ("finish", "teardown"):
            monkeypatch.setattr(f"wandb.{name}", self.fail)

    def fail(self, *content: object, **options: object) -> None:
        self.calls += 1
        raise self.error


@pytest.mark.parametrize("error", [ConnectionResetError("lost"), BrokenPipeError(), HandleAbandonedError()], ids=repr)
def test_training_outlives_wandbs_process(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    with session(), claim.session():
        gone = Gone(monkeypatch, error)
        logger = OurWandbLogger(save_dir="x", id="ab", name="n")
        logger.log_metrics({"loss": 2.0}, 0)
        logger.log_metrics({"loss": 1.0}, 1)
        claim.begin()
        for step in (2, 3):
            logger.log_metrics({"loss": 0.5}, step)
        assert gone.calls == 3  # once to log, then both ways to end
        assert sys.modules["wandb"].run is None
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: wandb's process has ended")
    assert lines[0].endswith("and wandb sync w/run-1 has what came before")


def test_a_process_that_ends_before_the_run_is_closed_is_a_warning_too(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    with session():
        Gone(monkeypatch, ConnectionResetError())
    assert capfd.readouterr().err.startswith("warning: wandb's process has ended")


def test_other_errors_of_wandb_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OSError, match="no room"), session():
        Gone(monkeypatch, OSError("no room"))


def test_silence_is_for_those_who_do_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    with session():
        assert os.environ["WANDB_SILENT"] == "true"
    assert "WANDB_SILENT" not in os.environ
    monkeypatch.setenv("WANDB_SILENT", "false")
    with session():
        assert os.environ["WANDB_SILENT"] == "false"
    assert os.environ["WANDB_SILENT"] == "false"


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_is_finished_with_how_it_ended(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    stand_in = SimpleNamespace(run=object(), finish=lambda exit_code: codes.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    with suppress(KeyError), session():
        if fails:
            raise KeyError
    assert codes == [int(fails)]


@pytest.mark.parametrize(("code", "is_sweep", "ends"), [(143, True, True), (143, False, False), (2, True, False)])
def test_a_trial_that_is_told_to_stop_ends_by_the_signal(
    code: int, is_sweep: bool, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """wandb's agent counts exit codes above 0 as failures."""
    done: list[object] = []
    monkeypatch.setattr("os.kill", lambda *call: done.append(call))
    monkeypatch.setattr("atexit._run_exitfuncs", lambda: done.append("exit functions"))
    monkeypatch.setattr("signal.signal", lambda *call: done.append(call))
    if is_sweep:
        monkeypatch.setenv("WANDB_SWEEP_ID", "abcd")
    with pytest.raises(SystemExit), stop_is_no_failure():
        raise SystemExit(code)
    default = (signal.SIGTERM, signal.SIG_DFL)
    assert done == (["exit functions", default, (os.getpid(), signal.SIGTERM)] if ends else [])


def test_where_a_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    run = SimpleNamespace(disabled=False, url=None, dir=str(Path("runs/wandb/offline-run-1/files").resolve()))
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=run))
    assert whereabouts() == "wandb sync runs/wandb/offline-run-1"
    run.url = "https://wandb.example.org/a"
    assert whereabouts() == "https://wandb.example.org/a"
    run.disabled = True
    assert whereabouts() is None
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=None))
    assert whereabouts() is None


def test_offline_unless_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NETRC", str(Path("netrc").resolve()))
    monkeypatch.delenv("WANDB_MODE")
    assert not is_logged_in()
    with session():
        assert os.environ["WANDB_MODE"] == "offline"
    assert "WANDB_MODE" not in os.environ
    Path("netrc").write_text("machine api.wandb.ai login user password " + "0" * 40 + "\n")
    assert is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not is_logged_in()
