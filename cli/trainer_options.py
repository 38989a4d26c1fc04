"""Options of Lightning's trainer under which a run would fail late or wait for ever, refused before it has a folder."""

import os
import re

from jsonargparse import Namespace
from pytorch_lightning.plugins.environments import LSFEnvironment, MPIEnvironment, SLURMEnvironment

LAUNCHERS = (SLURMEnvironment, LSFEnvironment, MPIEnvironment)
"""Those that say nothing through torch's own variables, as torchrun does."""
COUNTS = ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval")
"""Options by which Lightning divides."""
COPIES = r"_(fork|spawn|notebook)"


def check(trainer: Namespace) -> None:
    """Look at the trainer's config.

    Raises:
        ValueError: for ``barebones``; for a folder beside the run's; for intervals of 0; for a strategy that trains in
            copies of this process, which would end without this one learning of their results; and for several nodes
            that nothing has started.
    """
    if trainer.get("barebones"):
        raise ValueError(
            "--trainer.barebones true forbids the record and the checkpoints that a run is made of: to try a few "
            "batches and leave nothing, use --trainer.fast_dev_run 10"
        )
    if "default_root_dir" in trainer and "{number}" not in str(trainer.default_root_dir):
        raise ValueError(
            f"--trainer.default_root_dir {trainer.default_root_dir} would take a part of a run's files elsewhere: "
            "--run.dir says where all of them go"
        )
    for name in COUNTS:
        value = trainer.get(name)
        if isinstance(value, (int, float)) and value <= 0:
            raise ValueError(f"--trainer.{name} must be above 0, not {value}")
    strategy = trainer.get("strategy")
    if isinstance(strategy, str) and re.search(COPIES, strategy):
        raise ValueError(
            f"--trainer.strategy {strategy} trains in copies of this process, which learns nothing of their results: "
            f"use --trainer.strategy {re.sub(COPIES, '', strategy)}"
        )
    if isinstance(strategy, Namespace):
        method = strategy.get("init_args", Namespace()).get("start_method", "popen")
        if method != "popen":
            raise ValueError(f"a strategy with start_method {method} trains in copies of this process: leave it out")
    if trainer.get("num_nodes", 1) > 1 and not is_launched():
        raise ValueError(
            f"--trainer.num_nodes {trainer.num_nodes} waits for processes on other nodes, and nothing starts them: run "
            "the command on each node by torchrun or srun (docs/cluster.md)"
        )


def is_launched() -> bool:
    """True under a launcher, or where a user has told this node where the first one is."""
    return "MASTER_ADDR" in os.environ or any(environment.detect() for environment in LAUNCHERS)
