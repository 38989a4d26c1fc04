"""The command line: what it accepts, what it refuses, and that an interruption changes no number."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import codec
import sweep
from cli import checkout
from tests.toys import Toy
from train import main

ROOT = Path(__file__).parents[1]
TOY: dict[str, Any] = {
    "run": {"name": "toy/one", "monitor": "val/loss"},
    "model": {
        "class_path": "tests.toys.Toy",
        "init_args": {
            "network": {"class_path": "tests.toys.Network"},
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.01}},
            "lr_scheduler": {
                "class_path": "torch.optim.lr_scheduler.StepLR",
                "init_args": {"step_size": 3, "gamma": 0.9},
            },
        },
    },
    "data": {"class_path": "tests.toys.Points"},
    "trainer": {"accelerator": "cpu", "max_epochs": 2, "log_every_n_steps": 1, "enable_model_summary": False},
}
RUNS = Path("runs/toy/one")


@pytest.fixture(autouse=True)
def toy(alone: None) -> None:
    Path("toy.yaml").write_text(yaml.safe_dump(TOY))


def fit(*options: str, command: str = "fit") -> None:
    main([command, "--config", "toy.yaml", *options])


def printed_config(capsys: pytest.CaptureFixture, *options: str) -> dict[str, Any]:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", "toy.yaml", *options, "--print_config"])
    assert stop.value.code in (0, None)
    return yaml.safe_load(capsys.readouterr().out)


def losses(*numbers: str) -> list[tuple[str, str, str]]:
    """(step, column, digits) of every logged loss of these runs, in the order of logging."""
    found = []
    for number in numbers:
        for file in sorted((RUNS / number / "csv").glob("*/metrics.csv")):
            for row in csv.DictReader(file.open()):
                found += [(row["step"], name, row[name]) for name in ("train/loss", "val/loss") if row.get(name)]
    return found


def result(number: str = "000", command: str = "fit") -> dict[str, Any]:
    return json.loads((RUNS / number / "result.json").read_text())[command]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--trainer.max_epoch=3"], "--trainer.max_epoch=3 (did you mean trainer.max_epochs?)"),
        (["--config", "unknown.yaml"], "'modle' (did you mean model?)"),
        (["--config", "nowhere.yaml"], "nowhere.yaml'"),
        (["--config", "include.yaml"], "no such file: ../data/nowhere.yaml"),
        (["--model.class_path=tests.toys.Toi"], "module 'tests.toys' has no attribute 'Toi' (did you mean Toy?)"),
        (["--model.init_args.network.init_args.widht=3"], "'widht' is not accepted (did you mean width?)"),
        (["--trainer.max_epochs=many"], "trainer.max_epochs: Expected a <class 'int'>, not many"),
        (["--run.name=${oc.env:PARSIMONY_NOT_SET}"], "PARSIMONY_NOT_SET"),
        (["--data.init_args.root=/nowhere"], "no points in /nowhere"),
        (["--data.init_args.batch_size=0"], "batch_size must be at least 1, not 0"),
        (["--ckpt_path=nowhere.ckpt"], "nowhere.ckpt: no such file"),
        (["--ckpt_path=toy.yaml"], "toy.yaml is damaged or no checkpoint that can be read safely"),
        (["--ckpt_path=half.ckpt"], "half.ckpt is damaged or no checkpoint that can be read safely"),
        (["--ckpt_path=code.ckpt"], "code.ckpt is damaged or no checkpoint that can be read safely"),
        (["--ckpt_path=numbers.ckpt"], "numbers.ckpt is no checkpoint: it holds a list"),
        (["--ckpt_path=weights.ckpt"], "weights.ckpt holds weights only"),
        (["--ckpt_path=other.ckpt"], "does not fit Toy: weights 4 missing (network.layers.0.weight)"),
        (["--ckpt_path=number.ckpt"], "does not fit Toy: "),
        (["--ckpt_path=foreign.ckpt"], "foreign.ckpt is no checkpoint of a run"),
        (["--ckpt_path=folder"], "folder is a folder and no sharded checkpoint: name the file in it"),
        (["--run.dir=toy.yaml/runs"], "Not a directory: 'toy.yaml/runs"),
        (["--trainer.strategy=ddp_fork"], "learns nothing of their results: use --trainer.strategy ddp"),
        (["--trainer.num_nodes=2"], "--trainer.num_nodes 2 waits for processes on other nodes"),
        (["--trainer.devices=many"], "`devices` selected with `CPUAccelerator` should be an int > 0"),
        (["--trainer.accelerator=tpu"], "Requirement 'torch_xla"),
        (["--weights_only=false"], "would run code that a checkpoint brings along"),
    ],
)
def test_a_mistake_is_one_line(options: list[str], line: str, capfd: pytest.CaptureFixture) -> None:
    Path("unknown.yaml").write_text("modle: 3\n")
    Path("folder").mkdir()
    Path("include.yaml").write_text("data: ../data/nowhere.yaml\n")
    wrong_checkpoints()
    with pytest.raises(SystemExit) as stop:
        fit(*options)
    assert stop.value.code == 2
    errors = capfd.readouterr().err
    assert line in errors.strip().splitlines()[-1]
    assert errors.count("error: ") == 1 and "Traceback" not in errors
    if any(word in line for word in (" is ", " holds ", "--trainer.")):  # seen before the run has a folder
        assert not RUNS.exists()


def wrong_checkpoints() -> None:
    weights: dict[str, Any] = {"state_dict": {}, "pytorch-lightning_version": "2.6.0"}
    training = {"optimizer_states": [], "lr_schedulers": [], "loops": {"fit_loop": {}}}
    torch.save(weights, "weights.ckpt")
    torch.save(weights | training, "other.ckpt")
    torch.save(training | {"state_dict": {}}, "foreign.ckpt")
    torch.save(weights | training | {"state_dict": {"network.layers.0.weight": 3}}, "number.ckpt")
    torch.save([1, 2], "numbers.ckpt")
    torch.save({"state_dict": {}, "callback": print}, "code.ckpt")
    Path("half.ckpt").write_bytes(Path("other.ckpt").read_bytes()[:-100])


HINTS = [
    ([], "name a subcommand and an experiment: python train.py fit --config configs/"),
    (["fit"], "fit needs an experiment: --config configs/<method>/<experiment>.yaml"),
    (["--config", "toy.yaml", "fit"], "the subcommand comes first: python train.py fit --config ..."),
    (["fit", "--config", "toy/overlays/a.yaml"], "toy/overlays/a.yaml is an overlay of an experiment"),
]


@pytest.mark.parametrize(("words", "line"), HINTS)
def test_half_a_command_line_is_one_line_too(words: list[str], line: str, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    errors = capfd.readouterr().err
    assert stop.value.code == 2 and line in errors and len(errors.splitlines()) == 1


def test_the_programs_run_from_a_checkout(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(checkout, "ROOT", Path("site-packages").resolve())  # where `pip install .` puts the code
    Path("sweep.yaml").touch()
    programs = (lambda: fit(), lambda: sweep.main(["sweep.yaml"]), lambda: sys.exit(codec.main(["models"])))
    for program in programs:
        with pytest.raises(SystemExit) as stop:
            program()
        lines = capfd.readouterr().err.splitlines()
        assert stop.value.code == 2 and len(lines) == 1
        assert "the programs run from a checkout" in lines[0] and "pip install -e ." in lines[0]


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSIMONY_DEBUG", "1")
    with pytest.raises(FileNotFoundError):
        fit("--data.init_args.root=/nowhere")


def test_values_follow_overlays_and_the_command_line(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_POINTS", "48")
    Path("over.yaml").write_text(
        "run: {name: toy/two, dir: 'elsewhere/${run.name}'}\ndata: {init_args: {num_points: '${oc.env:TOY_POINTS}'}}\n"
        "trainer: {max_epochs: 7, min_epochs: '${.max_epochs}'}\n"
    )
    config = printed_config(capsys, "--config", "over.yaml", "--run.name=toy/three", "--run.monitor=val/x")
    assert config["trainer"]["default_root_dir"] == "elsewhere/toy/three/{number}"
    assert config["trainer"]["callbacks"][0]["init_args"]["monitor"] == "val/x"
    assert config["trainer"]["min_epochs"] == 7
    assert config["data"]["init_args"]["num_points"] == 48


def test_includes_are_relative_and_lists_can_grow(capsys: pytest.CaptureFixture) -> None:
    for folder in ("data", "method"):
        Path(folder).mkdir()
    Path("data/points.yaml").write_text("class_path: tests.toys.Points\ninit_args: {num_points: 32}\n")
    Path("method/more.yaml").write_text(
        "data: ../data/points.yaml\ntrainer: {callbacks+: [{class_path: pytorch_lightning.callbacks.ModelSummary}]}\n"
    )
    config = printed_config(capsys, "--config", "method/more.yaml")
    names = [callback["class_path"].rpartition(".")[2] for callback in config["trainer"]["callbacks"]]
    assert config["data"]["init_args"]["num_points"] == 32
    assert names.count("ModelCheckpoint") == 2 and names[-1] == "ModelSummary"


CONFIGS = sorted(path for path in ROOT.glob("configs/*/*.yaml") if path.parent.name != "data")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_configs_parse(path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(path), "--print_config"])
    assert stop.value.code in (0, None), capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/data/*.yaml")), ids=lambda path: path.name)
def test_shipped_data_configs_parse(path: Path, capsys: pytest.CaptureFixture) -> None:
    assert printed_config(capsys, "--data", str(path))["data"]["class_path"]


def test_a_fit_leaves_its_record(capsys: pytest.CaptureFixture) -> None:
    fit()
    folder = RUNS / "000"
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert result()["steps"] == 8 and result()["epochs"] == 2
    assert result()["best_score"] == min(float(loss) for _, name, loss in losses("000") if name == "val/loss")
    assert str(folder) in capsys.readouterr().out
    config = yaml.safe_load((folder / "config.fit.yaml").read_text())
    assert config["trainer"]["default_root_dir"] == "runs/toy/one/{number}"
    main(["fit", "--config", str(folder / "config.fit.yaml")])
    assert losses("001") == losses("000") and result("001")["config"] == result()["config"]
    Toy.load_from_checkpoint(folder / "checkpoints" / "best.ckpt")


def test_a_finished_run_that_goes_on_keeps_its_metrics() -> None:
    fit()
    before = result()["metrics"]
    fit("--ckpt_path=last")
    assert before and result()["metrics"] == before


@pytest.mark.parametrize("name", ["best", "last"])
def test_validate_and_test_work_in_the_run_of_the_checkpoint(name: str) -> None:
    fit()
    fit(f"--ckpt_path={name}", command="validate")
    fit(f"--ckpt_path={name}", "--trainer.limit_test_batches=1", command="test")
    fit(f"--ckpt_path={RUNS}/000/checkpoints/{name}.ckpt", command="test")
    assert [path.name for path in sorted(RUNS.iterdir())] == ["000"]
    assert {"test", "validate", "fit"} == set(json.loads((RUNS / "000" / "result.json").read_text()))
    assert result(command="validate")["metrics"]["val/loss"] == pytest.approx(result()["best_score"])
    assert (RUNS / "000" / "config.test.1.yaml").exists()


def test_config_wins_over_the_hyper_parameters_of_a_checkpoint() -> None:
    fit()
    fit("--ckpt_path=last", "--trainer.max_epochs=3", "--model.init_args.optimizer.init_args.lr=0.5")
    state = torch.load(RUNS / "000" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["hyper_parameters"]["optimizer"]["init_args"]["lr"] == 0.5


def test_ten_and_ten_steps_are_twenty() -> None:
    fit("--trainer.max_epochs=4", "--data.init_args.num_points=80")
    fit("--trainer.max_epochs=2", "--data.init_args.num_points=80")
    # another seed: nothing may depend on what the restarted process draws by itself
    fit("--trainer.max_epochs=4", "--data.init_args.num_points=80", "--ckpt_path=last", "--seed_everything=9")
    assert result("001")["steps"] == 20 and len(losses("000")) == 24
    assert losses("001") == losses("000")


@pytest.mark.parametrize(
    ("step", "number", "options"),
    [
        (2, signal.SIGTERM, []),
        (3, signal.SIGINT, []),  # the last batch of an epoch
        (3, signal.SIGTERM, ["--trainer.max_steps=8", "--trainer.max_epochs=-1"]),
        (5, signal.SIGINT, ["--trainer.limit_val_batches=0", "--run.monitor=null"]),
        (1, signal.SIGTERM, ["--trainer.accumulate_grad_batches=2"]),
        (1, signal.SIGTERM, ["--trainer.val_check_interval=0.5"]),
    ],
)
def test_a_signal_saves_and_changes_no_number(step: int, number: int, options: list[str]) -> None:
    fit(*options)
    with pytest.raises(SystemExit) as stop:
        fit(*options, f"--model.init_args.signal_at=[{step},{int(number)}]")
    assert stop.value.code == 128 + number
    assert not (RUNS / "001" / "result.json").exists()
    fit(*options, "--ckpt_path=last", "--seed_everything=9")
    assert losses("001") == losses("000") != []
    assert result("001")["metrics"] == result("000")["metrics"]


@pytest.mark.parametrize("array", [False, True])
def test_a_slurm_job_that_nears_its_end_saves_and_goes_back_into_the_queue(
    array: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requeued job is the same command: no --ckpt_path, another process, the same job id."""
    fit()
    for name, value in {"JOB_ID": "17", "NTASKS": "1", "JOB_NAME": "fit", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    if array:
        monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    Path("scontrol").write_text('#!/bin/sh\necho "$@" > asked\n')
    Path("scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path.cwd()}:{os.environ['PATH']}")
    command = f"--model.init_args.signal_at=[2,{int(signal.SIGUSR1)}]"
    with pytest.raises(SystemExit) as stop:
        fit(command)
    assert stop.value.code == 128 + signal.SIGUSR1
    assert Path("asked").read_text() == ("requeue 12_3\n" if array else "requeue 17\n")
    Path("asked").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    fit(command)  # the step of the signal is behind it
    assert losses("001") == losses("000") != [] and not Path("asked").exists()


def start(*options: str, **environment: str) -> subprocess.CompletedProcess:
    """train.py as a user starts it, from a folder that is not the project's."""
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "fit", "--config", "toy.yaml", *options],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=120,
        check=False,
    )


def test_sigterm_of_a_process_and_offline_wandb() -> None:
    done = start(f"--model.init_args.signal_at=[2,{int(signal.SIGTERM)}]", WANDB_MODE="offline")
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr and "wandb:" not in done.stdout + done.stderr
    state = torch.load(RUNS / "000" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 3
    identity = (RUNS / "000" / "wandb_id").read_text()
    [record] = (RUNS / "000" / "wandb").glob(f"offline-run-*-{identity}/*.wandb")
    content = record.read_bytes()
    assert b"tests.toys.Network" in content and b"step_size" in content and b"max_epochs" in content


def test_wandb_opens_no_run_for_a_failed_start_and_says_where_a_good_one_is() -> None:
    done = start("--data.init_args.root=/nowhere", WANDB_MODE="offline")
    assert "wandb:" not in done.stdout + done.stderr
    assert done.returncode == 2 and not Path("runs").exists() and done.stderr.endswith("make the folder first\n")
    done = start("--trainer.max_epochs=1", WANDB_MODE="offline")
    assert done.returncode == 0 and "wandb:" not in done.stdout + done.stderr
    [folder] = (RUNS / "000" / "wandb").glob("offline-run-*")
    assert f"wandb       wandb sync {folder}" in done.stdout


def test_a_run_outlives_wandbs_process() -> None:
    done = start('--trainer.callbacks+={"class_path": "tests.toys.EndsWandb"}', WANDB_MODE="offline")
    assert done.returncode == 0 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.count("warning: wandb's process has ended") == 1
    assert result()["steps"] == 8 and len(losses("000")) == 10


def test_two_processes_validate_as_one() -> None:
    ddp = ("--trainer.devices=2", "--trainer.strategy=ddp")
    same_steps = ("--data.init_args.batch_size=8", "--model.init_args.network.init_args.dropout=0")
    done = start(*ddp, *same_steps)
    assert done.returncode == 0, done.stderr[-3000:]
    fit("--model.init_args.network.init_args.dropout=0", "--data.init_args.batch_size=16")
    assert result("000")["steps"] == result("001")["steps"] == 8
    assert result("000")["metrics"]["val/loss"] == pytest.approx(result("001")["metrics"]["val/loss"], rel=1e-5)
