"""What a run leaves to read by machine: result.json maps a subcommand to what came out of it.

::

    {"fit": {"metrics": {"val/bpsp": 4.1}, "monitor": "val/bpsp", "best_score": 4.0,
             "best_path": "checkpoints/best.ckpt", "steps": 800, "epochs": 2, "seconds": 63.0,
             "config": "<fingerprint>", "commit": "<hash>", "dirty": false, "command": "python train.py fit ...",
             "host": "node7", "device": "2 x NVIDIA H200", "versions": {"torch": "..."}},
     "test": {"metrics": {...}, "checkpoint": "...", ...}}

Paths are relative to the run's folder where they lie in it. Seconds and metrics of a fit are those of the whole run.
"""

import json
import platform
import shlex
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console

from cli.checkout import ROOT
from cli.run_record import RunRecord, fingerprint


def git(*words: str) -> str | None:
    """What git says of the code; None without git or outside of a repository."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def origin(words: Sequence[str]) -> dict[str, Any]:
    """Which code runs which command where; asked before the run, since the code may change meanwhile."""
    commit = git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": None if commit is None else bool(git("status", "--porcelain", "--untracked-files=no")),
        "command": shlex.join(["python", "train.py", *words]),
        "host": platform.node(),
    }


def device_of(trainer: Trainer) -> str:
    """Number and name of the devices of all ranks, taken to be alike."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {platform.machine()}"
    return f"{trainer.world_size} x {name}"


def within(folder: Path, path: str | Path | None) -> str | None:
    """A path as seen from the run's folder, or as it is if it leads elsewhere."""
    if not path:
        return None
    inside = Path(path).resolve()
    return str(inside.relative_to(folder.resolve())) if inside.is_relative_to(folder.resolve()) else str(path)


def best_of(trainer: Trainer) -> dict[str, Any]:
    """Score and path of the first checkpoint callback that monitors something.

    A fit that began with another run's checkpoint remembers that run's best until it has one of its own.
    """
    folder = Path(trainer.default_root_dir)
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            score = callback.best_model_score
            path = None if score is None else within(folder, callback.best_model_path)
            return {
                "monitor": callback.monitor,
                "best_score": None if score is None else float(score),
                "best_path": path,
            }
    return {"monitor": None, "best_score": None, "best_path": None}


def summarize(trainer: Trainer, record: RunRecord, origin: dict[str, Any]) -> dict[str, Any]:
    """What result.json says of one subcommand."""
    is_fit = trainer.state.fn == TrainerFn.FITTING
    loaded = within(Path(trainer.default_root_dir), trainer.ckpt_path)
    return {
        "metrics": record.metrics,
        **(best_of(trainer) if is_fit else {"checkpoint": loaded}),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "seconds": round(record.seconds, 3),
        "config": fingerprint(record.description),
        **origin,
        "device": device_of(trainer),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "pytorch-lightning", "numpy")},
        },
    }


def save_result(folder: Path, subcommand: str, result: dict[str, Any]) -> None:
    """Add the result to result.json beside those of other subcommands."""
    file = folder / "result.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(results | {subcommand: result}, indent=2) + "\n")
    unfinished.replace(file)


def print_summary(folder: Path, result: dict[str, Any], wandb: str | None) -> None:
    """A few lines; ``wandb`` tells where its run is."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"run folder  {folder}")
    if result.get("best_path"):
        console.print(f"best        {result['monitor']} {result['best_score']:.6g} in {folder / result['best_path']}")
    else:
        metrics = [f"{name} {value:.6g}" for name, value in result["metrics"].items()]
        console.print(f"metrics     {', '.join(metrics) or 'none'}")
    console.print(f"time        {result['seconds']:.1f} s, {result['steps']} steps, {result['epochs']} epochs")
    if wandb:
        console.print(f"wandb       {wandb}")
