"""Train, validate, test or predict: ``python train.py fit --config configs/<method>/<experiment>.yaml``.

configs/trainer.yaml is loaded first; later ``--config`` files and dotted options win over earlier ones. Where a run
puts its files is told in cli/run_folder.py. A user's mistake is one line and exit code 2; PARSIMONY_DEBUG=1
shows the traceback.
"""

import os
import time
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # fresh memory costs a fraction with huge pages; read by torch

from jsonargparse import set_parsing_settings
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import ArgsType, LightningCLI

from callbacks.checkpoint_on_signal import exit_on_signal
from cli import quiet, run_folder, wandb_session
from cli.plain_errors import PlainErrorParser, one_line_errors
from cli.run_record import RunRecord, describe, fingerprint, print_summary, save_result, summarize
from modules.components import checkpoint_file

DEFAULTS = str(Path(__file__).with_name("configs") / "trainer.yaml")


class ParsimonyCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--run.name", type=str, default="unnamed", help="<method>/<experiment>")
        parser.add_argument("--run.dir", type=str, default="runs/${run.name}", help="holds one numbered folder per run")
        parser.add_argument("--run.monitor", type=str | None, default=None, help="the metric that picks the best")
        parser.add_argument("--run.mode", type=Literal["min", "max"], default="min", help="which of its values is best")

    def _parse_ckpt_path(self) -> None:
        """Leave the config as the user wrote it: Lightning would put a checkpoint's hyper-parameters over it."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.get("weights_only") is False:
            raise ValueError("--weights_only false would run code that a checkpoint brings along: leave it out")
        self.check_checkpoint(config.ckpt_path)  # before a new folder is made for the run
        self.description = describe(self._parser(self.subcommand), config)
        self.folder = run_folder.place(config, str(self.subcommand), fingerprint(self.description))
        self.check_checkpoint(config.ckpt_path)  # now it is clear what best and last are
        self.save_config_kwargs = {"description": self.description, "subcommand": self.subcommand}

    def check_checkpoint(self, path: str | None) -> None:
        """Folders (sharded checkpoints) and remote files are left to Lightning."""
        file = Path(str(path).removeprefix("file://"))
        if path and file.is_file():
            checkpoint_file.require(file, training=self.subcommand == "fit")

    def _run_subcommand(self, subcommand: str) -> None:
        start = time.monotonic()
        super()._run_subcommand(subcommand)
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            result = summarize(self.trainer, self.description, time.monotonic() - start)
            save_result(self.folder, subcommand, result)
            print_summary(self.folder, result)


def main(args: ArgsType = None) -> None:
    """Run one subcommand; ``args`` stand for the words after ``train.py``."""
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    quiet.silence_unusable_advice()
    with one_line_errors(), exit_on_signal(), run_folder.forget_at_end(), wandb_session.session():
        ParsimonyCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunRecord,
            parser_class=PlainErrorParser,
            parser_kwargs={"parser_mode": "omegaconf+"}
            | {name: {"default_config_files": [DEFAULTS]} for name in LightningCLI.subcommands()},
            args=wandb_session.without_agent_parameters(args),
        )


if __name__ == "__main__":
    main()
