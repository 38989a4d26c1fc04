"""A new run never overwrites; the same launch, started again, finds its folder."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import Namespace

from cli import claim, run_folder
from cli.run_folder import checkpoint_to_load, choose, create, place

BASE = Path("runs/toy/one")


def checkpoint(number: str, name: str) -> Path:
    path = BASE / number / "checkpoints" / f"{name}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def chosen(ckpt_path: str | None = None, command: str = "fit", fingerprint: str = "f") -> str:
    return choose(BASE, ckpt_path, command, fingerprint).name


def test_every_new_run_has_a_new_number() -> None:
    assert [chosen() for _ in range(3)] == ["000", "001", "002"]
    (BASE / "1000").mkdir()
    (BASE / "notes").mkdir()
    assert chosen() == "1001"


def test_runs_that_start_together_get_different_numbers() -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: create(BASE), range(40)))
    assert len(set(folders)) == 40


def test_last_and_best_mean_the_newest_folder_that_has_one() -> None:
    for number in ("000", "001"):
        checkpoint(number, "last")
    checkpoint("000", "best")
    (BASE / "002").mkdir()
    assert chosen("last") == "001"
    assert chosen("last", "test") == "001"
    assert chosen("best", "test") == "000"
    assert chosen(str(BASE / "000/checkpoints/last.ckpt")) == "000"
    assert chosen(str(BASE / "000/checkpoints/best.ckpt"), "test") == "000"


def test_a_fit_from_a_best_or_foreign_checkpoint_is_a_new_run() -> None:
    best = checkpoint("000", "best")
    assert chosen("best") == "001"
    assert checkpoint_to_load(BASE / "001", "best", "fit") == str(best)
    assert chosen(str(best)) == "002"
    Path("foreign.ckpt").touch()
    assert chosen("foreign.ckpt") == "003"
    assert checkpoint_to_load(BASE / "003", "foreign.ckpt", "fit") == "foreign.ckpt"


def test_last_is_the_newest_of_all_that_the_run_left() -> None:
    last, requeue = checkpoint("000", "last"), BASE / "000" / "hpc_ckpt_1.ckpt"
    requeue.touch()
    os.utime(last, (1, 1))
    assert checkpoint_to_load(BASE / "000", "last", "fit") == str(requeue)
    os.utime(requeue, (0, 0))
    assert checkpoint_to_load(BASE / "000", None, "fit") == str(last)


def test_without_a_checkpoint_last_starts_a_fit_and_stops_a_test() -> None:
    assert chosen("last") == "000"
    assert checkpoint_to_load(BASE / "000", "last", "fit") is None
    with pytest.raises(FileNotFoundError, match="ckpt_path best"):
        checkpoint_to_load(BASE / "000", "best", "test")


LAUNCHES = {
    "wandb": {"WANDB_RUN_ID": "ab12"},
    "slurm, two tasks": {"SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"},
    "slurm, requeued": {"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": "1"},
    "torchrun": {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_ERROR_FILE": "logs/none_r4nd0m/attempt_0/0/error.json"},
    "torchrun on two nodes": {
        "TORCHELASTIC_RUN_ID": "mine",
        "TORCHELASTIC_ERROR_FILE": "logs/mine_r4nd0m/attempt_0/0/error.json",
        "GROUP_WORLD_SIZE": "2",
    },
}


@pytest.mark.parametrize("environment", LAUNCHES.values(), ids=LAUNCHES.keys())
def test_a_launch_that_is_started_again_finds_its_folder(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert chosen() == "001"
    last = checkpoint("001", "last")
    assert chosen(fingerprint="other config") == "002"
    assert chosen() == "001"
    assert checkpoint_to_load(BASE / "001", None, "fit") == str(last)
    if "TORCHELASTIC_ERROR_FILE" in environment:
        monkeypatch.setenv(
            "TORCHELASTIC_ERROR_FILE", environment["TORCHELASTIC_ERROR_FILE"].replace("attempt_0", "attempt_1")
        )
        assert chosen() == "001"


def test_the_same_command_twice_in_one_job_is_two_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "79")
    assert [chosen(), chosen()] == ["000", "001"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert chosen() == "001"


def test_other_processes_of_a_launch_wait_for_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setattr(run_folder, "PATIENCE", 0.2)
    with pytest.raises(FileNotFoundError, match="process 1 waited"):
        chosen()
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert chosen() == "000"
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert chosen() == "000"


def test_a_trial_of_a_sweep_never_continues_another(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint("000", "last")
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "new")
    assert chosen("last") == "001"


def config(ckpt_path: str | None = None, **trainer: Any) -> Namespace:
    logger = Namespace(init_args=Namespace(save_dir="x/{number}", dirpath=f"{BASE}/{{number}}/c", id="{wandb_id}"))
    options = Namespace(logger=[logger], max_epochs=3, **trainer)
    return Namespace(run=Namespace(dir=str(BASE)), ckpt_path=ckpt_path, trainer=options)


def test_the_choice_is_written_into_the_config() -> None:
    with run_folder.forget_at_end():
        first = config()
        assert place(first, "fit", "f") == BASE / "000"
        child = config()  # a process that Lightning starts
        assert place(child, "fit", "f") == BASE / "000"
    checkpoint("000", "last")
    with run_folder.forget_at_end():
        again = config("last")
        place(again, "fit", "f")
    assert first.trainer.logger[0].init_args.save_dir == "x/000"
    assert again.ckpt_path == "runs/toy/one/000/checkpoints/last.ckpt"
    ids = {c.trainer.logger[0].init_args.id for c in (first, child, again)}
    assert len(ids) == 1 and len(ids.pop()) == 8


def test_the_wandb_run_of_an_agent_keeps_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "ab12")
    assert run_folder.wandb_id(create(BASE)) == "ab12"
    monkeypatch.delenv("WANDB_RUN_ID")
    assert run_folder.wandb_id(BASE / "000") == "ab12"


def test_numbers_are_ordered_as_numbers() -> None:
    for number in ("999", "1000", "998"):
        checkpoint(number, "last")
        checkpoint(number, "best")
    assert chosen("last") == "1000" and chosen("best", "test") == "1000"
    assert [path.name for path in run_folder.numbered(BASE)] == ["1000", "999", "998"]
    assert chosen() == "1001"


def test_a_trial_starts_from_a_run_and_writes_elsewhere() -> None:
    best, last = str(checkpoint("000", "best")), str(checkpoint("000", "last"))
    for asked, command, expected in (
        ("best", "test", best),
        ("last", "fit", last),
        (best, "fit", best),
        (None, "fit", None),
    ):
        trial = config(asked, fast_dev_run=True)
        with claim.session(), run_folder.forget_at_end():
            folder = place(trial, command, "f")
            child = config(asked, fast_dev_run=True)
            assert place(child, command, "f") == folder  # a process that Lightning starts
        assert trial.ckpt_path == child.ckpt_path == expected
        assert trial.trainer.logger[0].init_args.dirpath == f"{folder}/c"
        assert not folder.exists()
    Path(best).unlink()
    with claim.session(), run_folder.forget_at_end(), pytest.raises(FileNotFoundError, match="ckpt_path best"):
        place(config("best", fast_dev_run=True), "test", "f")
    assert [path.name for path in BASE.iterdir()] == ["000"]


def test_a_checkpoint_that_is_not_there_makes_no_folder() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.ckpt: no such file"):
        place(config("nowhere.ckpt"), "fit", "f")
    assert not BASE.exists()
    with claim.session(), run_folder.forget_at_end():
        remote = config("s3://bucket/a.ckpt")
        place(remote, "fit", "f")
        assert remote.ckpt_path == "s3://bucket/a.ckpt"
