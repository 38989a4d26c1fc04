"""SIGTERM, Ctrl-C and SLURM's warning: finish the batch, save a checkpoint, leave; requeue the job if SLURM warned."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities.exceptions import SIGTERMException

SIGNALS = (signal.SIGTERM, signal.SIGINT)
HASTE = 1.0
"""Seconds after which a second Ctrl-C is a second one and not the first, passed on by a launcher."""


class CheckpointOnSignal(Callback):
    """Save ``<dirpath>/last.ckpt`` at the next batch boundary and leave with exit code 128 + signal.

    Lightning's own handler, which talks to other ranks from inside the signal handler, is replaced: here a handler
    only takes a note, and the ranks agree after a batch, so all save the same step. Half a validation cannot be
    resumed: a signal before or during one is answered after the next batch. A second Ctrl-C leaves at once; other
    repetitions mean nothing, since torchrun and srun pass on what the terminal or the scheduler sent already.

    In a SLURM job the signal that announces its end (``#SBATCH --signal=SIGUSR1@90``) requeues it after the checkpoint:
    Lightning's handler would save in the middle of a batch, which cannot be resumed exactly.
    """

    def __init__(self, dirpath: str) -> None:
        self.path = Path(dirpath) / "last.ckpt"
        self.received: int | None = None
        self.received_at = 0.0
        self.is_leaving = False
        self.warning: int | None = None
        self.must_requeue = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.received, self.is_leaving = None, False
        if threading.current_thread() is threading.main_thread():
            self.warning = requeue_signal(trainer)
            for number in [*SIGNALS, *filter(None, [self.warning])]:
                signal.signal(number, self._take_note)  # Lightning puts the former handlers back when it is done

    def _take_note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received, self.received_at = number, time.monotonic()
            print(f"{signal.Signals(number).name}: saving a checkpoint first, Ctrl-C to leave at once", flush=True)
        elif number == signal.SIGINT and time.monotonic() - self.received_at > HASTE:
            raise SystemExit(128 + number)

    def _agree(self, trainer: Trainer) -> None:
        """Lightning raises SIGTERMException at its next safe place, where the step's metrics are logged."""
        self.is_leaving = trainer.strategy.reduce_boolean_decision(self.received is not None, all=False)
        trainer._signal_connector.received_sigterm = self.is_leaving
        if self.is_leaving:
            is_warned = self.received is not None and self.received == self.warning
            self.must_requeue = trainer.strategy.reduce_boolean_decision(is_warned, all=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:  # half an accumulated gradient is not in a file
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._agree(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Not now, nor right after it: a run resumed there counts its logged steps one too high."""
        trainer._signal_connector.received_sigterm = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not (isinstance(exception, SIGTERMException) and self.is_leaving):
            return
        exception.code = 128 + (self.received or signal.SIGTERM)
        if not self._is_saved(trainer):
            trainer.save_checkpoint(self.path)
        if trainer.is_global_zero:
            print(f"saved {self.path}; the same command with --ckpt_path last goes on", flush=True)
            if self.must_requeue:
                requeue()

    def _is_saved(self, trainer: Trainer) -> bool:
        """True at the end of an epoch, where the ``last`` callback came first."""
        callbacks = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor is None]
        return any(c._last_global_step_saved == trainer.global_step and self.path.exists() for c in callbacks)


def requeue_signal(trainer: Trainer) -> int | None:
    """The signal by which SLURM announces the end of this job; None elsewhere."""
    environment = trainer._accelerator_connector.cluster_environment
    if not isinstance(environment, SLURMEnvironment) or not environment.auto_requeue:
        return None
    return int(environment.requeue_signal or signal.SIGUSR1)


def requeue() -> None:
    """Put this SLURM job, or this task of a job array, back into the queue."""
    job = os.environ.get("SLURM_JOB_ID", "")
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        code = subprocess.run(["scontrol", "requeue", job], check=False).returncode
    except OSError as error:
        print(f"could not requeue job {job}: {error}", flush=True)
    else:
        print(f"requeued job {job}" if code == 0 else f"scontrol requeue {job} ended with code {code}", flush=True)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """Outside of training: no traceback for Ctrl-C, and SIGTERM cleans up too."""
    is_main = threading.current_thread() is threading.main_thread()
    former = signal.signal(signal.SIGTERM, _leave) if is_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, former or signal.SIG_DFL)
