"""What a sweep file must look like before a trial is planned from it."""

from typing import Any

NUMBERS = ("min", "max", "mu", "sigma", "q", "a", "b")
"""Entries of a distribution that are numbers."""


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_parameter(name: str, spec: Any) -> None:
    """Raise a ValueError for a parameter that is no distribution."""
    if not isinstance(spec, dict):
        raise ValueError(f"parameter {name} is {spec!r}: write {{value: {spec}}} or {{values: [...]}}")
    if "parameters" in spec:
        check_parameters(spec["parameters"], f"{name}.")
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


def check(sweep: Any) -> None:
    """Look at the content of a sweep file.

    Raises:
        ValueError: naming the entry that is of the wrong kind or missing.
    """
    if not isinstance(sweep, dict):
        raise ValueError(f"a sweep file maps program, method and parameters, it is no {type(sweep).__name__}")
    check_parameters(sweep.get("parameters"))
    for name, kind in (("metric", dict), ("command", list), ("program", str), ("run_cap", int)):
        if name in sweep and not isinstance(sweep[name], kind):
            raise ValueError(f"{name} must be a {kind.__name__}, not {sweep[name]!r}")
    if sweep.get("run_cap", 1) < 1:
        raise ValueError(f"run_cap must be at least 1, not {sweep['run_cap']}")
