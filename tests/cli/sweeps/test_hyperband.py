"""Early termination, beside the example of wandb's engine and, where it is installed, the engine itself."""

import math
import random
from typing import Any

import pytest

from cli.sweeps.hyperband import Hyperband, hyperband

EXAMPLE = {"metric": {"name": "loss", "goal": "minimize"}}


def made(goal: str = "minimize", **options: Any) -> Hyperband:
    found = hyperband({"metric": {"name": "loss", "goal": goal}, "early_terminate": {"type": "hyperband", **options}})
    assert found is not None
    return found


def test_bands() -> None:
    assert made(max_iter=27, s=2).bands == (3, 9)
    assert made(max_iter=27, s=9, eta=3).bands == (1, 3, 9)
    assert made(max_iter=5, s=2, eta=2).bands == (1, 2)
    assert made(min_iter=3).bands[:4] == (3, 9, 27, 81)
    assert made(min_iter=2, eta=1.5).bands[:4] == (2, 3, 4, 6)
    assert made(min_iter=1, eta=1e6).bands == (1, 10**6)
    assert hyperband(EXAMPLE) is None and hyperband(EXAMPLE | {"early_terminate": None}) is None


RUNS = {"a": [10, 9], "b": [10, 10], "c": [10, 8, 8], "d": [10, 7, 7], "e": [10, 6, 6]}


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_the_engines_example(goal: str) -> None:
    sign = 1 if goal == "minimize" else -1
    rule = made(goal, max_iter=5, s=2, eta=2)
    histories = {name: [sign * value for value in history] for name, history in RUNS.items()}
    stopped = {name: rule.stops(history, list(histories.values())) for name, history in histories.items()}
    assert stopped == {"a": 2, "b": 2, "c": None, "d": None, "e": None}


def test_strict_judges_the_band_and_not_the_best() -> None:
    histories = [[5, 1, 9, 9], [2, 2, 2, 2], [3, 3, 3, 3]]
    assert made(min_iter=4, strict=True).stops(histories[0], histories) == 4
    assert made(min_iter=4, strict=False).stops(histories[0], histories) is None
    assert made(min_iter=4).strict is True  # as wandb's engine fills it in, whatever the manual says


def test_nothing_is_judged_before_its_band_nor_alone() -> None:
    rule = made(min_iter=3)
    assert rule.stops([9.0, 9.0], [[1, 1, 1]] * 5) is None
    assert rule.stops([9.0, 9.0, 9.0], [[9.0, 9.0, 9.0]]) is None
    assert rule.stops([9.0, 9.0, 9.0], [[9.0, 9.0, 9.0], [1, 1, 1]]) == 3
    assert rule.stops([9.0, math.nan, 9.0, math.inf], [[1, 1, 1]] * 5) is None  # two numbers only
    assert rule.threshold([], 3) == math.inf


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"type": "median"}, "knows type: hyperband, not 'median'"),
        ({"s": 2}, "needs min_iter, or max_iter and s"),
        ({"max_iter": 3}, "needs min_iter, or max_iter and s"),
        ({"min_iter": 0}, "min_iter of early_terminate must be above 0, not 0"),
        ({"min_iter": 3, "eta": 1}, "eta of early_terminate must be above 1, not 1"),
        ({"min_iter": "3"}, "min_iter of early_terminate must be above 0, not '3'"),
        ({"max_iter": 2, "s": 1}, "max_iter 2 / eta 3 is below 1"),
        ({"min_iters": 2}, "early_terminate has no min_iters; known: eta"),
    ],
)
def test_what_wandb_refuses(options: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        made(**options)


def test_the_same_runs_end_as_in_wandbs_engine() -> None:
    engine = pytest.importorskip("sweeps.hyperband_stopping")  # pip install --no-deps sweeps jsonref
    run = pytest.importorskip("sweeps.run")
    rng = random.Random(0)
    num_stopped = 0
    for _ in range(150):
        lengths = [rng.randint(0, 12) for _ in range(rng.randint(1, 9))]
        histories = [[rng.choice([rng.random(), float(rng.randint(0, 3))]) for _ in range(n)] for n in lengths]
        options: dict[str, Any] = {"type": "hyperband", "eta": rng.choice([1.5, 2, 3, 4]), "strict": rng.random() < 0.5}
        options |= {"min_iter": rng.randint(1, 4)} if rng.random() < 0.5 else {"max_iter": rng.randint(5, 12), "s": 2}
        metric = {"name": "loss", "goal": rng.choice(["minimize", "maximize"])}
        config = {"method": "grid", "metric": metric, "early_terminate": options, "parameters": {"a": {"value": 1}}}
        runs = [
            run.SweepRun(name=str(k), state=run.RunState.running, history=[{"loss": value} for value in history])
            for k, history in enumerate(histories)
        ]
        theirs = {int(one.name) for one in engine.hyperband_stop_runs(runs, config)}
        rule = hyperband(config)
        assert rule is not None
        assert {k for k, history in enumerate(histories) if rule.stops(history, histories)} == theirs
        num_stopped += len(theirs)
    assert num_stopped > 50
