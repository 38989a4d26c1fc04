"""The resolved config, in the run's folder and on its wandb page, and what a run knows of its earlier processes."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.trainer.states import TrainerFn

from cli import claim, metrics_table


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
    """Keep the config (``description``, as the user gave it) and never stop a run that has been here before.

    A checkpoint carries the seconds and the newest metrics of its run, so that a run in several pieces adds them up.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, description: str, subcommand: str) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.description, self.subcommand = description, subcommand
        self.start = time.monotonic()
        self.earlier: dict[str, Any] = {"seconds": 0.0, "metrics": {}}
        self.trainer: Trainer | None = None
        self.has_noted_start = False

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Rank zero only: no collective (``trainer.log_dir`` is one) may stand here."""
        save_beside(Path(trainer.default_root_dir), f"config.{self.subcommand}", self.description)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_hyperparams({"cli": yaml.safe_load(self.description)})

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self.trainer = trainer

    @property
    def seconds(self) -> float:
        """Of this process and of those whose work it goes on with."""
        return self.earlier["seconds"] + time.monotonic() - self.start

    @property
    def metrics(self) -> dict[str, float]:
        """The newest value of each metric of the run."""
        assert self.trainer is not None, "the trainer calls setup first"
        own = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        return dict(sorted((self.earlier["metrics"] | own).items()))

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Of a checkpoint of this run: what another one took is none of this one's."""
        trainer = self.trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING or trainer.ckpt_path is None:
            return
        if Path(trainer.default_root_dir).resolve() in Path(trainer.ckpt_path).resolve().parents:
            self.earlier = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.has_noted_start = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not self.has_noted_start and trainer.is_global_zero:
            metrics_table.note_start(trainer)
        self.has_noted_start = True

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        claim.begin()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if not trainer.sanity_checking:
            claim.begin()

    def on_test_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        claim.begin()

    def on_predict_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        claim.begin()
