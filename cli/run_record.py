"""What a run leaves to read: the resolved config, in its folder and on its wandb page, and result.json.

result.json maps a subcommand to what came out of it::

    {"fit": {"metrics": {"val/bpsp": 4.1}, "monitor": "val/bpsp", "best_score": 4.0, "best_path": "...", "steps": 800,
             "epochs": 2, "seconds": 63.0, "config": "<fingerprint>", "versions": {"torch": "..."}},
     "test": {"metrics": {...}, "checkpoint": "...", ...}}
"""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from rich.console import Console


def describe(parser: LightningArgumentParser, config: Namespace) -> str:
    """The resolved config as YAML; it runs again as it is."""
    return parser.dump(config, skip_unset=False)


def fingerprint(description: str) -> str:
    """Twelve hex digits that equal configs share, whatever checkpoint they start from."""
    config = yaml.safe_load(description)
    config.pop("ckpt_path", None)
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:12]


def save_beside(folder: Path, stem: str, text: str) -> None:
    """Write ``<stem>.yaml``, or ``<stem>.1.yaml`` ... where an older one says something else."""
    files = [folder / f"{stem}.yaml", *(folder / f"{stem}.{n}.yaml" for n in range(1, 1000))]
    file = next((f for f in files if not f.exists() or f.read_text() == text), files[-1])
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


class RunRecord(SaveConfigCallback):
    """Keep the config (``description``, as the user gave it) and never stop a run that has been here before."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, description: str, subcommand: str) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.description, self.subcommand = description, subcommand

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Rank zero only: no collective (``trainer.log_dir`` is one) may stand here."""
        save_beside(Path(trainer.default_root_dir), f"config.{self.subcommand}", self.description)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update({"cli": yaml.safe_load(self.description)}, allow_val_change=True)


def best_of(trainer: Trainer) -> dict[str, Any]:
    """Score and path of the first checkpoint callback that monitors something."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor:
            score = callback.best_model_score
            return {
                "monitor": callback.monitor,
                "best_score": None if score is None else float(score),
                "best_path": callback.best_model_path or None,
            }
    return {"monitor": None, "best_score": None, "best_path": None}


def summarize(trainer: Trainer, description: str, seconds: float) -> dict[str, Any]:
    """What result.json says of one subcommand."""
    is_fit = trainer.state.fn == TrainerFn.FITTING
    return {
        "metrics": {name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
        **(best_of(trainer) if is_fit else {"checkpoint": trainer.ckpt_path and str(trainer.ckpt_path)}),
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "seconds": round(seconds, 3),
        "config": fingerprint(description),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "pytorch-lightning", "numpy")},
        },
    }


def save_result(folder: Path, subcommand: str, result: dict[str, Any]) -> None:
    """Add the result to result.json beside those of other subcommands.

    A finished run that is continued has nothing left to do and measures nothing: its metrics stay.
    """
    file = folder / "result.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    if not result["metrics"] and results.get(subcommand, {}).get("metrics"):
        return
    unfinished = file.with_suffix(".tmp")
    unfinished.write_text(json.dumps(results | {subcommand: result}, indent=2) + "\n")
    unfinished.replace(file)


def print_summary(folder: Path, result: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"run folder  {folder}")
    if result.get("best_path"):
        console.print(f"best        {result['monitor']} {result['best_score']:.6g} in {result['best_path']}")
    else:
        metrics = [f"{name} {value:.6g}" for name, value in result["metrics"].items()]
        console.print(f"metrics     {', '.join(metrics) or 'none'}")
    console.print(f"time        {result['seconds']:.1f} s, {result['steps']} steps, {result['epochs']} epochs")
