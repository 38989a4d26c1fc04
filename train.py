"""Train, validate, test or predict: ``python train.py fit --config configs/<method>/<experiment>.yaml``.

configs/trainer.yaml is loaded first; later ``--config`` files and dotted options win over earlier ones. Where a run
puts its files is told in cli/run_folder.py. A user's mistake is one line and exit code 2; PARSIMONY_DEBUG=1
shows the traceback.
"""

import os
import sys
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # fresh memory costs a fraction with huge pages; read by torch

from jsonargparse import set_parsing_settings
from pytorch_lightning import LightningDataModule, LightningModule
from pytorch_lightning.cli import ArgsType, LightningCLI

from callbacks.checkpoint_on_signal import exit_on_signal
from callbacks.predictions import write_predictions
from cli import callback_switches, checkout, claim, hints, quiet, run_folder, sharding, trainer_options, wandb_session
from cli.metrics_table import write_merged
from cli.plain_errors import PlainErrorParser, one_line_errors
from cli.result import origin, print_summary, save_result, summarize
from cli.run_record import RunRecord, describe, fingerprint
from modules.components import checkpoint_file
from modules.components.schedules import check_steps

ABOUT = "Train, validate, test or predict: python train.py fit --config configs/<method>/<experiment>.yaml"
DEFAULTS = str(checkout.ROOT / "configs" / "trainer.yaml")


class ParsimonyCLI(LightningCLI):
    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--run.name", type=str, default="unnamed", help="<method>/<experiment>")
        parser.add_argument("--run.dir", type=str, default="runs/${run.name}", help="holds one numbered folder per run")
        parser.add_argument("--run.monitor", type=str | None, default=None, help="the metric that picks the best")
        parser.add_argument("--run.mode", type=Literal["min", "max"], default="min", help="which of its values is best")

    def parse_arguments(self, parser: Any, args: ArgsType) -> None:
        self.words = list(map(str, sys.argv[1:] if args is None else args))  # type: ignore[arg-type]
        hints.check(self.words)
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Leave the config as the user wrote it: Lightning would put a checkpoint's hyper-parameters over it."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.get("weights_only") is False:
            raise ValueError("--weights_only false would run code that a checkpoint brings along: leave it out")
        trainer_options.check(config.trainer)
        self.check_checkpoint(config.ckpt_path)  # before a new folder is made for the run
        self.origin, self.description = origin(self.words), describe(self._parser(self.subcommand), config)
        self.folder = run_folder.place(config, str(self.subcommand), fingerprint(self.description))
        self.check_checkpoint(config.ckpt_path)  # now it is clear what best and last are
        callback_switches.apply(config.trainer)
        self.save_config_kwargs = {"description": self.description, "subcommand": self.subcommand}

    def check_checkpoint(self, path: str | None) -> None:
        """What sharded checkpoints hold, and remote files, are left to Lightning."""
        file, is_fit = Path(str(path).removeprefix("file://")), self.subcommand == "fit"
        if path and file.is_dir():
            checkpoint_file.require_sharded(file)
        if path and file.is_file():
            content = checkpoint_file.require(file, training=is_fit)
            if is_fit:
                check_steps(content["lr_schedulers"], self.config[self.subcommand].trainer.max_steps)

    def before_fit(self) -> None:
        sharding.check(self.trainer, self.model)

    def before_predict(self) -> None:
        write_predictions(self.trainer, self.model)

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        finally:
            if subcommand == "fit" and self.trainer.is_global_zero:
                write_merged(self.folder)
        for record in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(record, RunRecord) and self.trainer.is_global_zero:
                result = summarize(self.trainer, record, self.origin)
                save_result(self.folder, subcommand, result)
                print_summary(self.folder, result, wandb_session.whereabouts())


def main(args: ArgsType = None) -> None:
    """Run one subcommand; ``args`` stand for the words after ``train.py``."""
    set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    quiet.silence_unusable_advice()
    with one_line_errors(), exit_on_signal(), claim.session(), run_folder.forget_at_end(), wandb_session.session():
        checkout.require()
        ParsimonyCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            save_config_callback=RunRecord,
            parser_class=PlainErrorParser,
            parser_kwargs={"parser_mode": "omegaconf+", "description": ABOUT}
            | {name: {"default_config_files": [DEFAULTS]} for name in LightningCLI.subcommands()},
            args=wandb_session.without_agent_parameters(args),
        )


if __name__ == "__main__":
    with wandb_session.stop_is_no_failure():
        main()
