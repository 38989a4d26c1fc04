"""Options of the trainer that are refused before anything is written."""

import pytest
from jsonargparse import Namespace

from cli.trainer_options import check

STRATEGY = "pytorch_lightning.strategies.DDPStrategy"


@pytest.mark.parametrize(
    ("strategy", "remedy"),
    [
        ("ddp_fork", "ddp"),
        ("ddp_spawn", "ddp"),
        ("ddp_notebook", "ddp"),
        ("ddp_fork_find_unused_parameters_true", "ddp_find_unused_parameters_true"),
        ("ddp_spawn_find_unused_parameters_false", "ddp_find_unused_parameters_false"),
    ],
)
def test_copies_of_this_process_are_refused(strategy: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"{strategy} trains in .* use --trainer.strategy {remedy}$"):
        check(Namespace(strategy=strategy, num_nodes=1))


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp"])
def test_other_strategies_are_lightnings(strategy: str) -> None:
    check(Namespace(strategy=strategy, num_nodes=1))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver", "popen", None])
def test_a_strategy_given_as_an_object(method: str | None) -> None:
    options = Namespace() if method is None else Namespace(start_method=method)
    trainer = Namespace(strategy=Namespace(class_path=STRATEGY, init_args=options), num_nodes=1)
    if method in (None, "popen"):
        check(trainer)
        check(Namespace(strategy=Namespace(class_path=STRATEGY), num_nodes=1))
    else:
        with pytest.raises(ValueError, match=f"start_method {method} trains in copies"):
            check(trainer)


def test_a_run_without_a_record_is_refused() -> None:
    check(Namespace(barebones=False, strategy="auto", num_nodes=1))
    with pytest.raises(ValueError, match=r"barebones true forbids .* use --trainer.fast_dev_run 10$"):
        check(Namespace(barebones=True, strategy="auto", num_nodes=1))


@pytest.mark.parametrize("name", ["accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval"])
def test_intervals_of_nothing(name: str) -> None:
    for value in (0, 0.0, -1):
        with pytest.raises(ValueError, match=rf"^--trainer.{name} must be above 0, not {value}$"):
            check(Namespace(**{name: value}))
    for good in (1, 0.5, None, "00:01:00:00"):
        check(Namespace(**{name: good}))


def test_a_folder_beside_the_runs() -> None:
    check(Namespace(default_root_dir="elsewhere/{number}"))
    for folder in ("elsewhere", None):
        with pytest.raises(ValueError, match=f"default_root_dir {folder} would take .* --run.dir says where"):
            check(Namespace(default_root_dir=folder))


def test_nodes_that_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Namespace(strategy="ddp", num_nodes=2)
    with pytest.raises(ValueError, match=r"num_nodes 2 waits .* by torchrun or srun"):
        check(two)
    check(Namespace(strategy="ddp", num_nodes=1))
    monkeypatch.setenv("MASTER_ADDR", "node1")  # torchrun, or by hand
    check(two)
    monkeypatch.delenv("MASTER_ADDR")
    for name, value in {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "fit", "SLURM_PROCID": "0"}.items():
        monkeypatch.setenv(name, value)
    check(two)
