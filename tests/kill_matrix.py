"""Ends runs of every style of training in every way, resumes them, and prints what was lost: the kill matrix.

    python -m tests.kill_matrix [style ...]

Styles: real configs, made tiny, on written data. Ends: SIGTERM; SIGUSR1, by which SLURM announces the end of a job, the
run going on without --ckpt_path as the requeued job does; SIGKILL, SIGKILL while a checkpoint is being written,
and a disk that fills up: from then on files may not grow beyond 4 kB. Each run is a process of its own, forked after
the imports. For each pair, ``last`` is a whole checkpoint, of the batch at which SIGTERM came or else of the last
epoch's end, and the run that goes on from it ends with the weights, optimizers and metrics of a run that nobody
disturbed, bit for bit.

MKL's products of matrices depend in their last bits on where in memory the matrices lie, which differs between two
undisturbed runs too; here it is told to let them not.
"""

import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("MKL_CBWR", "COMPATIBLE")  # read at the first product

import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer

import train
from callbacks.reports.codec_report import CodecReport
from callbacks.reports.image_draws import ImageDraws
from tests.modules.ecg.wfdb_files import write_set
from tests.sweeps.test_parameters import QUICK, cifar, thumbnails

ROOT = Path(__file__).parents[1]
STRIKE = "tests.kill_matrix.Strike"
ENDS = ("SIGTERM", "SIGUSR1", "SIGKILL", "SIGKILL while saving", "disk full")
CODES = {"SIGTERM": 128 + signal.SIGTERM, "SIGUSR1": 128 + signal.SIGUSR1, "disk full": 2}
SLURM = {"JOB_ID": "17", "NTASKS": "1", "JOB_NAME": "fit", "PROCID": "0", "LOCALID": "0", "RESTART_COUNT": "1"}
COMPARED = ("state_dict", "optimizer_states", "lr_schedulers", "global_step")
FULL = 4_000
"""Bytes that a file may have on a full disk: less than any checkpoint here."""


class Strike(Callback):
    """Ends its own process at the start of training batch ``batch``, or in the next checkpoint after that."""

    def __init__(self, end: str, batch: int) -> None:
        self.end, self.batch = end, batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready != self.batch:
            return
        if self.end == "disk full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (FULL, FULL))
        elif self.end == "SIGKILL while saving":
            os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.Signals[self.end])


class Style(NamedTuple):
    name: str
    config: str
    options: Callable[[Path], list[str]]
    """Writes the data below a folder and tells what makes the run small."""
    batch: int
    """In which the strike comes, in the middle of an epoch that is not the first where there are several."""


def automatic(root: Path) -> list[str]:
    sizes = ["crop_size=16", "batch_size=2", "num_dead_leaves=0", "crops_per_epoch=8", "val_crop_size=16"]
    small = [f"--model.init_args.network.init_args.{size}" for size in ("channels=4", "num_blocks=1")]
    short = ["--trainer.limit_train_batches=4", "--trainer.max_steps=12"]
    return [*small, *(f"--data.init_args.{size}" for size in sizes), *short]


def two_optimizers(root: Path) -> list[str]:
    return [*thumbnails(root), "--trainer.max_epochs=3"]


def generations(root: Path) -> list[str]:
    narrow = "--model.init_args.student.init_args.base_channels=2"
    return [*cifar(root), narrow, "--trainer.max_epochs=2", "--trainer.callbacks.init_args.generations=1"]


def phases(root: Path) -> list[str]:
    write_set(root, 40)
    names = ({"head": "mean"}, {"head": "lstm", "train_features": False})
    overlay = root / "phases.yaml"
    reports = [{"class_path": "callbacks.predictions.Predictions", "init_args": {"file": "probabilities.csv"}}]
    own = {
        "class_path": "callbacks.training_phases.TrainingPhases",
        "init_args": {
            "dirpath": "${run.dir}/{number}/checkpoints",
            "phases": [{"epochs": 2, "lr": 0.001, **name} for name in names],
        },
    }
    defaults = yaml.safe_load((ROOT / "configs" / "trainer.yaml").read_text())["trainer"]["callbacks"]
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": [*defaults, own, *reports]}}))
    small = [f"--model.init_args.network.init_args.{size}" for size in ("width=2", "units=3", "layers_per_block=1")]
    data = ["--data.init_args.splits=null", "--data.init_args.batch_size=8"]
    return ["--config", str(overlay), *small, *data, "--trainer.max_epochs=4"]


def solver(root: Path) -> list[str]:
    sizes = ["ambient=20", "dims=[2,2]", "shared=0", "batch_size=2"]
    return [f"--data.init_args.{size}" for size in sizes]


STYLES = (
    Style("automatic", "l3c/quickstart.yaml", automatic, 6),
    Style("two optimizers", "dplc/tiny_wasserstein.yaml", two_optimizers, 3),
    Style("generations", "born_again/cifar10_small.yaml", generations, 6),
    Style("phases", "ecg/narrow_crnn.yaml", phases, 10),
    Style("solver", "subspace/union.yaml", solver, 2),
)


def in_a_child(folder: Path, words: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code, negative for a signal, and output of train.py's main in a process of its own."""
    sys.stdout.flush()
    reading, writing = os.pipe()
    if not (pid := os.fork()):
        code = 70
        try:
            os.dup2(writing, 1), os.dup2(writing, 2)
            os.chdir(folder)
            os.environ.update(environment)
            train.main(words)
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as stream:
        output = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output


def last(run: Path) -> dict[str, Any] | None:
    """The run's newest checkpoint, None if there is none; an exception if it is damaged."""
    file = run / "checkpoints" / "last.ckpt"
    return torch.load(file, weights_only=True) if file.exists() else None


def equal(a: Any, b: Any) -> bool:
    """Nested values with tensors, bit for bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return isinstance(b, list | tuple) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


def differences(whole: Path, resumed: Path) -> list[str]:
    """In what a resumed run differs from one that nobody disturbed."""
    one, other = last(whole) or {}, last(resumed) or {}
    found = [key for key in COMPARED if key not in other or not equal(one[key], other[key])]
    tables = [(run / "metrics.csv").read_text() if (run / "metrics.csv").exists() else "" for run in (whole, resumed)]
    return found + (["metrics.csv"] if tables[0] != tables[1] else [])


class Matrix:
    """Runs of one style below ``folder``."""

    def __init__(self, style: Style, folder: Path) -> None:
        self.style, self.folder = style, folder
        folder.mkdir(parents=True)
        os.environ["PARSIMONY_DATA"] = str(folder)
        config = ["fit", "--config", str(ROOT / "configs" / style.config)]
        self.words = [*config, *style.options(folder), *QUICK, "--trainer.enable_progress_bar=false"]

    def fit(self, name: str, *options: str, job: bool = False) -> int:
        environment = {f"SLURM_{key}": value for key, value in SLURM.items()} if job else {}
        code, self.output = in_a_child(self.folder, [*self.words, f"--run.dir={name}", *options], environment)
        return code

    def whole(self) -> None:
        """The run that nobody disturbs.

        Raises:
            RuntimeError: if it fails.
        """
        if code := self.fit("whole"):
            raise RuntimeError(f"{self.style.name}: exit code {code}: {self.output[-2000:]}")

    def cell(self, end: str) -> str:
        """``ok`` and from which batch the run went on, or what is wrong."""
        name, is_job = end.replace(" ", "_"), end == "SIGUSR1"
        strike = json.dumps({"class_path": STRIKE, "init_args": {"end": end, "batch": self.style.batch}})
        struck = f"--trainer.callbacks+={strike}"
        code = self.fit(name, struck, job=is_job)
        if code != CODES.get(end, -signal.SIGKILL):
            return f"exit code {code}: {self.output[-300:]}"
        try:
            saved = last(self.folder / name / "000")
        except Exception as error:
            return f"last.ckpt is damaged: {error}"
        if code := self.fit(name, struck if is_job else "--ckpt_path=last", job=is_job):
            return f"resume: exit code {code}: {self.output[-300:]}"
        newest = sorted((self.folder / name).glob("[0-9]*"))[-1]
        if wrong := differences(self.folder / "whole" / "000", newest):
            return f"differs: {', '.join(wrong)}"
        progress = {} if saved is None else saved["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]
        return f"ok, from batch {progress.get('completed', 0)} of {self.style.batch}"


def cells(style: Style, folder: Path) -> dict[str, str]:
    """End -> what became of the run."""
    matrix = Matrix(style, folder)
    matrix.whole()
    found = {}
    for end in ENDS:
        found[end] = matrix.cell(end)
        print(f"{style.name}, {end}: {found[end]}", file=sys.stderr, flush=True)
    return found


def quietly() -> None:
    """What comes after the training is slow and not at stake."""
    os.environ["WANDB_MODE"] = "disabled"
    torch.set_num_threads(1)
    CodecReport.on_fit_end = ImageDraws.on_fit_end = lambda *_: None  # type: ignore[method-assign,assignment]


def main(names: list[str]) -> int:
    quietly()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for style in STYLES:
            if not names or style.name in names:
                found = cells(style, Path(folder, style.name.replace(" ", "_")))
                rows += list(found.values())
                print(f"| {style.name}, `{style.config}` | {' | '.join(found[end] for end in ENDS)} |", flush=True)
    good = sum(row.startswith("ok") for row in rows)
    print(f"ratio kill_matrix {good / max(len(rows), 1):.3f}")
    return int(good < len(rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
