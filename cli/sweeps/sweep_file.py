"""What a sweep file must look like before a trial is planned from it: wandb's keys, and what this runner can do."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from cli.sweeps.distributions import Parameters

NUMBERS = ("min", "max", "mu", "sigma", "q", "a", "b")
"""Entries of a distribution that are numbers."""
SPEC_KEYS = ("distribution", "value", "values", "probabilities", *NUMBERS)
KEYS = ("command", "description", "early_terminate", "entity", "method", "metric", "name", "parameters", "program")
"""Of a sweep file; those that only a server reads are let be."""
SERVER_KEYS = ("apiVersion", "controller", "image_uri", "job", "kind", "project", "run_cap", "scheduler")
METHODS = ("grid", "random", "bayes")


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require_known(where: str, names: Collection[Any], known: Collection[str]) -> None:
    """Raise a ValueError for a name that wandb does not know, which its server would refuse, too."""
    if unknown := [str(name) for name in names if name not in known]:
        raise ValueError(f"{where} has no {', '.join(unknown)}; known: {', '.join(sorted(known))}")


def check_parameter(name: str, spec: Any) -> None:
    """Raise a ValueError for a parameter that is no distribution."""
    if not isinstance(spec, dict):
        raise ValueError(f"parameter {name} is {spec!r}: write {{value: {spec}}} or {{values: [...]}}")
    if "parameters" in spec:
        return check_parameters(spec["parameters"], f"{name}.")
    require_known(f"parameter {name}", spec, SPEC_KEYS)
    if "values" in spec and (not isinstance(spec["values"], list) or not spec["values"]):
        raise ValueError(f"values of parameter {name} must be a list of one or more, not {spec['values']!r}")
    if not isinstance(spec.get("distribution", ""), str):
        raise ValueError(f"distribution of parameter {name} must be a name, not {spec['distribution']!r}")
    for entry in NUMBERS:
        if entry in spec and not is_number(spec[entry]):
            raise ValueError(f"{entry} of parameter {name} must be a number such as 0.1 or 1.0e-4, not {spec[entry]!r}")


def check_parameters(parameters: Any, prefix: str = "") -> None:
    """Raise a ValueError for what is no mapping of names to distributions."""
    if not isinstance(parameters, dict) or not parameters:
        raise ValueError(f"{prefix}parameters must map names to {{value: ...}} and the like, not be {parameters!r}")
    for name, spec in parameters.items():
        check_parameter(f"{prefix}{name}", spec)


def check_metric(metric: Any) -> None:
    """Raise a ValueError for a metric without a name or with a goal that wandb does not know."""
    if not isinstance(metric, dict):
        raise ValueError(f"metric must be a dict, not {metric!r}: {{name: val/loss, goal: minimize}}")
    require_known("metric", metric, ("name", "goal", "target"))
    if not isinstance(metric.get("name"), str):
        raise ValueError(f"metric needs a name such as val/loss, not {metric.get('name')!r}")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise ValueError(f"goal of the metric must be minimize or maximize, not {metric['goal']!r}")
    if "target" in metric and not is_number(metric["target"]):
        raise ValueError(f"target of the metric must be a number, not {metric['target']!r}")


def check(sweep: Any) -> None:
    """Look at the content of a sweep file.

    Raises:
        ValueError: naming the entry that is of the wrong kind, unknown or missing.
    """
    if not isinstance(sweep, dict):
        raise ValueError(f"a sweep file maps program, method and parameters, it is no {type(sweep).__name__}")
    require_known("a sweep file", sweep, (*KEYS, *SERVER_KEYS))
    check_parameters(sweep.get("parameters"))
    if "metric" in sweep:
        check_metric(sweep["metric"])
    elif sweep.get("early_terminate") or sweep.get("method") == "bayes":
        raise ValueError("method bayes and early_terminate need metric: {name: ..., goal: ...}")
    for name, kind in (("command", list), ("program", str), ("run_cap", int), ("early_terminate", dict)):
        if name in sweep and not isinstance(sweep[name], kind):
            raise ValueError(f"{name} must be a {kind.__name__}, not {sweep[name]!r}")
    if sweep.get("run_cap", 1) < 1:
        raise ValueError(f"run_cap must be at least 1, not {sweep['run_cap']}")
    if sweep.get("method") not in (*METHODS, None):
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {sweep['method']!r}")


def load(file: Path) -> Parameters:
    """The checked content of a sweep file. Raises a ValueError, an OSError or a yaml.YAMLError."""
    sweep = yaml.safe_load(file.read_text())
    check(sweep)
    return sweep
