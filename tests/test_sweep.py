"""The program sweep.py: mistakes in one line, a sweep through train.py, tables; and what the shipped files say."""

import functools
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweep
import train
from cli.sweeps import processes, runner, sweep_file
from cli.sweeps.hyperband import hyperband
from cli.sweeps.processes import Process, Share, command_of
from cli.sweeps.search import search_of
from cli.sweeps.trial import Trial, write_json

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("sweeps/*.yaml"))
TOY: dict[str, Any] = {
    "program": "train.py",
    "method": "grid",
    "metric": {"name": "val/loss", "goal": "minimize"},
    "parameters": {
        "model.init_args.optimizer.init_args.lr": {"values": [0.1, 0.00001]},
        "trainer.max_time": {"value": None},
    },
    "command": [
        "${env}",
        "${interpreter}",
        "${program}",
        "fit",
        "--config",
        "toy.yaml",
        "--config",
        "${args_json_file}",
    ],
}
EXPERIMENT = {
    "model": {"class_path": "tests.toys.Toy", "init_args": {"network": {"class_path": "tests.toys.Network"}}},
    "data": {"class_path": "tests.toys.Points"},
    "run": {"monitor": "val/loss"},
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PAUSE", 0.0)


def write(**change: Any) -> None:
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY | change))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"parameters": None}, "parameters must map names"),
        ({"parameters": ["a"]}, "parameters must map names"),
        ({"parameters": {}}, "parameters must map names"),
        ({"parameters": {"a": 3}}, "parameter a is 3: write {value: 3}"),
        ({"parameters": {"a": {"parameters": {"b": [1]}}}}, "parameter a.b is [1]"),
        ({"parameters": {"a": {"parameters": None}}}, "a.parameters must map names"),
        ({"parameters": {"a": {"values": 3}}}, "values of parameter a must be a list"),
        ({"parameters": {"a": {"values": []}}}, "values of parameter a must be a list"),
        ({"parameters": {"a": {"vaules": [1]}}}, "parameter a has no vaules; known: a, b, distribution"),
        ({"parameters": {"a": {"distribution": 3}}}, "distribution of parameter a must be a name"),
        ({"parameters": {"a": {"min": "a", "max": 3}}}, "min of parameter a must be a number"),
        ({"parameters": {"a": {"min": 0.0, "max": True}}}, "max of parameter a must be a number"),
        ({"parameters": {"lr": {"min": 0.0, "max": 1.0}}}, "which lr has not"),
        ({"method": "random", "parameters": {"lr": {"distribution": "gamma"}}}, "unknown distribution 'gamma'"),
        (
            {"method": "random", "parameters": {"a": {"distribution": "q_uniform", "max": 1, "q": 0}}},
            "division by zero",
        ),
        ({"metric": "val/loss"}, "metric must be a dict, not 'val/loss'"),
        ({"metric": {"goal": "minimize"}}, "metric needs a name such as val/loss, not None"),
        ({"metric": {"name": "a", "goal": "least"}}, "goal of the metric must be minimize or maximize, not 'least'"),
        ({"metric": {"name": "a", "target": "b"}}, "target of the metric must be a number, not 'b'"),
        ({"metric": {"name": "a", "gaol": "minimize"}}, "metric has no gaol; known: goal"),
        ({"command": "train.py"}, "command must be a list"),
        ({"run_cap": 0}, "run_cap must be at least 1"),
        ({"run_cap": "3"}, "run_cap must be a int"),
        ({"method": None}, "names no method"),
        ({"method": "annealing"}, "method must be one of grid, random, bayes, not 'annealing'"),
        ({"early_terminate": {"type": "median"}}, "early_terminate knows type: hyperband"),
        ({"early_terminate": "hyperband"}, "early_terminate must be a dict"),
        ({"earlyterminate": {}}, "a sweep file has no earlyterminate"),
    ],
)
def test_a_malformed_file_is_one_line(change: dict[str, Any], line: str, capsys: pytest.CaptureFixture) -> None:
    write(**change)
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml"])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and len(errors.splitlines()) == 1 and not Path("runs").exists()
    assert errors.startswith("error: toy_sweep.yaml: ") and line in errors


@pytest.mark.parametrize("method", ["bayes", "early_terminate"])
def test_who_compares_needs_a_metric(method: str) -> None:
    content = {name: value for name, value in TOY.items() if name != "metric"}
    sweep_file.check(content)
    content |= {"method": "bayes"} if method == "bayes" else {"early_terminate": {"type": "hyperband", "min_iter": 1}}
    with pytest.raises(ValueError, match="method bayes and early_terminate need metric"):
        sweep_file.check(content)


@pytest.mark.parametrize("text", ["", "- a\n", "3\n", "parameters: [\n"])
def test_what_is_no_sweep_file_is_one_line(text: str, capsys: pytest.CaptureFixture) -> None:
    Path("toy_sweep.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml"])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and len(errors.splitlines()) == 1 and errors.startswith("error: toy_sweep.yaml: ")


@pytest.mark.parametrize("option", ["--count", "--workers"])
@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_sweep_has_a_trial_and_a_worker(option: str, count: str, capsys: pytest.CaptureFixture) -> None:
    write()
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml", option, count])
    assert stop.value.code == 2 and f"argument {option}: {count} is not a number from 1 on" in capsys.readouterr().err


def test_dry_runs_print_every_command(capsys: pytest.CaptureFixture) -> None:
    write(method="bayes")
    assert sweep.main(["toy_sweep.yaml", "--method", "grid", "--dry-run"]) == 0
    words = [line.split(" --config ") for line in capsys.readouterr().out.splitlines()]
    assert [json.loads(word[2]) for word in words] == [
        {"model.init_args.optimizer.init_args.lr": lr, "trainer.max_time": None} for lr in (0.1, 0.00001)
    ]
    assert sweep.main(["toy_sweep.yaml", "--method", "random", "--count", "1", "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 and not Path("runs").exists()


def test_one_sweep_at_a_time(capsys: pytest.CaptureFixture) -> None:
    write()
    folder = Path("runs/sweeps/toy_sweep")
    folder.mkdir(parents=True)
    code = (
        f"from pathlib import Path; from cli import claim; claim.lock(Path('{folder}')); print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(SystemExit) as stop:
            sweep.main(["toy_sweep.yaml"])
        other.communicate(b"\n")
    assert stop.value.code == 2 and f"{folder} is being written by process {other.pid}" in capsys.readouterr().err


class Ended:
    """A process that has ended."""

    pid = os.getpid()

    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code


def in_this_process(content: dict[str, Any], trial: Trial, share: Share) -> Process:
    """Stands for a trial's process, since a new one takes seconds to import torch."""
    trial.folder.mkdir(parents=True, exist_ok=True)
    write_json(trial.folder / "parameters.json", trial.parameters)
    trial.note(starts=trial.starts + 1)
    words = command_of(content, trial.parameters, (trial.folder / "parameters.json").resolve())
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_RUN_ID", trial.name)
        patch.setenv("WANDB_SWEEP_ID", "toy")
        try:
            train.main([*words[3:], f"--run.dir={trial.folder}"])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Process(trial, share, Ended(code))  # type: ignore[arg-type]


def test_a_sweep_reports_a_failure_and_can_be_run_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(processes, "start", in_this_process)
    Path("toy.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    parameters = {**TOY["parameters"], "data.init_args.batch_size": {"values": [16, 0]}}
    write(parameters=parameters)
    assert sweep.main(["toy_sweep.yaml"]) == 1
    said = capfd.readouterr()
    assert said.err.count("failed with exit code 2") == 2 and "batch_size must be at least 1" in said.err
    folder = Path("runs/sweeps/toy_sweep")
    assert len(list(folder.glob("*/000/result.json"))) == 2 and (folder / "trials.png").exists()
    lines = (folder / "trials.csv").read_text().splitlines()
    assert lines[0].startswith("trial,state,val/loss,") and [line.split(",")[1] for line in lines[1:]] == [
        *["finished"] * 2,
        *["failed"] * 2,
    ]
    parameters["data.init_args.batch_size"] = {"values": [16]}
    write(parameters=parameters)
    assert sweep.main(["toy_sweep.yaml"]) == 0
    assert "number 1" not in capfd.readouterr().out  # both were there already

    assert sweep.main(["table", str(folder), "--output", "out"]) == 0
    said = capfd.readouterr()
    assert "optimizer.lr" in said.out and "val/loss" in said.out and Path("out/trials.csv").exists()
    scores = [float(line.split(",")[2]) for line in Path("out/trials.csv").read_text().splitlines()[1:]]
    assert len(scores) == 2 and scores == sorted(scores)
    with pytest.raises(SystemExit) as stop:
        sweep.main(["table", "nowhere"])
    assert stop.value.code == 2 and capfd.readouterr().err == "error: no folder nowhere\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_sweeps_are_what_wandb_takes(path: Path) -> None:
    content = sweep_file.load(path)
    assert hyperband(content) is None or content["metric"]["name"]
    pytest.importorskip("sweeps.config")  # pip install --no-deps sweeps jsonref; pip install jsonschema
    theirs = importlib.import_module("sweeps")  # our own folder of that name is a package too, where theirs is missing
    assert theirs.schema_violations_from_proposed_config(content) == []


def test_every_method_has_a_sweep_and_every_search_is_shown() -> None:
    contents = [sweep_file.load(path) for path in FILES]
    methods = {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()} - {"data"}
    named = {word.split("/")[1] for content in contents for word in map(str, content["command"]) if "configs/" in word}
    assert methods == named
    assert {content["method"] for content in contents} == set(sweep_file.METHODS)
    assert any("early_terminate" in content for content in contents)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_sweeps_parse_as_the_agent_would_start_them(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    agent = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    file = yaml.safe_load(path.read_text())
    plan = search_of(file, file["method"], 0).propose([])
    assert plan is not None
    parameters = plan[0]
    given = agent.create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})
    assert given["args_dict"] == parameters
    Path("parameters.json").write_text(given["args_json"][0])
    words = command_of(file, parameters, Path("parameters.json").resolve())
    missing = [word for word in words if word.startswith("configs/") and not (ROOT / word).exists()]
    assert not missing
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        train.main([*words[3:], "--print_config"])
    assert stop.value.code in (0, None), capsys.readouterr().err
    printed = yaml.safe_load(capsys.readouterr().out)
    for name, value in parameters.items():
        assert functools.reduce(lambda config, key: config[key], name.split("."), printed) == value
