"""Every test runs in its own folder, with wandb off and as if no launcher and no other run were around."""

import os
import signal
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["OMP_NUM_THREADS"] = "1"
# A shell that starts the tests in the background ignores Ctrl-C for them and for every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
LAUNCHERS = ("WANDB_", "SLURM_", "TORCHELASTIC_", "PARSIMONY_RUN_FOLDER", "PARSIMONY_DEBUG", "PARSIMONY_DATA")
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "GROUP_WORLD_SIZE", "NODE_RANK", "MASTER_ADDR")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in ``tmp_path`` without the environment of launchers."""
    for name in os.environ:
        if name.startswith(LAUNCHERS) or name in RANKS:
            monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
