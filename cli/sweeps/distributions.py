"""The distributions of a sweep file's parameters, each as a map from [0, 1] to its values: the inverse of its CDF.

One number in [0, 1] stands for a parameter whatever its distribution, so a random draw is the value at a uniform
number and a search over the unit cube covers every file. Names and defaults are wandb's (sweep config keys).
"""

import math
import random
from statistics import NormalDist
from typing import Any

from scipy.special import betaincinv

Parameters = dict[str, Any]
EDGE = 1e-6
"""How far from 0 and 1 the unbounded distributions are asked."""
CONTINUOUS = (
    "beta",
    "inv_log_uniform",
    "inv_log_uniform_values",
    "log_normal",
    "log_uniform",
    "log_uniform_values",
    "normal",
    "uniform",
)
"""Each is known with q_ before it, too: rounded to multiples of ``q``."""


def flatten(parameters: Parameters, prefix: str = "") -> Parameters:
    """Nested ``parameters:`` as dotted names, each with its distribution."""
    flat: Parameters = {}
    for name, spec in parameters.items():
        if "parameters" in spec:
            flat |= flatten(spec["parameters"], f"{prefix}{name}.")
        else:
            flat[prefix + name] = spec
    return flat


def kind_of(spec: Parameters) -> str:
    """The distribution that wandb takes where the file does not name one."""
    if "distribution" in spec:
        return spec["distribution"]
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical"
    if "min" in spec and "max" in spec:
        return "int_uniform" if isinstance(spec["min"], int) and isinstance(spec["max"], int) else "uniform"
    return "normal" if "mu" in spec else "unknown"


def choices_of(spec: Parameters) -> list[Any] | None:
    """The values of a constant or categorical parameter; None for the others."""
    kind = kind_of(spec)
    if kind == "constant":
        return [spec["value"]]
    return list(spec["values"]) if kind.startswith("categorical") else None


def chosen(spec: Parameters, values: list[Any], u: float) -> Any:
    """The value whose share of [0, 1] holds ``u``."""
    weights = spec.get("probabilities", [1] * len(values))
    if len(weights) != len(values) or sum(weights) <= 0:
        raise ValueError(f"{len(values)} values need as many probabilities above 0, not {weights}")
    left = u * sum(weights)
    for value, weight in zip(values, weights, strict=True):
        left -= weight
        if left < 0:
            return value
    return next(value for value, weight in zip(reversed(values), reversed(weights), strict=True) if weight)


def quantile(kind: str, spec: Parameters, u: float) -> float:
    """Where the CDF of a continuous distribution is ``u``."""
    low, high = spec.get("min", 0), spec.get("max", 1)
    if kind == "uniform":
        return low + (high - low) * u
    if kind == "log_uniform":
        return math.exp(low + (high - low) * u)
    if kind in ("log_uniform_values", "inv_log_uniform_values"):  # in the bounds of the value they are the same
        return math.exp(math.log(low) + (math.log(high) - math.log(low)) * u)
    if kind == "inv_log_uniform":  # 1 / x is log-uniform
        return math.exp(-(low + (high - low) * (1 - u)))
    if kind == "beta":
        return float(betaincinv(spec.get("a", 1), spec.get("b", 1), u))
    normal = spec.get("mu", 0) + spec.get("sigma", 1) * NormalDist().inv_cdf(min(max(u, EDGE), 1 - EDGE))
    return math.exp(normal) if kind == "log_normal" else normal


def value_at(spec: Parameters, u: float) -> Any:
    """The value of a parameter at ``u`` in [0, 1].

    Raises:
        ValueError: if wandb knows no such distribution, or for bounds that it cannot have.
        ArithmeticError: for a quantum of 0.
    """
    kind = kind_of(spec)
    if (values := choices_of(spec)) is not None:
        return chosen(spec, values, u)
    if kind == "int_uniform":
        low, high = spec.get("min", 0), spec.get("max", 1)
        return min(low + math.floor(u * (high - low + 1)), high)
    continuous = kind.removeprefix("q_")
    if continuous not in CONTINUOUS:
        raise ValueError(f"unknown distribution {kind!r}; known: {', '.join(CONTINUOUS)}, with q_; categorical")
    value = quantile(continuous, spec, u)
    quantum = spec.get("q", 1)
    return round(value / quantum) * quantum if kind.startswith("q_") else value


def draw(spec: Parameters, rng: random.Random) -> Any:
    """One value of a parameter at random. Raises as ``value_at``."""
    return value_at(spec, rng.random())
