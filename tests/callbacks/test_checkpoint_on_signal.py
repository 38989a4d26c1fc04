"""Signals before and after training; those within it: tests/test_train.py."""

import os
import signal
from pathlib import Path

import pytest

from callbacks.checkpoint_on_signal import exit_on_signal
from cli import claim


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_stopped_cleans_up(number: int) -> None:
    former = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop, exit_on_signal(), claim.session():
        claim.make(Path("runs/000"))
        os.kill(os.getpid(), number)
    assert stop.value.code == 128 + number and not Path("runs").exists()
    assert signal.getsignal(signal.SIGTERM) == former
