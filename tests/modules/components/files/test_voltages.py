"""What WFDB headers say of gains and units, also where the wfdb package does not see it."""

from pathlib import Path

import pytest

from modules.components.files.voltages import calibration, per_mv


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("V", 0.001),
        ("volts", 0.001),
        ("mV", 1.0),
        ("mv", 1.0),
        ("Millivolt", 1.0),
        ("uV", 1000.0),
        ("UV", 1000.0),
        ("microV", 1000.0),
        ("\u00b5V", 1000.0),
        ("\u03bcV", 1000.0),
        ("mmHg", None),
        ("", None),
    ],
)
def test_units(unit: str, expected: float | None) -> None:
    assert per_mv(unit) == expected


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("1000/mV 16", (True, "mV")),
        ("1000 16", (True, "mV")),
        ("-.5e1(-10)/microV 16", (True, "microV")),
        ("200(0)/\u00b5V", (True, "\u00b5V")),
        ("200/", (True, "mV")),
        ("0/V", (False, "V")),
        ("0.0", (False, "mV")),
        ("", (False, "mV")),
        ("ECG", (False, "mV")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_calibration(tmp_path: Path, field: str, expected: tuple[bool, str], encoding: str) -> None:
    text = f"# 1000/mV\nx 2 300 900\n\nx.mat 16+24 7/mmHg\n#\nx.mat 16+24 {field}\n# \u00b5\n"
    (tmp_path / "x.hea").write_text(text, encoding=encoding)
    assert calibration(tmp_path / "x.hea", 1) == expected
    assert calibration(tmp_path / "x.hea", 0) == (True, "mmHg")
    with pytest.raises(IndexError):
        calibration(tmp_path / "x.hea", 2)
