"""Sweeps of processes that start at once: what runs, what is killed, stopped or run again, and what is not."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.sweeps import processes, runner
from cli.sweeps.hyperband import hyperband
from cli.sweeps.processes import Share
from cli.sweeps.runner import Runner
from cli.sweeps.search import search_of
from cli.sweeps.trial import FAILED, FINISHED, STOPPED, UNFINISHED, Trial, recorded

SCRIPT = Path(__file__).with_name("trial_script.py")
BASE = Path("runs/sweeps/s")
LOSS = {"name": "val/loss", "goal": "minimize"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PAUSE", 0.02)


def sweep_of(*kinds: tuple[list[float], str], **entries: Any) -> dict[str, Any]:
    """One trial for each (values of the metric, end)."""
    kinds_as_parameters = [{"values": values, "end": end} for values, end in kinds]
    return {
        "method": "grid",
        "metric": LOSS,
        "parameters": {"both": {"values": kinds_as_parameters}},
        "command": ["${interpreter}", "unpack.py", str(SCRIPT), "${args_json_file}"],
    } | entries


@pytest.fixture(autouse=True)
def unpack(alone: None) -> None:
    """The grid's one parameter as the script's two."""
    Path("unpack.py").write_text(
        "import json, os, sys\n"
        "file = sys.argv[2] + '.plain'\n"
        "open(file, 'w').write(json.dumps(json.load(open(sys.argv[2]))['both']))\n"
        "os.execv(sys.executable, [sys.executable, sys.argv[1], file, sys.argv[3]])\n"
    )


def made(sweep: dict[str, Any], workers: int = 1, limit: int | None = None) -> Runner:
    return Runner(sweep, BASE, search_of(sweep, "grid", 0), limit, hyperband(sweep), workers)


def states(trials: list[Trial]) -> list[str]:
    return [trial.state for trial in trials]


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def versions(trial: Trial) -> int:
    return len(list(trial.folder.glob("000/csv/*")))


def test_finished_trials_are_not_run_again_and_failed_ones_are(capfd: pytest.CaptureFixture) -> None:
    sweep = sweep_of(([3.0, 1.0], "ok"), ([2.0], "fail"))
    trials = made(sweep, workers=2).run()
    assert states(trials) == [FINISHED, FAILED]
    assert [trial.score("val/loss", False) for trial in trials] == [1.0, None]
    said = capfd.readouterr()
    assert "failed with exit code 1: it does not work" in said.err and "finished, val/loss 1.0" in said.out
    assert "start 0" not in said.out and (trials[0].folder / "output.txt").read_text() == "start 0\n"
    assert [versions(trial) for trial in made(sweep).run()] == [1, 2]
    assert "start 1" in capfd.readouterr().out  # alone, a trial prints to the terminal
    assert [trial.number for trial in recorded(BASE)] == [1, 2]


def test_a_killed_trial_goes_on() -> None:
    [trial] = made(sweep_of(([1.0], "die"))).run()
    assert trial.state == FINISHED and trial.starts == versions(trial) == 2


def test_a_trial_that_is_killed_each_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    kill = [sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"]
    [one, other] = made(sweep_of(([1.0], "ok"), ([2.0], "ok"), command=kill)).run()
    assert one.state == other.state == FAILED and one.starts == other.starts == runner.MAX_STARTS
    assert one.record["exit_code"] == -signal.SIGKILL


def test_two_workers_run_two_trials_at_a_time() -> None:
    loop = made(sweep_of(([1.0], "hang"), ([2.0], "hang"), ([3.0], "ok")), workers=2)
    seen: list[int] = []

    def watch() -> None:
        wait_until(lambda: len(list(BASE.glob("*/000/environment.json"))) == 2)
        time.sleep(0.2)
        seen.append(len(list(BASE.glob("*/000"))))
        for folder in BASE.glob("*/000"):
            (folder / "go").touch()

    thread = threading.Thread(target=watch)
    thread.start()
    trials = loop.run()
    thread.join()
    assert seen == [2] and states(trials) == [FINISHED] * 3


def test_the_limit_counts_trials_and_the_target_ends_a_sweep() -> None:
    sweep = sweep_of(([3.0], "ok"), ([2.0], "ok"), ([1.0], "ok"))
    assert len(made(sweep, limit=2).run()) == 2
    assert len(made(sweep | {"metric": LOSS | {"target": 2.5}}).run()) == 2
    upwards = {"name": "val/loss", "goal": "maximize", "target": 2.5}
    assert len(made(sweep | {"metric": upwards}).run()) == 1


def test_early_termination(capfd: pytest.CaptureFixture) -> None:
    terms = {"type": "hyperband", "min_iter": 2, "eta": 2}
    good, other, bad, short = ([2.0, 1.0, 1.0], "ok"), ([3.0, 2.0], "ok"), ([9.0, 8.0], "hang"), ([9.0], "ok")
    sweep = sweep_of(good, other, bad, short, early_terminate=terms)
    trials = made(sweep).run()
    assert states(trials) == [FINISHED, FINISHED, STOPPED, FINISHED]
    assert trials[2].record["band"] == 2 and trials[2].score("val/loss", False) == 8.0
    assert (trials[2].folder / "000" / "told").read_text() == f"{int(signal.SIGTERM)}\n"
    assert "stopped at band 2" in capfd.readouterr().out
    assert [trial.starts for trial in made(sweep).run()] == [1, 1, 1, 1]  # nor is what was stopped run again


def test_ctrl_c_lets_the_trials_save() -> None:
    loop = made(sweep_of(([1.0], "hang"), ([2.0], "hang")), workers=2)

    def interrupt() -> None:
        wait_until(lambda: len(list(BASE.glob("*/000/csv/*/metrics.csv"))) == 2)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        loop.run()
    thread.join()
    assert len(list(BASE.glob("*/000/told"))) == 2 and states(loop.planned) == [UNFINISHED] * 2
    for trial in loop.planned:
        (trial.folder / "000" / "go").touch()
    assert states(made(sweep_of(([1.0], "hang"), ([2.0], "hang"))).run()) == [FINISHED] * 2


SWEEP = """
import json, sys
from pathlib import Path
from cli.sweeps.runner import Runner
from cli.sweeps.search import search_of
sweep = json.loads(Path("sweep.json").read_text())
Runner(sweep, Path("runs/sweeps/s"), search_of(sweep, "grid", 0), None, None, 1).run()
"""


def test_a_killed_sweep_finds_its_running_trial_again() -> None:
    sweep = sweep_of(([1.0], "hang"), ([2.0], "ok"))
    Path("sweep.json").write_text(json.dumps(sweep))
    process = subprocess.Popen([sys.executable, "-c", SWEEP])
    wait_until(lambda: list(BASE.glob("*/000/environment.json")) and list(BASE.glob("*/trial.json")))
    process.kill()
    process.wait()
    [former] = recorded(BASE)
    assert processes.is_alive(former.folder)

    def let_go() -> None:
        time.sleep(0.3)
        (former.folder / "000" / "go").touch()

    thread = threading.Thread(target=let_go)
    thread.start()
    trials = made(sweep).run()
    thread.join()
    assert states(trials) == [FINISHED, FINISHED] and [versions(trial) for trial in trials] == [1, 1]
    assert trials[0].starts == 1 and not processes.is_alive(former.folder)


def test_a_trial_that_a_killed_sweep_meant_to_stop_is_stopped() -> None:
    terms = {"type": "hyperband", "min_iter": 1, "eta": 2}
    sweep = sweep_of(([5.0], "hang"), ([1.0], "ok"), early_terminate=terms)
    [trial] = made(sweep, limit=1).search.goes_on_from([]) or [Trial({"both": {"values": [5.0], "end": "hang"}}, BASE)]
    left = processes.start(sweep, trial, Share(0, 2))
    wait_until(lambda: trial.history("val/loss"))
    trial.note(state=STOPPED, band=1)
    assert left.popen is not None
    reaper = threading.Thread(target=left.popen.wait)
    reaper.start()
    assert states(made(sweep).run()) == [STOPPED, FINISHED]
    reaper.join()
    assert (trial.folder / "000" / "told").exists() and versions(trial) == 1


def test_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Share(0, 1).environment() == {}
    assert Share(1, 3).environment() == {"OMP_NUM_THREADS": "2"}
    assert Share(1, 99).environment() == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert Share(1, 2).environment() == {"CUDA_VISIBLE_DEVICES": "3"}
    assert Share(0, 2).environment() == {"CUDA_VISIBLE_DEVICES": "0,5"}
    assert Share(0, 4).environment() == {}


def test_a_trial_has_its_group_its_share_and_its_wandb_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("WANDB_MODE")
    [trial] = made(sweep_of(([1.0], "ok")), workers=2).run()
    environment = json.loads((trial.folder / "000" / "environment.json").read_text())
    assert environment["OMP_NUM_THREADS"] == Share(0, 2).environment()["OMP_NUM_THREADS"]
    assert environment["WANDB_RUN_ID"] == f"s-{trial.name}" and environment["WANDB_SWEEP_ID"] == "s"
    assert environment["WANDB_MODE"] == "offline"
    hang = Trial({"both": {"values": [4.0], "end": "hang"}}, BASE)
    process = processes.start(sweep_of(), hang, Share(0, 1))
    assert process.popen is not None and os.getpgid(process.popen.pid) == process.popen.pid
    process.kill()
    assert process.popen.wait() == -signal.SIGKILL


def test_commands_are_those_of_wandbs_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREETING", "hello")
    words = ["${env}", "${interpreter}", "${program}", "${args}", "${args_no_equals}", "${envvar:GREETING}!", 3]
    found = processes.command_of({"program": "p.py", "command": words}, {"a.b": 1, "c": None}, Path("f.json"))
    assert found[:3] == ["/usr/bin/env", sys.executable, str(processes.ROOT / "p.py")]
    assert found[3:] == ["--a.b=1", "--c=None", "--a.b", "1", "--c", "None", "hello!", "3"]
    files = processes.command_of({"command": ["${args_json}", "${args_json_file}"]}, {"a": None}, Path("f.json"))
    assert files == ['{"a": null}', "f.json"]
    assert processes.command_of({}, {"a": 1}, Path("f"))[2:] == [str(processes.ROOT / "train.py"), "--a=1"]
