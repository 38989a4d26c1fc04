"""The local runner of wandb's sweep files, and that wandb's own agent would start the same."""

import functools
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

import sweep
import train

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("sweeps/*.yaml"))
TOY = {
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


@pytest.mark.parametrize(
    ("spec", "is_right"),
    [
        ({"value": None}, lambda x: x is None),
        ({"values": [1, "a"]}, lambda x: x in (1, "a")),
        ({"values": [1, 2], "probabilities": [0.0, 1.0]}, lambda x: x == 2),
        ({"min": 2, "max": 4}, lambda x: isinstance(x, int) and 2 <= x <= 4),
        ({"min": 2.0, "max": 4}, lambda x: isinstance(x, float) and 2 <= x <= 4),
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.25}, lambda x: (x / 0.25).is_integer()),
        ({"distribution": "log_uniform", "min": -3, "max": -1}, lambda x: -3 <= math.log(x) <= -1),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}, lambda x: 1e-4 <= x <= 1e-2),
        ({"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8}, lambda x: x % 8 == 0),
        ({"distribution": "inv_log_uniform", "min": 1, "max": 3}, lambda x: 1 <= -math.log(x) <= 3),
        ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1e-2}, lambda x: 1e-4 <= x <= 1e-2),
        ({"mu": 5, "sigma": 0.1}, lambda x: 3 < x < 7),
        ({"distribution": "log_normal", "mu": 0, "sigma": 1}, lambda x: x > 0),
        ({"distribution": "q_normal", "mu": 0, "sigma": 9, "q": 2}, lambda x: x % 2 == 0),
        ({"distribution": "beta", "a": 2, "b": 3}, lambda x: 0 < x < 1),
    ],
)
def test_draws(spec: dict[str, Any], is_right: Any) -> None:
    rng = random.Random(3)
    assert all(is_right(sweep.draw(spec, rng)) for _ in range(50))


def test_a_grid_is_a_product_of_nested_parameters_too() -> None:
    file = {"parameters": {"a": {"parameters": {"b": {"values": [1, 2]}}}, "c": {"values": [None, [3]]}}}
    assert list(sweep.trials(file, "grid", None, 0)) == [
        {"a.b": 1, "c": None},
        {"a.b": 1, "c": [3]},
        {"a.b": 2, "c": None},
        {"a.b": 2, "c": [3]},
    ]


def test_random_trials_repeat() -> None:
    file = {"parameters": {"a": {"min": 0.0, "max": 1.0}}}
    assert list(sweep.trials(file, "random", 3, 1)) == list(sweep.trials(file, "random", 5, 1))[:3]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"method": "bayes"}, "needs wandb's server"),
        ({"parameters": {"lr": {"min": 0.0, "max": 1.0}}}, "which lr has not"),
        ({"method": "random", "parameters": {"lr": {"distribution": "gamma"}}}, "unknown distribution 'gamma'"),
    ],
)
def test_what_cannot_run_is_one_line(change: dict[str, Any], line: str, capsys: pytest.CaptureFixture) -> None:
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY | change))
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml"])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and line in errors and len(errors.splitlines()) == 1


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
        ({"parameters": {"a": {"distribution": 3}}}, "distribution of parameter a must be a name"),
        ({"parameters": {"a": {"min": "a", "max": 3}}}, "min of parameter a must be a number"),
        ({"parameters": {"a": {"min": 0.0, "max": True}}}, "max of parameter a must be a number"),
        (
            {"method": "random", "parameters": {"a": {"distribution": "q_uniform", "max": 1, "q": 0}}},
            "division by zero",
        ),
        ({"metric": "val/loss"}, "metric must be a dict, not 'val/loss'"),
        ({"command": "train.py"}, "command must be a list"),
        ({"run_cap": 0}, "run_cap must be at least 1"),
        ({"method": None}, "names no method"),
    ],
)
def test_a_malformed_file_is_one_line(change: dict[str, Any], line: str, capsys: pytest.CaptureFixture) -> None:
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY | change))
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml", "--dry-run"])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and len(errors.splitlines()) == 1
    assert errors.startswith("error: toy_sweep.yaml: ") and line in errors


@pytest.mark.parametrize("text", ["", "- a\n", "3\n", "parameters: [\n"])
def test_what_is_no_sweep_file_is_one_line(text: str, capsys: pytest.CaptureFixture) -> None:
    Path("toy_sweep.yaml").write_text(text)
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml"])
    errors = capsys.readouterr().err
    assert stop.value.code == 2 and len(errors.splitlines()) == 1 and errors.startswith("error: toy_sweep.yaml: ")


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_sweep_has_a_trial(count: str, capsys: pytest.CaptureFixture) -> None:
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY))
    with pytest.raises(SystemExit) as stop:
        sweep.main(["toy_sweep.yaml", "--count", count])
    assert stop.value.code == 2 and f"argument --count: {count} is not a number from 1 on" in capsys.readouterr().err


def test_bayes_runs_at_random_on_request(capsys: pytest.CaptureFixture) -> None:
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY | {"method": "bayes"}))
    assert sweep.main(["toy_sweep.yaml", "--method", "random", "--count", "2", "--dry-run"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def in_this_process(words: list[str], environment: dict[str, str]) -> int:
    """Stands for a trial's process, since a new one takes seconds to import torch."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID"):
            patch.setenv(name, environment[name])
        try:
            train.main(words[3:])
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def test_a_sweep_reports_a_failure_and_can_be_run_again(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sweep, "execute", in_this_process)
    Path("toy.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    parameters = {**TOY["parameters"], "data.init_args.batch_size": {"values": [16, 0]}}  # type: ignore[dict-item]
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY | {"parameters": parameters}))
    assert sweep.main(["toy_sweep.yaml"]) == 1
    said = capfd.readouterr()
    assert said.out.count("failed") == 2 and "batch_size must be at least 1" in said.err
    results = {path.parents[1].name for path in Path("runs/sweeps/toy_sweep").glob("*/000/result.json")}
    assert len(results) == 2

    parameters["data.init_args.batch_size"] = {"values": [16]}
    Path("toy_sweep.yaml").write_text(yaml.safe_dump(TOY | {"parameters": parameters}))
    assert sweep.main(["toy_sweep.yaml"]) == 0
    assert "trial 1 of" not in capfd.readouterr().out  # both were there already
    scores = [
        json.loads(path.read_text())["fit"]["best_score"]
        for path in Path("runs/sweeps/toy_sweep").glob("*/000/result.json")
    ]
    assert len(scores) == 2 and all(math.isfinite(score) for score in scores)


@pytest.mark.parametrize(("goal", "order"), [("minimize", [0.1, 9.0, 10.0]), ("maximize", [10.0, 9.0, 0.1])])
def test_the_best_trial_is_the_tables_first_row(
    goal: str, order: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Then those that measured nothing and those that failed, whatever the goal."""
    scores = {9.0: 9.0, 0.0: math.nan, 0.1: 0.1, 0.5: None, 10.0: 10.0}

    def fake(words: list[str], environment: dict[str, str]) -> int:
        folder = Path(words[-1].removeprefix("--run.dir="))
        score = scores[json.loads((folder / "parameters.json").read_text())["lr"]]
        if score is not None:
            (folder / "000").mkdir()
            result = {"fit": {"monitor": "val/loss", "best_score": score, "metrics": {}}}
            (folder / "000" / "result.json").write_text(json.dumps(result))
        return int(score is None)

    monkeypatch.setattr(sweep, "execute", fake)
    file = TOY | {"metric": {"name": "val/loss", "goal": goal}, "parameters": {"lr": {"values": [*scores]}}}
    Path("s.yaml").write_text(yaml.safe_dump(file))
    assert sweep.main(["s.yaml"]) == 1
    rows = [line.split("│")[2:4] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows[:3]] == [f"{score:.6g}" for score in order]
    assert {row[0].strip() for row in rows[3:]} == {"nan", "failed"}


def test_the_newest_finished_run_of_a_trial_counts() -> None:
    folder = Path("trial")
    for number, score in (("998", 3.0), ("999", 2.0), ("1000", 1.0), ("1001", None)):
        (folder / number).mkdir(parents=True)
        if score is not None:
            fit = {"monitor": "val/loss", "best_score": score, "metrics": {"val/loss": 5.0, "val/error": 7.0}}
            (folder / number / "result.json").write_text(json.dumps({"fit": fit}))
    (folder / "1001" / "result.json").write_text(json.dumps({"test": {}}))
    assert sweep.score_of(folder, "val/loss") == 1.0
    assert sweep.score_of(folder, "val/error") == 7.0
    assert math.isnan(sweep.score_of(folder, "val/nothing") or 0.0)
    assert sweep.score_of(Path("nowhere"), "val/loss") is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_shipped_sweeps_parse_as_the_agent_would_start_them(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    agent = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    file = yaml.safe_load(path.read_text())
    parameters = next(sweep.trials(file, "random" if file["method"] == "bayes" else file["method"], 1, 0))
    given = agent.create_sweep_command_args({"args": {name: {"value": value} for name, value in parameters.items()}})
    assert given["args_dict"] == parameters
    Path("parameters.json").write_text(given["args_json"][0])
    words = sweep.command_of(file, parameters, Path("parameters.json").resolve())
    missing = [word for word in words if word.startswith("configs/") and not (ROOT / word).exists()]
    assert not missing
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as stop:
        train.main([*words[3:], "--print_config"])
    assert stop.value.code in (0, None), capsys.readouterr().err
    printed = yaml.safe_load(capsys.readouterr().out)
    for name, value in parameters.items():
        assert functools.reduce(lambda config, key: config[key], name.split("."), printed) == value
