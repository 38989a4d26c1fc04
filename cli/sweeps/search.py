"""What a sweep tries next: every point of a grid, random draws, or what a Bayesian search expects to be better.

A search knows nothing but the trials that it is shown, so it goes on from a sweep's folder as if it had never ended.
"""

import importlib
import itertools
import math
import random
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from cli.sweeps.distributions import Parameters, choices_of, draw, flatten, value_at
from cli.sweeps.trial import Trial, name_of

DRAWS = 10
"""Of a random or Bayesian sweep that does not say how many."""
FIRST = 5
"""Random trials before the Bayesian search has something to learn from."""
PATIENCE = 50
"""Draws of what has been tried before a search gives up."""
Point = dict[str, float]
"""For each parameter the number in [0, 1] that its value was taken at; of one with choices, the index."""
Plan = tuple[Parameters, Point]


class Search(Protocol):
    def propose(self, trials: Sequence[Trial]) -> Plan | None:
        """The next trial after those planned until now, or None: there is no other."""

    def goes_on_from(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those of an earlier sweep's trials that this one counts as planned."""


def first_new(every: Iterable[Parameters], trials: Sequence[Trial]) -> Plan | None:
    names = {trial.name for trial in trials}
    return next(((parameters, {}) for parameters in every if name_of(parameters) not in names), None)


class Grid:
    """Every combination in the file's order.

    Raises:
        ValueError: for a parameter with endlessly many values.
    """

    def __init__(self, specs: Parameters) -> None:
        choices = {name: choices_of(spec) or [] for name, spec in specs.items()}
        if endless := [name for name, values in choices.items() if not values]:
            raise ValueError(f"a grid needs value or values, which {', '.join(endless)} has not")
        self.rest = (dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values()))

    def propose(self, trials: Sequence[Trial]) -> Plan | None:
        return first_new(self.rest, trials)

    def goes_on_from(self, trials: Sequence[Trial]) -> list[Trial]:
        return []  # plans the same again


class AtRandom:
    """Independent draws; the n-th is the same in every process."""

    def __init__(self, specs: Parameters, seed: int) -> None:
        self.specs, self.rng = specs, random.Random(seed)

    def propose(self, trials: Sequence[Trial]) -> Plan | None:
        draws = ({name: draw(spec, self.rng) for name, spec in self.specs.items()} for _ in range(PATIENCE))
        return first_new(draws, trials)

    def goes_on_from(self, trials: Sequence[Trial]) -> list[Trial]:
        return []  # draws the same again


class Bayes:
    """Tree-structured Parzen estimators (Optuna); trials that failed or still run count as bad ones.

    Raises:
        ValueError: without Optuna.
    """

    def __init__(self, specs: Parameters, seed: int, metric: str, maximize: bool) -> None:
        try:
            self.optuna = importlib.import_module("optuna")
        except ImportError:
            raise ValueError('method bayes needs Optuna: pip install -e ".[sweep]"; or --method random') from None
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.specs, self.seed, self.metric, self.maximize = specs, seed, metric, maximize
        self.choices = {name: choices_of(spec) for name, spec in specs.items()}
        spaces = self.optuna.distributions
        self.space = {
            name: spaces.FloatDistribution(0, 1)
            if values is None
            else spaces.CategoricalDistribution(range(len(values)))
            for name, values in self.choices.items()
        }

    def at(self, point: Point) -> Parameters:
        found: Parameters = {}
        for name, spec in self.specs.items():
            values = self.choices[name]
            found[name] = value_at(spec, point[name]) if values is None else values[int(point[name])]
        return found

    def goes_on_from(self, trials: Sequence[Trial]) -> list[Trial]:
        fitting = (trial for trial in trials if trial.point.keys() == self.space.keys())
        return [trial for trial in fitting if self.at(trial.point) == trial.parameters]

    def known(self, trial: Trial) -> Any:
        score = trial.score(self.metric, self.maximize)
        states = self.optuna.trial.TrialState
        is_scored = score is not None and math.isfinite(score)
        state, value = (states.COMPLETE, score) if is_scored else (states.RUNNING, None)
        return self.optuna.trial.create_trial(
            state=state, value=value, params=dict(trial.point), distributions=self.space
        )

    def propose(self, trials: Sequence[Trial]) -> Plan | None:
        for attempt in range(PATIENCE):
            seed = random.Random(f"{self.seed} {len(trials)} {attempt}").getrandbits(32)
            with warnings.catch_warnings():  # Optuna calls both options experimental
                warnings.simplefilter("ignore")
                sampler = self.optuna.samplers.TPESampler(
                    seed=seed, n_startup_trials=FIRST, multivariate=True, constant_liar=True
                )
            study = self.optuna.create_study(sampler=sampler, direction="maximize" if self.maximize else "minimize")
            study.add_trials([self.known(trial) for trial in trials])
            point = dict(study.ask(self.space).params)
            if first_new([parameters := self.at(point)], trials):
                return parameters, point
        return None


def search_of(sweep: Parameters, method: str, seed: int) -> Search:
    """The search that a checked sweep file asks for.

    Raises:
        ValueError: for a grid without end, a distribution that wandb does not know, and for bayes without a metric or
            without Optuna.
        TypeError, ArithmeticError: for bounds that a distribution cannot have.
    """
    specs = flatten(sweep["parameters"])
    for spec in specs.values():
        value_at(spec, 0.5)  # what cannot be drawn is refused before anything has run
    if method == "grid":
        return Grid(specs)
    if method == "random":
        return AtRandom(specs, seed)
    if "metric" not in sweep:
        raise ValueError("method bayes needs metric: {name: ..., goal: ...}")
    return Bayes(specs, seed, sweep["metric"]["name"], sweep["metric"].get("goal") == "maximize")


def limit_of(sweep: Parameters, method: str, count: int | None) -> int | None:
    """How many trials there are at most; None for a whole grid."""
    given = [number for number in (count, sweep.get("run_cap")) if number]
    return min(given) if given else None if method == "grid" else DRAWS
