"""In which unit a recording is: what a header says, and what the user says."""

import re
from collections.abc import Sequence

from modules.components.files.voltages import per_mv

HOW_TO_SAY = "add --units-per-mv (1 for mV, 1000 for uV)"
NAME = re.compile(r"(?<![a-z])(mv|millivolts?|[u\u00b5\u03bc]v|microv(?:olts?)?)(?![a-z])", re.IGNORECASE)
"""A unit inside the name of a column, such as ``ECG (mV)``, ``ii_uV``, ``mv``; both signs for micro."""
VOLT = re.compile(r"[(\[]v(olts?)?[)\]]|^'?volts?'?$", re.IGNORECASE)
"""A bare V only in brackets: there are leads of that name."""


def unit_in(header: Sequence[str]) -> float | None:
    """Units per mV that the words above a column name; None if they name none.

    Raises:
        ValueError: if they name two.
    """
    found = {per_mv(name) for word in header for name in NAME.findall(word)}
    found |= {per_mv("V") for word in header if VOLT.search(word)}
    if len(found) > 1:
        raise ValueError(f"its header {' and '.join(header)!r} names two units: {HOW_TO_SAY} and correct it")
    return found.pop() if found else None


def agreed(from_header: float | None, from_user: float | None) -> float:
    """The units per mV.

    Raises:
        ValueError: if neither says them, or they say different things.
    """
    if from_header is None and from_user is None:
        raise ValueError(f"nothing says the unit of its numbers: {HOW_TO_SAY}, or name mV, uV or (V) in its header")
    if from_header is not None and from_user is not None and from_header != from_user:
        raise ValueError(
            f"its header says {from_header:g} units per mV and --units-per-mv {from_user:g}: "
            "leave the option out or correct the header"
        )
    return from_header if from_user is None else from_user  # type: ignore[return-value]
