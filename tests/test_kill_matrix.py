"""Runs that are killed, and what is left: one style of training here, all five with PARSIMONY_KILL_MATRIX=1."""

import os
from pathlib import Path

import pytest

from tests import kill_matrix
from tests.kill_matrix import ENDS, STYLES, Style, cells

ALL = bool(os.environ.get("PARSIMONY_KILL_MATRIX"))


@pytest.mark.parametrize("style", STYLES if ALL else STYLES[-1:], ids=lambda style: style.name)
def test_nothing_beyond_the_last_checkpoint_is_lost(style: Style, monkeypatch: pytest.MonkeyPatch) -> None:
    for report in (kill_matrix.CodecReport, kill_matrix.ImageDraws):
        monkeypatch.setattr(report, "on_fit_end", lambda *_: None)
    found = cells(style, Path(style.name.replace(" ", "_")).resolve())
    assert {end: text[:2] for end, text in found.items()} == dict.fromkeys(ENDS, "ok"), found
    assert found["SIGTERM"] == found["SIGUSR1"] == f"ok, from batch {style.batch} of {style.batch}"
