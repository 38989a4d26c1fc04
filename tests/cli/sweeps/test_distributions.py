"""The inverse CDFs of wandb's distributions, beside scipy's and by hand."""

import math
import random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cli.sweeps.distributions import choices_of, draw, flatten, kind_of, value_at


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
    assert all(is_right(draw(spec, rng)) for _ in range(50))


SCIPY = [
    ({"min": 2.0, "max": 5.0}, stats.uniform(2, 3)),
    ({"distribution": "uniform"}, stats.uniform(0, 1)),
    ({"distribution": "normal", "mu": 1.5, "sigma": 0.3}, stats.norm(1.5, 0.3)),
    ({"distribution": "normal"}, stats.norm(0, 1)),
    ({"distribution": "log_normal", "mu": 0.5, "sigma": 2.0}, stats.lognorm(2.0, scale=math.exp(0.5))),
    ({"distribution": "log_uniform", "min": -2, "max": 1}, stats.loguniform(math.exp(-2), math.exp(1))),
    ({"distribution": "log_uniform_values", "min": 0.01, "max": 3}, stats.loguniform(0.01, 3)),
    ({"distribution": "inv_log_uniform", "min": 1, "max": 3}, stats.loguniform(math.exp(-3), math.exp(-1))),
    ({"distribution": "inv_log_uniform_values", "min": 0.01, "max": 3}, stats.loguniform(0.01, 3)),
    ({"distribution": "beta", "a": 2, "b": 5}, stats.beta(2, 5)),
]


@pytest.mark.parametrize(("spec", "reference"), SCIPY)
def test_quantiles_are_scipys(spec: dict[str, Any], reference: Any) -> None:
    for u in (0.001, 0.2, 0.5, 0.77, 0.999):
        assert value_at(spec, u) == pytest.approx(reference.ppf(u), rel=1e-9)


def test_the_ends_of_unbounded_distributions_are_finite() -> None:
    assert -6 < value_at({"distribution": "normal"}, 0.0) < -4 and 4 < value_at({"distribution": "normal"}, 1.0) < 6


def test_whole_numbers_are_equally_likely_up_to_both_ends() -> None:
    values = [value_at({"min": -1, "max": 2}, u) for u in np.linspace(0, 1, 401)]
    assert [values.count(k) for k in (-1, 0, 1, 2)] == [100, 100, 100, 101]


def test_probabilities_are_shares() -> None:
    spec = {"values": ["a", "b", "c"], "probabilities": [1, 0, 3]}
    values = [value_at(spec, u) for u in np.linspace(0, 1, 401)]
    assert values.count("a") == 100 and values.count("c") == 301
    with pytest.raises(ValueError, match="2 values need as many probabilities"):
        value_at({"values": [1, 2], "probabilities": [1]}, 0.5)
    with pytest.raises(ValueError, match="above 0"):
        value_at({"values": [1, 2], "probabilities": [0, 0]}, 0.5)


def test_quanta_round_to_the_nearest() -> None:
    assert [value_at({"distribution": "q_uniform", "min": 0, "max": 10, "q": 4}, u) for u in (0.1, 0.3, 0.9)] == [
        0,
        4,
        8,
    ]


def test_kinds_that_the_file_does_not_name() -> None:
    specs = [{"value": 1}, {"values": [1]}, {"min": 1, "max": 2}, {"min": 1, "max": 2.0}, {"mu": 3}, {"max": 3}]
    assert [kind_of(spec) for spec in specs] == [
        "constant",
        "categorical",
        "int_uniform",
        "uniform",
        "normal",
        "unknown",
    ]
    assert kind_of({"distribution": "beta", "value": 1}) == "beta"
    with pytest.raises(ValueError, match="unknown distribution 'unknown'; known: beta, "):
        value_at({"max": 3}, 0.5)


def test_choices() -> None:
    assert choices_of({"value": 3}) == [3] and choices_of({"values": [1, 2]}) == [1, 2]
    assert choices_of({"values": [1], "distribution": "categorical_w_probabilities"}) == [1]
    assert choices_of({"min": 1, "max": 2}) is None


def test_nested_parameters_have_dotted_names() -> None:
    nested = {"a": {"parameters": {"b": {"parameters": {"c": {"value": 1}}}, "d": {"value": 2}}}, "e": {"value": 3}}
    assert flatten(nested) == {"a.b.c": {"value": 1}, "a.d": {"value": 2}, "e": {"value": 3}}
