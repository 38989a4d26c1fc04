"""Lightning's advertisements and the warnings that nobody can act on."""

import logging
import os
import warnings

LOGGERS = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.trainer.connectors.checkpoint_connector")
NOT_FOR_USERS = ("litlogger", "litmodels", "LitLogger", "LitModel", "`weights_only` was not set")
WARNINGS = (
    r"LightningCLI's args parameter is intended",  # main(args) from a test, while sys.argv holds pytest's words
    r"Checkpoint directory .* exists and is not empty",  # every resume; a new run has a new folder
    r"The '\w+' does not have many workers",  # data in memory needs none
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch's advice to Lightning
    r"Attribute '\w+' is an instance of `nn.Module`",  # under the CLI it is their config that is saved
    r"The dirpath has changed from",  # a fit from another run's checkpoint, on purpose
    r"Be aware that when using `ckpt_path`, .*: \['RunRecord'\]",  # a trial keeps no record
    r"You have overridden `on_before_batch_transfer` in `LightningModule`",  # labels are seen there
    r"There is a wandb run already in progress",  # validate after fit in one process, on purpose
)


def is_useful(record: logging.LogRecord) -> bool:
    return not any(word in record.getMessage() for word in NOT_FOR_USERS)


def silence_unusable_advice() -> None:
    os.environ.setdefault("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's calls, not ours
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if is_useful not in logger.filters:
            logger.addFilter(is_useful)
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
