"""What is tried next: grids, draws that repeat, and a Bayesian search that learns and can be taken up again."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.sweeps.search import DRAWS, Search, limit_of, search_of
from cli.sweeps.trial import Trial, recorded

BASE = Path("runs/sweeps/s")
METRIC = {"name": "val/loss", "goal": "minimize"}


def search(method: str, parameters: dict[str, Any], seed: int = 0, metric: dict[str, Any] = METRIC) -> Search:
    return search_of({"parameters": parameters, "metric": metric}, method, seed)


def planned(chosen: Search, count: int, score: Callable[[dict], float | None] = lambda _: None) -> list[Trial]:
    trials: list[Trial] = chosen.goes_on_from([])
    return go_on(chosen, trials, count, score)


def go_on(chosen: Search, trials: list[Trial], count: int, score: Callable[[dict], float | None]) -> list[Trial]:
    while len(trials) < count and (plan := chosen.propose(trials)):
        trials.append(Trial(plan[0], BASE, plan[1], len(trials) + 1))
        finish(trials[-1], score(plan[0]))
    return trials


def finish(trial: Trial, score: float | None) -> None:
    trial.note()
    if score is not None:
        (trial.folder / "000").mkdir(exist_ok=True)
        fit = {"monitor": METRIC["name"], "best_score": score, "metrics": {}}
        (trial.folder / "000" / "result.json").write_text(json.dumps({"fit": fit}))


def values(trials: list[Trial]) -> list[dict[str, Any]]:
    return [trial.parameters for trial in trials]


def test_a_grid_is_a_product_of_nested_parameters_too() -> None:
    parameters = {"a": {"parameters": {"b": {"values": [1, 2]}}}, "c": {"values": [None, [3]]}}
    every = [{"a.b": 1, "c": None}, {"a.b": 1, "c": [3]}, {"a.b": 2, "c": None}, {"a.b": 2, "c": [3]}]
    assert values(planned(search("grid", parameters), 99)) == every
    assert values(planned(search("grid", parameters), 3)) == every[:3]


def test_a_grid_names_each_point_once() -> None:
    assert values(planned(search("grid", {"a": {"values": [1, 1, 2]}, "b": {"value": 0}}), 9)) == [
        {"a": 1, "b": 0},
        {"a": 2, "b": 0},
    ]


def test_random_trials_repeat_and_follow_the_seed() -> None:
    parameters = {"a": {"min": 0.0, "max": 1.0}}
    five = values(planned(search("random", parameters, 1), 5))
    assert values(planned(search("random", parameters, 1), 3)) == five[:3]
    assert values(planned(search("random", parameters, 2), 5)) != five
    assert all(0 <= value["a"] <= 1 for value in five)


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_nothing_is_tried_twice_and_a_small_space_ends(method: str) -> None:
    trials = planned(search(method, {"a": {"values": [1, 2, 3]}, "b": {"value": 0}}), 9, lambda p: p["a"])
    assert sorted(value["a"] for value in values(trials)) == [1, 2, 3]


SPACE = {
    "x": {"min": -2.0, "max": 2.0},
    "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1.0},
    "kind": {"values": [{"a": 1}, None, "c"]},
    "fixed": {"value": "f"},
}


def loss(parameters: dict[str, Any]) -> float:
    """Least at x = 1, lr = 0.01, kind = None."""
    return (parameters["x"] - 1) ** 2 + math.log10(parameters["lr"] / 0.01) ** 2 + (parameters["kind"] is not None)


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_bayes_learns(goal: str) -> None:
    sign = 1 if goal == "minimize" else -1
    bayes = search("bayes", SPACE, 3, {"name": "val/loss", "goal": goal})
    costs = [loss(value) for value in values(planned(bayes, 40, lambda p: sign * loss(p)))]
    assert sum(costs[-10:]) < 0.4 * sum(costs[:10])


def test_bayes_goes_on_as_if_it_had_never_ended() -> None:
    whole = values(planned(search("bayes", SPACE), 9, loss))
    for trial in BASE.iterdir():
        if json.loads((trial / "trial.json").read_text())["number"] > 6:
            shutil.rmtree(trial)
    again = search("bayes", SPACE)
    former = again.goes_on_from(recorded(BASE))
    assert values(former) == whole[:6] and [trial.number for trial in former] == [1, 2, 3, 4, 5, 6]
    assert values(go_on(again, former, 9, loss)) == whole
    assert values(planned(search("bayes", SPACE, 1), 2)) != whole[:2]


def test_trials_of_another_space_do_not_count() -> None:
    trials = planned(search("bayes", SPACE), 2, loss)
    narrower = SPACE | {"x": {"min": -1.0, "max": 2.0}}
    assert search("bayes", narrower).goes_on_from(trials) == []
    assert search("bayes", SPACE | {"new": {"value": 1}}).goes_on_from(trials) == []
    assert search("bayes", SPACE).goes_on_from([Trial(trials[0].parameters, BASE), trials[1]]) == trials[1:]
    assert search("grid", {"a": {"value": 1}}).goes_on_from(trials) == []


def test_bayes_lives_with_failures_and_numbers_that_are_none() -> None:
    scores = iter([None, math.nan, math.inf, 1.0, 2.0, None, 3.0, 0.5])
    assert len(planned(search("bayes", SPACE), 8, lambda _: next(scores))) == 8


@pytest.mark.parametrize(
    ("method", "parameters", "line"),
    [
        ("grid", {"lr": {"min": 0.0, "max": 1.0}, "a": {"value": 1}}, "which lr has not"),
        ("random", {"lr": {"distribution": "gamma"}}, "unknown distribution 'gamma'"),
        ("bayes", {"lr": {"distribution": "gamma"}}, "unknown distribution 'gamma'"),
        ("bayes", {"lr": {"min": 0, "max": 1}}, "method bayes needs metric"),
    ],
)
def test_what_cannot_be_searched(method: str, parameters: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        search_of({"parameters": parameters}, method, 0)


def test_bayes_without_optuna_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r'bayes needs Optuna: pip install -e "\.\[sweep\]"; or --method random'):
        search("bayes", SPACE)


def test_limits() -> None:
    assert limit_of({}, "grid", None) is None and limit_of({}, "random", None) == limit_of({}, "bayes", None) == DRAWS
    assert limit_of({"run_cap": 4}, "grid", None) == 4 and limit_of({"run_cap": 4}, "random", 9) == 4
    assert limit_of({"run_cap": 4}, "bayes", 3) == 3 and limit_of({}, "grid", 3) == 3
