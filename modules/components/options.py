"""Bounds of numeric options: a mistake is one line that names the option.

None, where an option may be left out, passes; NaN and infinity never do.
"""

import math


def at_least(least: float, **options: float | None) -> None:
    """Raise a ValueError for the first option below ``least``."""
    for name, value in options.items():
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def above(bound: float, **options: float | None) -> None:
    """Raise a ValueError for the first option that is not above ``bound``."""
    for name, value in options.items():
        if value is not None and not bound < value < math.inf:
            raise ValueError(f"{name} must be above {bound}, got {value}")


def within(low: float, high: float, **options: float | None) -> None:
    """Raise a ValueError for the first option outside of ``low`` to ``high``, both of which pass."""
    for name, value in options.items():
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name} must be {low} to {high}, got {value}")
