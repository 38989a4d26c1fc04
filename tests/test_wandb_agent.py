"""A real ``wandb agent`` and real runs against a stand-in for wandb's server: PARSIMONY_WANDB_AGENT=1, two minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.wandb_server import ENTITY, PROJECT, SWEEP, Row, SweepServer, listening

ROOT = Path(__file__).parents[1]
FILE = ROOT / "sweeps" / "strassen_products.yaml"
LENGTH = "trainer.max_epochs"
RATE = "model.init_args.optimizer.init_args.regularization"
pytestmark = [
    pytest.mark.skipif(not os.environ.get("PARSIMONY_WANDB_AGENT"), reason="takes minutes: PARSIMONY_WANDB_AGENT=1"),
    pytest.mark.slow,
    pytest.mark.timeout(1200),
]


def parameters(runs: Path, **more: Any) -> dict[str, Any]:
    """Of a trial of seconds; the options that a server would draw, and some that make it small."""
    small = {"trainer.accelerator": "cpu", "trainer.max_time": None, "model.init_args.network.init_args.starts": 4}
    return {"run.dir": str(runs), **small, **more}


def agent(address: str) -> subprocess.CompletedProcess:
    """What a user types, in the project's folder; its own files go to the test's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40, "WANDB_DIR": str(Path.cwd())}
    environment |= {"HOME": str(Path.cwd()), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    words = [sys.executable, "-m", "wandb", "agent", f"{ENTITY}/{PROJECT}/{SWEEP}"]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1100)


def test_trials_start_report_stop_and_go_on() -> None:
    runs = Path("runs").resolve()
    short = parameters(runs, **{LENGTH: 2, RATE: 0.0123})
    long = parameters(runs, **{LENGTH: 2000, RATE: 0.02})
    trials = [("run", "trial0", short), ("run", "trial1", long), ("resume", "trial1", long | {"_wandb": {}})]

    def must_stop(place: int, rows: list[Row]) -> bool:
        return place > 0 and any("train/loss" in row for row in rows)

    server = SweepServer(FILE.read_text(), trials, must_stop)
    with listening(server) as address:
        done = agent(address)
    assert done.returncode == 0, done.stderr
    first, second = ("run", "trial0"), ("run", "trial1")
    assert server.told == [first, second, ("stop", "trial1"), ("resume", "trial1"), ("stop", "trial1"), ("exit", "")]

    configs = [yaml.safe_load((runs / number / "config.fit.yaml").read_text()) for number in ("000", "001")]
    for config, drawn in zip(configs, (short, long), strict=True):
        assert config["trainer"]["max_epochs"] == drawn[LENGTH] and config["trainer"]["max_time"] is None
        assert config["model"]["init_args"]["optimizer"]["init_args"]["regularization"] == drawn[RATE]
    assert json.loads((runs / "000" / "result.json").read_text())["fit"]["epochs"] == 2
    assert not (runs / "001" / "result.json").exists() and (runs / "001" / "checkpoints" / "last.ckpt").exists()
    assert not (runs / "002").exists()  # the preempted trial went on in its folder

    assert "exact_share" in {name for row in server.rows["trial0"] for name in row}  # the metric of the sweep
    steps = [row["trainer/global_step"] for row in server.rows["trial1"] if "train/loss" in row]
    assert steps == sorted(set(steps)) and len(steps) > 1  # none twice
    assert server.configs["trial0"][RATE]["value"] == 0.0123
    assert server.ended == [("trial0", 0), ("trial1", 1), ("trial1", 1)]
