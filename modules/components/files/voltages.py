"""Units of voltage, and what the header of a WFDB record says of them."""

import re
from pathlib import Path
from typing import NamedTuple

PER_MV = {
    **dict.fromkeys(("v", "volt", "volts"), 0.001),
    **dict.fromkeys(("mv", "millivolt", "millivolts"), 1.0),
    **dict.fromkeys(("uv", "\u03bcv", "microv", "microvolt", "microvolts"), 1000.0),
}
"""Units per mV by their names in small letters."""
FIELD = re.compile(r"(?P<gain>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)(\(-?\d*\))?(/(?P<unit>.*))?")
"""The third field of a signal's line: gain, baseline, unit."""


def per_mv(unit: str) -> float | None:
    """Units per mV; None if that is no voltage. Large letters and the two signs for micro make no difference."""
    return PER_MV.get(unit.casefold())


class Calibration(NamedTuple):
    """Of one signal of a WFDB record."""

    is_known: bool
    """Whether the header gives a gain; where it gives none or 0, readers assume 200 steps per mV."""
    unit: str


def calibration(header: Path, channel: int) -> Calibration:
    """What a header of one segment says; the wfdb package drops the micro sign of a unit and so reads V.

    Raises:
        IndexError: if it has no such signal.
    """
    content = header.read_bytes()
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = [line.split() for line in text.splitlines()]
    fields = [line for line in lines if line and not line[0].startswith("#")][1:][channel]
    field = FIELD.fullmatch(fields[2]) if len(fields) > 2 else None
    return Calibration(field is not None and float(field["gain"]) != 0, (field and field["unit"]) or "mV")
