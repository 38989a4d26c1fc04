"""Which folder a run writes to: ``<run.dir>/<number>``, where run.dir is by default ``runs/<run.name>``.

::

    runs/l3c/quickstart/000/  config.fit.yaml  result.json  wandb_id  checkpoints/{best,last}.ckpt  csv/  wandb/
                        001/  ...
                        .launches/<launch>     holds the number that this launch was given

The config says ``{number}`` where the number belongs (and ``{wandb_id}``), so that it reads the same in every run and
a saved config starts a new one. Rules:

1. A checkpoint inside a numbered folder: validate, test and predict work in that folder; so does fit from its
   ``last``. ``--ckpt_path last`` and ``best`` mean those of the newest folder that has one.
2. The same launch, started again, continues in its folder from its newest checkpoint. A launch is a wandb run
   (WANDB_RUN_ID), a SLURM job step or a torchrun, together with the fingerprint of the config: a requeued or preempted
   job and an elastic restart find their folder, other work of the same job does not. This goes before rule 1.
3. Everything else is a new run: the next free number, made with an exclusive mkdir. Nothing is overwritten.
4. With ``--trainer.fast_dev_run`` a run gets a folder that is gone afterwards, whatever it starts from.

One process chooses. Children that Lightning starts inherit the choice through the environment; processes that an
outer launcher starts (srun, torchrun) read it from the launch's file, on a file system that all of them see.
"""

import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from cli import claim

CHOSEN = "PARSIMONY_RUN_FOLDER"
"""Environment variable through which Lightning's child processes learn the folder."""
PATIENCE = 120.0
"""Seconds that a process of an outer launcher waits for the first one's choice."""


def launch_name(fingerprint: str) -> str | None:
    """A name that a restart of this launch has too and no other launch has; None without a launcher."""
    env = os.environ
    if run_id := env.get("WANDB_RUN_ID"):
        name = f"wandb-{run_id}"
    elif error_file := env.get("TORCHELASTIC_ERROR_FILE"):
        # torchrun's own folder <run id>_<random>/attempt_<n>/<rank>/error.json is this launch's alone, but each node
        # has another: across nodes only the id that the user gave is shared.
        across_nodes = env.get("GROUP_WORLD_SIZE", "1") != "1"
        name = f"torchrun-{env.get('TORCHELASTIC_RUN_ID') if across_nodes else Path(error_file).parents[2].name}"
    elif job := env.get("SLURM_JOB_ID"):
        name = f"slurm-{job}-{env.get('SLURM_STEP_ID', 'batch')}"
    else:
        return None
    return re.sub(r"[^\w.-]", "_", f"{name}-{fingerprint}")


def is_first_start() -> bool:
    """True for a single SLURM process that was not requeued: a shell inside a job may run the same command twice."""
    env = os.environ
    is_alone = "SLURM_JOB_ID" in env and "WANDB_RUN_ID" not in env and env.get("SLURM_NTASKS", "1") == "1"
    return is_alone and "TORCHELASTIC_ERROR_FILE" not in env and env.get("SLURM_RESTART_COUNT", "0") == "0"


def process_index() -> int:
    """This process among those of an outer launcher; 0 without one."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")))


def newest(paths: list[Path]) -> Path | None:
    return max(paths, key=lambda path: path.stat().st_mtime_ns, default=None)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest of what a run of ``folder`` left at an epoch's end, on a signal or for SLURM's requeue."""
    return newest([*folder.glob("checkpoints/last*.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")])


def numbered(base: Path) -> list[Path]:
    """Run folders of ``base``, newest number first."""
    folders = [path for path in base.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name), reverse=True)


def create(base: Path) -> Path:
    """Make the folder of the next number; two processes that start together get two numbers."""
    while True:
        number = 1 + max((int(path.name) for path in numbered(base)), default=-1)
        try:
            claim.make(base / f"{number:03d}")
            return base / f"{number:03d}"
        except FileExistsError:
            continue


@contextmanager
def forget_at_end() -> Iterator[None]:
    """Let the next run of this process choose anew; a child keeps what its parent chose."""
    inherited = os.environ.get(CHOSEN)
    try:
        yield
    finally:
        if inherited is None:
            os.environ.pop(CHOSEN, None)


def with_best(base: Path) -> Path | None:
    return next((path for path in numbered(base) if best_checkpoint(path)), None)


def best_checkpoint(folder: Path) -> Path | None:
    return newest([*folder.glob("checkpoints/best*.ckpt")])


def home(base: Path, checkpoint: Path) -> Path | None:
    """The numbered folder of ``base`` that holds the checkpoint."""
    parents = {path.resolve() for path in checkpoint.parents}
    return next((path for path in numbered(base) if path.resolve() in parents), None)


def to_continue(base: Path, ckpt_path: str | None, subcommand: str) -> Path | None:
    """The older run that this command line asks to go on with (rule 1)."""
    if ckpt_path == "last":
        if "WANDB_SWEEP_ID" in os.environ and subcommand == "fit":
            return None  # the newest folder is another trial's
        return next((path for path in numbered(base) if last_checkpoint(path)), None)
    if ckpt_path == "best":
        return None if subcommand == "fit" else with_best(base)
    if ckpt_path and (subcommand != "fit" or Path(ckpt_path).name.startswith(("last", "hpc_ckpt"))):
        return home(base, Path(ckpt_path))
    return None


def named_in(marker: Path) -> Path | None:
    """The folder that a launch's file names, if both exist."""
    folder = marker.parents[1] / marker.read_text() if marker.exists() else None
    return folder if folder and folder.is_dir() else None


def wait_for(marker: Path) -> Path:
    """The folder that process 0 chooses."""
    deadline = time.monotonic() + PATIENCE
    while not (folder := named_in(marker)):
        if time.monotonic() > deadline:
            raise FileNotFoundError(
                f"process {process_index()} waited {PATIENCE:.0f} s for {marker}, which process 0 writes: run.dir must "
                "be on a file system that all nodes share, and torchrun over several nodes needs --rdzv-id"
            )
        time.sleep(0.1)
    return folder


def choose(base: Path, ckpt_path: str | None, subcommand: str, fingerprint: str) -> Path:
    """The folder of this run, by the rules above; every process of the run gets the same."""
    if CHOSEN in os.environ:
        return Path(os.environ[CHOSEN])
    launch = launch_name(f"{subcommand}-{fingerprint}")
    marker = base / ".launches" / (launch or "none")
    if launch and process_index() > 0:
        return wait_for(marker)
    if launch and not is_first_start() and (started := named_in(marker)):
        return started
    folder = to_continue(base, ckpt_path, subcommand) or create(base)
    if launch:
        claim.leave_note(marker, folder.name)
    return folder


def checkpoint_to_load(folder: Path, ckpt_path: str | None, subcommand: str) -> str | None:
    """The file to start from: a run that goes on takes its newest checkpoint, whatever it began with.

    Raises:
        FileNotFoundError: if the checkpoint that the user asks for does not exist.
    """
    if subcommand == "fit" and (last := last_checkpoint(folder)):
        return str(last)
    if ckpt_path == "last" and subcommand == "fit":
        return None  # so that a job's script can always say last
    if ckpt_path in ("best", "last"):
        source = with_best(folder.parent) if subcommand == "fit" else folder
        found = source and (best_checkpoint(source) if ckpt_path == "best" else last_checkpoint(source))
        if not found:
            raise FileNotFoundError(f"--ckpt_path {ckpt_path}: no such checkpoint in {folder.parent}/*/checkpoints")
        return str(found)
    return ckpt_path


def require_named(ckpt_path: str | None) -> None:
    """Raise a FileNotFoundError for a checkpoint given by a path that leads nowhere."""
    if ckpt_path and ckpt_path not in ("best", "last") and "://" not in ckpt_path and not Path(ckpt_path).exists():
        raise FileNotFoundError(f"--ckpt_path {ckpt_path}: no such file")


def wandb_id(folder: Path) -> str:
    """The id of the wandb run that belongs to this folder, so that a continued run continues there too."""
    file = folder / "wandb_id"
    if not file.exists() and process_index() == 0:
        file.write_text(os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
    return file.read_text() if file.exists() else "none"  # only process 0 opens a wandb run


def fill_in(value: Any, names: dict[str, str]) -> Any:
    """``value`` with every name in its strings replaced."""
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, list):
        return [fill_in(item, names) for item in value]
    if isinstance(value, Namespace):
        return Namespace(**{key: fill_in(item, names) for key, item in vars(value).items()})
    if isinstance(value, dict):
        return {key: fill_in(item, names) for key, item in value.items()}
    return value


def place(config: Namespace, subcommand: str, fingerprint: str) -> Path:
    """Choose folder and checkpoint of a run and write them into its config; the folder.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if another process writes the folder.
    """
    base, ckpt_path = Path(config.run.dir), None if config.ckpt_path is None else str(config.ckpt_path)
    require_named(ckpt_path)
    is_chosen = CHOSEN in os.environ
    if config.trainer.get("fast_dev_run"):
        source = to_continue(base, ckpt_path, subcommand) or base / "none"
        folder = Path(os.environ[CHOSEN]) if is_chosen else claim.make_trial()
    else:
        source = folder = choose(base, ckpt_path, subcommand, fingerprint)
        if subcommand == "fit" and not is_chosen and process_index() == 0:
            claim.lock(folder)
    config.ckpt_path = checkpoint_to_load(source, ckpt_path, subcommand)
    names = {f"{config.run.dir}/{{number}}": str(folder), "{number}": folder.name, "{wandb_id}": wandb_id(folder)}
    config.trainer = fill_in(config.trainer, names)
    os.environ[CHOSEN] = str(folder)
    return folder
