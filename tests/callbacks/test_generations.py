"""A chain of generations: what each starts from, what is kept, and that an interruption changes no number."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock
from unittest.mock import call as mock_call

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from callbacks.generations import Generations
from callbacks.reports.generation_curves import curves_figure
from callbacks.reports.generation_scores import papers_ensembles, save_scores
from callbacks.rng_state import RngState
from cli import claim
from cli.wandb_session import OurWandbLogger
from datamodules.loading.loaders import evaluation_loader, training_loader
from modules.components.frozen import Frozen

EPOCHS = 3
SAVED = ["batch5", "epoch1", "epoch2", "batch10", "batch13", "epoch4", "epoch5", "batch20", "epoch7"]


def layers() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2))


def seeded(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return layers()


class Chain(LightningModule):
    """Two layers with batch norm and dropout, taught by labels, then by the network before; it keeps a diary."""

    def __init__(self, scores: Sequence[float] = (), other: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(3)
        self.make_student = layers
        self.student = self.make_student()
        self.teacher: Frozen | None = None
        self.generation = -1
        self.scores = scores
        self.losses: list[float] = []
        self.starts: list[dict[str, Any]] = []
        self.ends: dict[int, dict[str, Tensor]] = {}

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        x = batch[0]
        optimizer = self.trainer.optimizers[0]
        if batch_index == 0 and self.current_epoch % EPOCHS == 0:
            self.starts.append(
                {
                    "student": {k: v.clone() for k, v in self.student.state_dict().items()},
                    "teacher": self.teacher and {k: v.clone() for k, v in self.teacher.network.state_dict().items()},
                    "state": len(optimizer.state),
                    "lr": optimizer.param_groups[0]["lr"],
                    "generation": self.generation,
                }
            )
        target = x.sum(1).gt(0).long() if self.teacher is None else self.teacher(x).softmax(1)
        loss = nn.functional.cross_entropy(self.student(x), target)
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        score = self.scores[self.current_epoch] if self.scores else float(self.student(batch[0]).square().mean())
        self.log("val/error", score, batch_size=len(batch[0]), sync_dist=True)

    test_step = validation_step

    def on_train_epoch_end(self) -> None:
        self.ends[self.current_epoch] = {k: v.clone() for k, v in self.student.state_dict().items()}

    def evaluate(
        self, networks: Mapping[int, Frozen], groups: Mapping[str, Sequence[int]], batches: Iterable[list[Tensor]]
    ) -> dict[str, Tensor]:
        x = torch.cat([batch[0] for batch in batches])
        return {
            f"{name}/error": torch.stack([networks[g](x).softmax(1) for g in members]).mean(0)[:, 0].mean()
            for name, members in groups.items()
        }

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam([p for p in self.student.parameters() if p.requires_grad], lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


class Draws(TensorDataset):
    def __getitem__(self, draw: Any) -> tuple[Tensor, ...]:
        return super().__getitem__(draw[1] if isinstance(draw, tuple) else draw)


class Save(Callback):
    """A checkpoint after some batches, ``batch<step>``, and at the end of some epochs, ``epoch<n>``."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, names

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self._save(trainer, f"batch{trainer.global_step}")

    def on_train_epoch_end(self, trainer: Trainer, *args: object) -> None:
        self._save(trainer, f"epoch{trainer.current_epoch}")

    def _save(self, trainer: Trainer, name: str) -> None:
        if name in self.names:
            trainer.save_checkpoint(self.folder / f"{name}.ckpt")


def data() -> Draws:
    return Draws(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)))


def make_trainer(folder: Path, generations: Generations, *others: Callback, **options: Any) -> Trainer:
    return Trainer(
        **{
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 1,
            "default_root_dir": folder,
            "callbacks": [RngState(), *others, generations, Save(folder, SAVED)],
        }
        | options
    )


def run(
    folder: Path,
    resume: str | None = None,
    others: Sequence[Callback] = (),
    scores: Any = (),
    module: Chain | None = None,
    **options: Any,
) -> Chain:
    """Three batches an epoch, three epochs a generation, three generations."""
    module = module or Chain(scores)
    own = {name: options.pop(name) for name in ("keep", "ensembles") if name in options}
    trainer = make_trainer(folder, Generations(2, str(folder / "checkpoints"), seed=7, **own), *others, **options)
    torch.manual_seed(5 if resume is None else 6)  # must not matter to a resumed run
    path = None if resume is None else folder / f"{resume}.ckpt"
    loader = training_loader(data(), 4, 0, 0, trainer)
    trainer.fit(module, loader, evaluation_loader(data(), 12, 0, None), ckpt_path=path, weights_only=True)
    return module


def weights_in(path: Path) -> dict[str, Tensor]:
    content = torch.load(path, weights_only=True)
    return {name.removeprefix("student."): value for name, value in content["state_dict"].items()}


def assert_equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_each_generation_starts_anew(tmp_path: Path) -> None:
    module = run(tmp_path)
    assert len(module.losses) == 3 * 3 * EPOCHS
    assert [start["generation"] for start in module.starts] == [0, 1, 2]
    assert module.starts[0]["teacher"] is None
    for number in (1, 2):
        assert module.starts[number]["state"] == 0
        assert module.starts[number]["lr"] == 0.1
        assert_equal(module.starts[number]["teacher"], module.ends[EPOCHS * number - 1])
        assert_equal(
            module.starts[number]["teacher"], weights_in(tmp_path / f"checkpoints/generation_{number - 1}.ckpt")
        )
        assert_equal(module.starts[number]["student"], seeded(7 + number).state_dict())
    assert not torch.equal(module.starts[1]["student"]["0.weight"], module.starts[2]["student"]["0.weight"])


def test_the_teacher_is_not_part_of_the_module(tmp_path: Path) -> None:
    module = run(tmp_path)
    assert module.teacher is not None
    assert all(name.startswith("student.") for name in module.state_dict())
    module.train()
    network = module.teacher.network
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert not module.teacher(torch.randn(4, 3)).requires_grad


def test_the_best_weights_are_kept_on_request(tmp_path: Path) -> None:
    scores = [3.0, 1.0, 2.0, 5.0, 4.0, 4.0, 1.0, 2.0, 3.0]
    module = run(tmp_path, scores=scores, keep="best")
    assert_equal(module.starts[1]["teacher"], module.ends[1])
    assert_equal(module.starts[2]["teacher"], module.ends[5])  # equal scores: the later
    assert_equal(weights_in(tmp_path / "checkpoints/generation_2.ckpt"), module.ends[6])
    kept = json.loads((tmp_path / "generations.json").read_text())["kept"]
    assert [(k["generation"], k["epoch"], k["score"]) for k in kept] == [(0, 1, 1.0), (1, 5, 4.0), (2, 6, 1.0)]


def test_the_best_of_a_metric_that_should_grow(tmp_path: Path) -> None:
    generations = Generations(0, str(tmp_path / "checkpoints"), keep="best", mode="max")
    trainer = make_trainer(tmp_path, generations)
    loader = training_loader(data(), 4, 0, 0, trainer)
    module = Chain([3.0, 1.0, 2.0])
    trainer.fit(module, loader, evaluation_loader(data(), 12, 0, None))
    assert generations.kept[0] == (0, 0, 3.0)
    assert_equal(
        weights_in(tmp_path / "checkpoints/generation_0.ckpt"), module.ends[0]
    )  # not those of the sanity check


def test_a_score_that_is_no_number_is_not_the_best(tmp_path: Path) -> None:
    nan = float("nan")
    run(tmp_path, scores=[nan, 2.0, nan, 5.0, nan, 6.0, nan, nan, nan], keep="best")
    kept = json.loads((tmp_path / "generations.json").read_text())["kept"]
    assert [k["epoch"] for k in kept] == [1, 3, 8]


def test_the_picture_shows_every_generation_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [3.0, 1.0, 2.0, 5.0, 4.0, 4.0, 1.0, 2.0, 3.0]
    run(tmp_path, scores=scores)
    drawn: dict[str, Any] = {}

    def watched(history: Any, ensembles: Any, metric: str) -> Any:
        drawn["history"], drawn["figure"] = list(history), curves_figure(history, ensembles, metric)
        return drawn["figure"]

    monkeypatch.setattr("callbacks.reports.generation_curves.curves_figure", watched)
    run(tmp_path, resume="epoch4", scores=scores)
    assert drawn["history"] == [(number // EPOCHS, number % EPOCHS, score) for number, score in enumerate(scores)]
    [axes] = drawn["figure"].axes
    assert [list(line.get_ydata()) for line in axes.lines[:3]] == [scores[:3], scores[3:6], scores[6:]]
    assert (tmp_path / "generations.png").is_file()


def test_only_ensembles_of_the_curves_metric_are_drawn() -> None:
    """An error in percent has no place on an axis of losses."""
    scores = {"gen1/error": 9.0, "ens2/error": 8.0, "ens2/loss": 0.5}
    [axes] = curves_figure([(0, 0, 1.0), (1, 0, 0.7)], scores, "val/loss").axes
    assert [list(line.get_ydata()) for line in axes.lines[2:]] == [[0.5, 0.5]]


@pytest.mark.parametrize("saved", SAVED)
def test_a_resumed_run_is_the_same_run(tmp_path: Path, saved: str) -> None:
    """In the middle of a generation and of an epoch, and between two generations."""
    whole = run(tmp_path)
    rest = run(tmp_path, resume=saved)
    done = int(saved[5:]) if saved.startswith("batch") else 3 * (int(saved[5:]) + 1)
    assert rest.losses == whole.losses[done:]
    assert_equal(rest.state_dict(), whole.state_dict())


@pytest.mark.parametrize("saved", ["epoch4", "epoch5"])
def test_resume_with_averaged_weights_and_accumulation(tmp_path: Path, saved: str) -> None:
    options = {"accumulate_grad_batches": 3, "gradient_clip_val": 0.5}
    whole = run(tmp_path, others=[EMAWeightAveraging(decay=0.5)], **options)
    rest = run(tmp_path, resume=saved, others=[EMAWeightAveraging(decay=0.5)], **options)
    assert rest.losses == whole.losses[-len(rest.losses) :]
    assert_equal(rest.state_dict(), whole.state_dict())


def test_the_averaged_weights_teach(tmp_path: Path) -> None:
    module = run(tmp_path, others=[EMAWeightAveraging(decay=0.5)])
    teacher = module.starts[1]["teacher"]
    assert not torch.equal(teacher["0.weight"], module.ends[EPOCHS - 1]["0.weight"])
    # The average of a generation starts from that generation's own first step.
    first = torch.load(tmp_path / "batch10.ckpt", weights_only=True)
    assert torch.equal(first["state_dict"]["student.0.weight"], first["current_model_state"]["student.0.weight"])


def test_an_average_that_starts_late_is_not_that_of_the_generation_before(tmp_path: Path) -> None:
    run(tmp_path, others=[EMAWeightAveraging(decay=0.5, update_every_n_steps=100)])
    weights = weights_in(tmp_path / "checkpoints/generation_1.ckpt")
    assert torch.equal(weights["0.weight"], seeded(7 + 1)[0].weight)  # type: ignore[index]


class Scales(Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.values.append(trainer.precision_plugin.scaler.get_scale())  # type: ignore[attr-defined]


def test_the_gradient_scaler_starts_anew_with_its_settings(tmp_path: Path) -> None:
    scales = Scales()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=4)
    run(tmp_path, others=[scales], plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    one = [2.0] * 3 + [4.0] * 4 + [8.0] * 2
    assert scales.values == 3 * one


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_checkpoint_is_all_that_a_resumed_run_needs(tmp_path: Path, keep: str) -> None:
    """In another folder, where no file of a generation lies."""
    scores = [3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0]
    whole = run(tmp_path, scores=scores, keep=keep)
    callbacks = torch.load(tmp_path / "batch13.ckpt", weights_only=True)["callbacks"]
    state = next(state for name, state in callbacks.items() if "Generations" in name)
    assert state["teacher"].keys() == whole.student.state_dict().keys()
    assert bool(state["weights"]) == (keep == "best")  # none before the validation that they come from
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "epoch4.ckpt", other)
    with pytest.warns(UserWarning, match=r"ens9 is left out: there is no generation_0\.ckpt"):
        rest = run(other, "epoch4", scores=scores, keep=keep, ensembles={"ens9": [0, 2]})
    assert_equal(rest.state_dict(), whole.state_dict())
    for number in (1, 2):
        name = f"checkpoints/generation_{number}.ckpt"
        assert_equal(weights_in(tmp_path / name), weights_in(other / name))
    assert json.loads((other / "generations.json").read_text())["val"].keys() == {"gen1/error", "gen2/error"}


def test_a_run_that_cannot_go_on_is_told(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="generations have 3 epochs: it cannot go on with max_epochs=4"):
        run(tmp_path, resume="epoch4", max_epochs=4)
    with pytest.raises(ValueError, match="the checkpoint is of an older version, whose chains cannot go on"):
        Generations(1, str(tmp_path)).load_state_dict({"generation": 1})


def test_a_checkpoint_without_the_last_validation_is_refused(tmp_path: Path) -> None:
    """Lightning skips it on a resume; the next student would have no teacher."""
    run(tmp_path, others=[Save(tmp_path, ["batch9"])])
    with pytest.raises(ValueError, match="between the last batch of generation 0 and its validation"):
        run(tmp_path, resume="batch9")


def test_a_generation_is_written_once_when_it_ends(tmp_path: Path) -> None:
    class Files(Callback):
        def __init__(self) -> None:
            self.seen: list[list[tuple[str, int]]] = []

        def on_train_epoch_end(self, trainer: Trainer, *args: object) -> None:
            found = sorted((tmp_path / "checkpoints").glob("*"))
            self.seen.append([(file.name, file.stat().st_mtime_ns) for file in found])

    files = Files()
    run(tmp_path, keep="best", scores=[3.0, 2.0, 1.0] * 3, others=[files])
    names = [[name for name, _ in seen] for seen in files.seen]
    ends = [[f"generation_{g}.ckpt" for g in range(n)] for n in (0, 1, 2)]
    assert names == [*[ends[0]] * 3, *[ends[1]] * 3, *[ends[2]] * 3]  # the callback comes before Generations
    assert files.seen[3] == files.seen[5] and files.seen[6] == files.seen[8]


def test_ensembles_at_the_end_and_by_test(tmp_path: Path) -> None:
    module = run(tmp_path)
    x = data().tensors[0]
    networks = []
    for number in range(3):
        networks.append(Frozen(module.student))
        networks[-1].network.load_state_dict(weights_in(tmp_path / f"checkpoints/generation_{number}.ckpt"))
    probabilities = [network(x).softmax(1)[:, 0] for network in networks]
    expected = {f"gen{g}/error": float(p.mean()) for g, p in enumerate(probabilities)}
    expected["ens2/error"] = float((probabilities[1] + probabilities[2]).mean() / 2)
    assert json.loads((tmp_path / "generations.json").read_text())["val"] == pytest.approx(expected)
    assert float(module.trainer.callback_metrics["ens2/val/error"]) == pytest.approx(expected["ens2/error"])
    trainer = make_trainer(tmp_path, Generations(2, str(tmp_path / "checkpoints")))
    loaded = Chain.load_from_checkpoint(tmp_path / "checkpoints/generation_1.ckpt", weights_only=True)
    assert_equal(loaded.student.state_dict(), networks[1].network.state_dict())
    result = trainer.test(loaded, DataLoader(data(), 5), verbose=False)[0]
    assert result["ens2/test/error"] == pytest.approx(expected["ens2/error"])
    assert result["gen1/test/error"] == pytest.approx(expected["gen1/error"])


def test_a_network_given_by_python_code_does_not_end_the_chain(tmp_path: Path) -> None:
    """It is among the hyper-parameters, and no file that is read safely can hold it."""
    module = run(tmp_path, module=Chain(other=nn.Linear(2, 2)))
    assert len(module.starts) == 3
    hyper = torch.load(tmp_path / "checkpoints/generation_0.ckpt", weights_only=True)["hyper_parameters"]
    assert hyper == {"scores": ()}


def test_the_users_ensembles(tmp_path: Path) -> None:
    """Also with the one that had no teacher, under any name."""
    module = run(tmp_path, ensembles={"all": [0, 1, 2]})
    scores = json.loads((tmp_path / "generations.json").read_text())["val"]
    assert scores.keys() == {"gen0/error", "gen1/error", "gen2/error", "all/error"}
    assert scores["all/error"] == pytest.approx(sum(scores[f"gen{g}/error"] for g in range(3)) / 3)
    assert float(module.trainer.callback_metrics["all/val/error"]) == pytest.approx(scores["all/error"])
    with pytest.raises(ValueError, match=r"ensemble few is of \[1, 3\]: the chain has 0 to 2"):
        run(tmp_path, ensembles={"few": [1, 3]})
    for wrong in ({"gen1": [1]}, {"a/b": [1]}, {"none": []}):
        with pytest.raises(ValueError, match=r"an ensemble is a word that is not gen\.\.\. and its generations"):
            Generations(2, str(tmp_path), ensembles=wrong)


class Rows(Logger):
    """What was logged, row by row."""

    name, version, save_dir = "rows", 0, None

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append(metrics | {"step": step})  # type: ignore[dict-item]

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def curve(self, name: str) -> list[tuple[float, float, float, float]]:
        names = (name, "generation", "epoch_in_generation", "step")
        return [tuple(row[n] for n in names) for row in self.rows if {*names} <= row.keys()]  # type: ignore[misc]


class Talkative(Chain):
    """Logs on steps, on epochs, and nothing but its score in validation."""

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        loss = super().training_step(batch, batch_index)
        self.log("train/batch", float(self.trainer.global_step))
        self.log("train/number", float(self.current_epoch), on_step=False, on_epoch=True)
        return loss


class Numbering(Chain):
    """Logs which batch of the run it is."""

    def training_step(self, batch: list[Tensor], batch_index: int) -> Tensor:
        self.log("train/batch", float(3 * self.current_epoch + batch_index))
        return super().training_step(batch, batch_index)


def test_generations_are_logged_over_their_own_epochs(tmp_path: Path) -> None:
    rows = Rows()
    run(tmp_path, module=Talkative(list(range(9))), logger=rows, log_every_n_steps=2)
    for g, steps in ((0, (2, 4, 6, 8)), (1, (1, 3, 5, 7, 9))):
        expected = torch.tensor([(9 * g + n - 1, g, n / 3, 9 * g + n - 1) for n in steps])
        torch.testing.assert_close(torch.tensor(rows.curve(f"gen{g}/train/batch")), expected)
    for g in range(3):
        ends = [(3 * g + e, g, e + 1, 9 * g + 3 * e + 2) for e in range(3)]
        assert rows.curve(f"gen{g}/train/number") == rows.curve(f"gen{g}/val/error") == ends


def test_a_step_of_accumulated_gradients_is_logged_once(tmp_path: Path) -> None:
    """With the metrics of its last batch, also in a process that goes on: no step, no row."""
    rows, rest = Rows(), Rows()
    options = {"log_every_n_steps": 1, "accumulate_grad_batches": 2}
    run(tmp_path, module=Numbering(list(range(9))), logger=rows, **options)
    expected = torch.tensor([(batch, 0, (batch + 1) / 3, step) for step, batch in enumerate((1, 2, 4, 5, 7, 8))])
    torch.testing.assert_close(torch.tensor(rows.curve("gen0/train/batch")), expected)
    run(tmp_path, resume="epoch4", module=Numbering(list(range(9))), logger=rest, **options)
    assert rest.curve("gen1/train/batch") == rows.curve("gen1/train/batch")[4:]


def test_a_validation_is_logged_once(tmp_path: Path) -> None:
    """With one in every third epoch, and after a resume."""
    rows = Rows()
    scores = [9.0, 9.0, 2.0, 9.0, 9.0, 5.0, 9.0, 9.0, 8.0]
    run(tmp_path, module=Talkative(scores), logger=rows, check_val_every_n_epoch=3)
    for g, score in enumerate((2.0, 5.0, 8.0)):
        assert rows.curve(f"gen{g}/val/error") == [(score, g, 3, 9 * g + 8)]
    rows = Rows()
    run(tmp_path, "epoch4", module=Talkative(scores), logger=rows, check_val_every_n_epoch=3)
    assert [row[0] for row in rows.curve("gen1/val/error")] == [5.0]


def test_wandb_draws_them_over_the_epochs_of_a_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = WandbLogger(save_dir=tmp_path, offline=True)
    run_of_wandb = MagicMock()
    monkeypatch.setattr(WandbLogger, "experiment", run_of_wandb)
    monkeypatch.setattr(logger, "log_image", pictures := MagicMock())
    run(tmp_path, logger=logger)
    axes = {call.args[0]: call.kwargs["step_metric"] for call in run_of_wandb.define_metric.call_args_list}
    assert axes == {f"gen{g}/val/error": "epoch_in_generation" for g in range(3)}
    pictures.assert_called_once_with("generations", [str(tmp_path / "generations.png")])


class Begin(Callback):
    """Stands for the run's record, which comes after Generations."""

    def on_train_batch_end(self, *args: object) -> None:
        claim.begin()


@pytest.mark.parametrize("options", [{"log_every_n_steps": 1}, {"accumulate_grad_batches": 3, "log_every_n_steps": 1}])
def test_our_wandb_logger_draws_them_too(
    tmp_path: Path, options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run opens only after the first batch, when a row of that batch may wait already."""
    page = MagicMock()
    monkeypatch.setattr("wandb.init", lambda **_: page)
    with claim.session():
        logger = OurWandbLogger(save_dir=tmp_path, id="ab")
        monkeypatch.setattr(logger, "log_image", MagicMock())
        generations = Generations(1, str(tmp_path / "checkpoints"))
        trainer = make_trainer(tmp_path, generations, logger=logger, **options)
        trainer.callbacks.append(Begin())  # type: ignore[attr-defined]
        trainer.fit(Talkative(), training_loader(data(), 4, 0, 0, trainer), evaluation_loader(data(), 12, 0, None))
    axes = {call.args[0]: call.kwargs.get("step_metric") for call in page.define_metric.call_args_list}
    assert axes["gen0/train/batch"] == axes["gen1/val/error"] == "epoch_in_generation"
    calls = page.method_calls
    first_row = next(number for number, call in enumerate(calls) if call[0] == "log")
    assert first_row > calls.index(mock_call.define_metric("gen0/train/batch", step_metric="epoch_in_generation"))


def test_the_best_generation_is_logged_and_not_its_mean_with_the_last(tmp_path: Path) -> None:
    module = run(tmp_path, keep="best", scores=[3.0, 1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0])
    scores = json.loads((tmp_path / "generations.json").read_text())["val"]
    for name, score in scores.items():
        assert float(module.trainer.callback_metrics[name.replace("/", "/val/")]) == score


def test_a_fast_dev_run_leaves_the_files_of_a_run(tmp_path: Path) -> None:
    run(tmp_path)
    files = [tmp_path / "generations.json", *sorted((tmp_path / "checkpoints").iterdir())]
    before = [file.read_bytes() for file in files]
    run(tmp_path, fast_dev_run=1)
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize("saved", ["batch5", "epoch4"])
def test_a_fast_dev_run_does_not_go_on_with_a_chain(tmp_path: Path, saved: str) -> None:
    run(tmp_path)
    with pytest.raises(ValueError, match="fast_dev_run tries a chain of generations from its start: leave out"):
        run(tmp_path, resume=saved, fast_dev_run=1)


def test_files_of_others_are_no_generations(tmp_path: Path) -> None:
    run(tmp_path)
    for name in ("generation_1.old.ckpt", "generation_best.ckpt"):
        (tmp_path / "checkpoints" / name).write_text("no checkpoint")
    trainer = make_trainer(tmp_path, Generations(2, str(tmp_path / "checkpoints")))
    assert "ens2/test/error" in trainer.test(Chain(), DataLoader(data(), 5), verbose=False)[0]


def test_ensembles_have_the_taught_generations() -> None:
    groups = {name: list(members) for name, members in papers_ensembles(3).items()}
    assert groups == {"ens2": [1, 2], "ens3": [1, 2, 3]}
    assert papers_ensembles(1) == papers_ensembles(0) == {}


def test_scores_are_put_beside_older_ones_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it writes leaves the older ones."""
    file = tmp_path / "generations.json"
    save_scores(file, {"val": {"gen0/error": 1.0}})
    save_scores(file, {"test": {"gen0/error": 2.0}})
    content = {"val": {"gen0/error": 1.0}, "test": {"gen0/error": 2.0}}
    assert json.loads(file.read_text()) == content and [*tmp_path.iterdir()] == [file]

    def killed(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(Path, "replace", killed)
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(SystemExit):
        save_scores(file, {"val": {}})
    assert json.loads(file.read_text()) == content


class Heir(nn.Module):
    """Takes its teacher's last layer, for good."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def inherit(self, teacher: nn.Module) -> None:
        last: Any = teacher.last if isinstance(teacher, Heir) else teacher[-1]  # type: ignore[index]
        self.last.load_state_dict(last.state_dict())
        self.last.requires_grad_(False)

    def set_extra_state(self, state: Tensor) -> None:
        self.last.requires_grad_(bool(state))

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.last.weight.requires_grad)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x).relu())


def test_a_teacher_from_outside_teaches_the_first(tmp_path: Path) -> None:
    module = Chain()
    module.teacher = Frozen(module.student)
    module.student, module.make_student = Heir(), Heir
    generations = Generations(1, str(tmp_path / "checkpoints"))
    trainer = make_trainer(tmp_path, generations)
    trainer.fit(module, training_loader(data(), 4, 0, 0, trainer), evaluation_loader(data(), 12, 0, None))
    assert [start["generation"] for start in module.starts] == [1]
    assert trainer.current_epoch == EPOCHS
    assert torch.equal(module.starts[0]["student"]["last.weight"], module.starts[0]["teacher"]["3.weight"])
    assert (tmp_path / "checkpoints/generation_1.ckpt").is_file()


def heirs() -> Chain:
    module = Chain()
    module.teacher = Frozen(module.student)
    module.student, module.make_student = Heir(), Heir
    return module


@pytest.mark.parametrize("saved", ["batch5", "epoch2", "batch13"])
def test_heirs_resume_with_what_they_inherited(tmp_path: Path, saved: str) -> None:
    whole = run(tmp_path, module=heirs())
    last = heirs().teacher.network[-1].state_dict()  # type: ignore[union-attr,index]
    assert len(whole.losses) == 2 * 3 * EPOCHS
    assert_equal(whole.student.last.state_dict(), last)  # type: ignore[union-attr]
    rest = run(tmp_path, saved, module=heirs())
    assert rest.losses == whole.losses[-len(rest.losses) :]
    assert_equal(rest.state_dict(), whole.state_dict())


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end with a validation"):
        make_trainer(tmp_path, Generations(1, str(tmp_path))).fit(Chain(), DataLoader(data(), 4))
    for options in ({"check_val_every_n_epoch": 2}, {"limit_val_batches": 0}, {"val_check_interval": 2}):
        with pytest.raises(ValueError, match="must end with a validation"):
            trainer = make_trainer(tmp_path, Generations(1, str(tmp_path)), **options)
            trainer.fit(Chain(), DataLoader(data(), 4), DataLoader(data(), 4))
    for options in ({"max_epochs": -1, "max_steps": 5}, {"max_steps": 5}, {"max_epochs": -1}):
        with pytest.raises(ValueError, match="max_epochs, so it must be set, and max_steps must not"):
            trainer = make_trainer(tmp_path, Generations(1, str(tmp_path)), **options)
            trainer.fit(Chain(), DataLoader(data(), 4), DataLoader(data(), 4))
    module = Chain()
    del module.student, module.make_student
    with pytest.raises(ValueError, match="Generations cannot train a Chain: it has no make_student, student"):
        make_trainer(tmp_path, Generations(1, str(tmp_path))).fit(module, DataLoader(data(), 4), DataLoader(data(), 4))
    for strategy, name in ((FSDPStrategy(), "FSDPStrategy"), (object.__new__(DeepSpeedStrategy), "DeepSpeedStrategy")):
        trainer: Any = SimpleNamespace(strategy=strategy)
        with pytest.raises(ValueError, match=f"needs one device or trainer.strategy ddp, not {name}"):
            Generations(1, str(tmp_path)).setup(trainer, Chain(), "fit")
    for wrong in ({"mode": "most"}, {"keep": "all"}):
        with pytest.raises(ValueError, match="mode must be min or max and keep last or best, got"):
            Generations(1, str(tmp_path), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="generations must be at least 0"):
        Generations(-1, str(tmp_path))
    with pytest.raises(ValueError, match=r"monitors val/nothing, but validation logged .*val/error"):
        trainer = make_trainer(tmp_path, Generations(1, str(tmp_path), monitor="val/nothing"))
        trainer.fit(Chain(), DataLoader(data(), 4), DataLoader(data(), 4))


TWO = """
import sys, torch
sys.path.insert(0, {root!r})
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("chain", {file!r})
chain = importlib.util.module_from_spec(spec); sys.modules["chain"] = chain; spec.loader.exec_module(chain)
options = dict(strategy="ddp_find_unused_parameters_false", devices=2, {options})
module = chain.run(Path({folder!r}), resume={resume!r}, **options)
torch.save({{"losses": module.losses, "state": module.state_dict(),
            "teacher": module.teacher.network.state_dict()}}, f"{folder}/{resume}.rank{{module.global_rank}}.pt")
"""


def run_two(folder: Path, resume: str | None, options: str = "") -> list[dict[str, Any]]:
    script = folder / "two.py"
    root = str(Path(__file__).parents[2])
    script.write_text(TWO.format(root=root, file=__file__, folder=str(folder), resume=resume, options=options))
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], check=True, env=env, capture_output=True, timeout=240, text=True
    )
    assert "self.log('gen" not in done.stderr  # Lightning's advice to use sync_dist
    return [torch.load(folder / f"{resume}.rank{rank}.pt", weights_only=True) for rank in (0, 1)]


def test_two_processes_share_teachers_and_resume(tmp_path: Path) -> None:
    whole = run_two(tmp_path, None)
    assert_equal(whole[0]["teacher"], whole[1]["teacher"])
    assert_equal(whole[0]["teacher"], weights_in(tmp_path / "checkpoints/generation_1.ckpt"))
    assert torch.equal(whole[0]["state"]["student.0.weight"], whole[1]["state"]["student.0.weight"])
    assert whole[0]["losses"] != whole[1]["losses"]
    rest = run_two(tmp_path, "epoch4")  # inside generation 1
    for before, after in zip(whole, rest, strict=True):
        assert after["losses"] == before["losses"][-len(after["losses"]) :]
    assert_equal(whole[0]["state"], rest[0]["state"])


class OwnScores(Chain):
    """Each rank logs a score of its own, and so has another epoch that is best."""

    def validation_step(self, batch: list[Tensor], batch_index: int) -> None:
        epoch = self.current_epoch
        self.log("val/error", float(epoch if self.global_rank else -epoch), batch_size=1)


def heirs_with_own_scores() -> Chain:
    module = OwnScores()
    module.teacher = Frozen(module.student)
    module.student, module.make_student = Heir(), Heir
    return module


def test_two_processes_with_frozen_layers_and_their_own_scores(tmp_path: Path) -> None:
    """Frozen before DDP counts on gradients; rank 0 alone decides which weights are best."""
    whole = run_two(tmp_path, None, "module=chain.heirs_with_own_scores(), keep='best'")
    assert_equal(whole[0]["teacher"], whole[1]["teacher"])
    assert torch.load(tmp_path / "checkpoints/generation_1.ckpt", weights_only=True)["epoch"] == EPOCHS - 1
    assert torch.equal(whole[0]["state"]["student.last.weight"], whole[0]["teacher"]["last.weight"])
