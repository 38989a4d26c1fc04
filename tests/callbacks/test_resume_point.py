"""Runs that go on from the end of an epoch: same weights, counters, hooks and logged steps as without a restart."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.resume_point import ResumePoint, settle
from callbacks.rng_state import RngState
from tests.kill_matrix import equal
from tests.toys import Network, Points, Toy


class Rows(DummyLogger):
    """(step, what was logged) of one process."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int | None, dict[str, float]]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step, dict(metrics)))


class Ends(Callback):
    """Keep a checkpoint of each end, of an epoch and of a validation, and a list of the epochs that begin and end.

    Training is told to stop at batch ``stop``.
    """

    def __init__(self, folder: Path, stop: int | None) -> None:
        self.folder, self.stop = folder, stop
        self.seen: list[tuple[str, int]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(("start", trainer.current_epoch))

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.epoch_loop.batch_progress.total.ready == self.stop:
            trainer.should_stop = True  # as max_time does

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(("end", trainer.current_epoch))
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"validated{trainer.global_step}.ckpt")


class ByHand(Toy):
    """The same steps without Lightning's automatic ones."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Tensor], batch_index: int) -> None:
        loss, optimizer = self.loss(batch), self.optimizers()
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        optimizer.zero_grad()  # type: ignore[union-attr]
        self.manual_backward(loss)
        optimizer.step()  # type: ignore[union-attr]


class OnPlateaus(Toy):
    """Halves its rate at every validation, since none is better by a thousand."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=0, threshold=1000, threshold_mode="abs"
        )
        followed = {"scheduler": schedule, "interval": "epoch", "monitor": "val/loss"}
        return {"optimizer": optimizer, "lr_scheduler": followed}


class Quiet(Points):
    """Whose validation draws nothing from the global generator, like that of every data set here."""

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val, batch_size=8, generator=torch.Generator())  # type: ignore[arg-type]


class Run:
    """Epochs of four batches; ``seed`` is that of the process, the weights are the same."""

    def __init__(
        self, folder: Path, seed: int, resume: int | str | None = None, stop: int | None = None, **options: Any
    ) -> None:
        torch.manual_seed(1)
        module = options.pop("kind", Toy)(Network())
        module._hparams.clear()  # type: ignore[union-attr]  # without the command line they are no plain values
        torch.manual_seed(seed)
        self.logger, self.ends = Rows(), Ends(folder, stop)
        self.trainer = Trainer(
            accelerator="cpu",
            logger=self.logger,
            log_every_n_steps=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[ResumePoint(), RngState(), self.ends],
            **options,
        )
        path = None if resume is None else folder / f"{resume}.ckpt"
        self.trainer.fit(module, Quiet(), ckpt_path=path, weights_only=True)
        self.rows, self.seen = self.logger.rows, self.ends.seen
        self.state = torch.load(folder / f"{self.trainer.global_step}.ckpt", weights_only=True)

    def assert_goes_on(self, whole: "Run") -> None:
        """The end of ``whole``, row for row."""
        assert self.rows == whole.rows[-len(self.rows) :]
        assert self.seen == whole.seen[-len(self.seen) :]
        assert self.state["loops"] == whole.state["loops"] and self.state["epoch"] == whole.state["epoch"]
        for name, value in whole.state["state_dict"].items():
            assert torch.equal(self.state["state_dict"][name], value)


OPTIONS: list[dict[str, Any]] = [
    {"max_steps": 12},
    {"max_epochs": 3},
    {"max_steps": 12, "max_epochs": 5},
    {"max_steps": 9, "limit_train_batches": 3},
    {"max_steps": 12, "limit_val_batches": 0},
    {"max_steps": 12, "val_check_interval": 0.5},
    {"max_steps": 12, "check_val_every_n_epoch": 2},
    {"max_steps": 6, "accumulate_grad_batches": 2},
    {"max_epochs": 3, "accumulate_grad_batches": 2, "val_check_interval": 0.5},
    {"max_steps": 12, "kind": ByHand},
    {"max_epochs": 3, "kind": ByHand, "limit_train_batches": 3},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_each_epochs_end_is_a_start(options: dict[str, Any], tmp_path: Path) -> None:
    """The second restart is from a checkpoint that the first one wrote."""
    whole = Run(tmp_path, 1, **options)
    steps = whole.trainer.global_step // 3
    first = Run(tmp_path, 2, resume=steps, **options)
    first.assert_goes_on(whole)
    assert first.seen == [("start", 1), ("end", 1), ("start", 2), ("end", 2)]
    second = Run(tmp_path, 3, resume=2 * steps, **options)
    second.assert_goes_on(whole)
    assert second.seen == [("start", 2), ("end", 2)]


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[1], OPTIONS[5], OPTIONS[8], OPTIONS[9]], ids=str)
def test_each_validations_end_is_a_start(options: dict[str, Any], tmp_path: Path) -> None:
    """As of ``best``, which is saved there, before the hooks of an epoch's end."""
    whole = Run(tmp_path, 1, **options)
    found = [int(path.stem.removeprefix("validated")) for path in tmp_path.glob("validated*")]
    assert len(found) >= 3
    for steps in sorted(found)[:-1]:
        Run(tmp_path, 2, resume=f"validated{steps}", **options).assert_goes_on(whole)


@pytest.mark.parametrize("limit", [{"max_steps": 12}, {"max_epochs": 3}], ids=str)
@pytest.mark.parametrize("batch", [2, 6])
def test_an_epoch_that_was_cut_off_goes_on_in_the_middle(limit: dict[str, int], batch: int, tmp_path: Path) -> None:
    """No batch is left out, and the epochs after it count as they should, for one more restart too."""
    whole = Run(tmp_path, 1, **limit)
    Run(tmp_path, 1, stop=batch, **limit)
    epoch = batch // 4
    resumed = Run(tmp_path, 3, resume=batch, **limit)
    resumed.assert_goes_on(whole)
    assert len([step for step, row in resumed.rows if "train/loss" in row]) == 12 - batch
    assert resumed.seen[:2] == [("end", epoch), ("start", epoch + 1)]
    Run(tmp_path, 4, resume=8, **limit).assert_goes_on(whole)


@pytest.mark.parametrize("limit", [{"max_steps": 12}, {"max_epochs": 3}], ids=str)
def test_a_schedule_that_follows_a_metric_misses_no_epoch(limit: dict[str, int], tmp_path: Path) -> None:
    """From the end of an epoch, from the middle of one, and from the end of that."""
    whole = Run(tmp_path, 1, kind=OnPlateaus, **limit)
    assert whole.state["optimizer_states"][0]["param_groups"][0]["lr"] == 0.05  # halved by the second validation
    for steps, stop in ((4, None), (8, None), (2, 2), (4, None), (6, 6), (8, None)):
        if stop:
            Run(tmp_path, 1, stop=stop, kind=OnPlateaus, **limit)
        resumed = Run(tmp_path, 3, resume=steps, kind=OnPlateaus, **limit)
        assert resumed.rows == whole.rows[-len(resumed.rows) :]
        for name in ("optimizer_states", "lr_schedulers", "state_dict"):
            assert equal(resumed.state[name], whole.state[name])


def test_more_steps_than_at_first_begin_where_the_first_ended(tmp_path: Path) -> None:
    whole = Run(tmp_path, 1, max_steps=12)
    Run(tmp_path, 1, max_steps=6)
    Run(tmp_path, 3, resume=6, max_steps=12).assert_goes_on(whole)


def counters(current: int, processed: int, completed: int, is_last: bool) -> dict[str, Any]:
    count = {"ready": current, "started": current, "processed": processed, "completed": completed}
    return {
        "epoch_progress": {"total": dict(count), "current": dict(count)},
        "epoch_loop.batch_progress": {"is_last_batch": is_last},
        "state_dict": {"combined_loader": [{"batches": 4}]},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((2, 2, 1, True), (2, 2, 2, True)),  # saved in the hooks of an epoch's end
        ((2, 2, 2, True), (2, 2, 2, True)),  # behind them
        ((2, 2, 1, False), (2, 1, 1, False)),  # cut off
        ((2, 2, 2, False), (2, 1, 1, False)),
        ((2, 1, 1, True), (2, 1, 1, True)),  # with its last batch, before the hooks: Lightning goes on there
        ((2, 1, 1, False), (2, 1, 1, False)),
        ((0, 0, 0, False), (0, 0, 0, False)),  # before the first epoch
    ],
)
def test_counters(before: tuple[int, int, int, bool], after: tuple[int, int, int, bool]) -> None:
    loops, expected = counters(*before), counters(*after)
    begins = before[0] == before[1] and before[3]
    if begins:
        expected["state_dict"].pop("combined_loader")
    assert settle(loops) == begins
    assert loops == expected


@pytest.mark.parametrize(("content", "is_trial"), [({"state_dict": {}}, False), ({"loops": {}}, False), (None, True)])
def test_checkpoints_that_are_left_as_they_are(content: dict[str, Any] | None, is_trial: bool) -> None:
    """Those without loops, and those that fast_dev_run tries."""
    found = content or {"loops": {"fit_loop": counters(2, 2, 1, True)}}
    before, callback = copy.deepcopy(found), ResumePoint()
    callback.on_load_checkpoint(SimpleNamespace(fast_dev_run=is_trial), None, found)  # type: ignore[arg-type]
    assert found == before and not callback.begins_an_epoch


def schedule(interval: str = "epoch", frequency: int = 1, follows: bool = True, monitor: str = "val/loss") -> Any:
    return SimpleNamespace(
        interval=interval, frequency=frequency, reduce_on_plateau=follows, monitor=monitor, scheduler="its scheduler"
    )


def test_what_a_schedule_has_to_see() -> None:
    kinds = [schedule(), schedule("step"), schedule(frequency=3), schedule(follows=False), schedule(monitor="other")]
    trainer: Any = SimpleNamespace(
        lr_scheduler_configs=[*kinds, schedule(frequency=2)],
        callback_metrics={"val/loss": torch.tensor(2.0)},
        current_epoch=1,
        fit_loop=SimpleNamespace(restarting=True),
    )
    callback, steps = ResumePoint(), []
    callback.values = {9: 1.0}
    step = lambda *call: steps.append(call)  # noqa: E731
    callback.on_train_epoch_end(trainer, SimpleNamespace(automatic_optimization=True))  # type: ignore[arg-type]
    assert callback.state_dict() == {"values": {0: 2.0, 5: 2.0}, "must_step": True}
    for _ in range(2):
        callback.on_train_epoch_start(trainer, SimpleNamespace(lr_scheduler_step=step))  # type: ignore[arg-type]
    assert steps == [("its scheduler", 2.0)] * 2  # of two schedules, once
    callback.on_train_epoch_end(trainer, SimpleNamespace(automatic_optimization=False))  # type: ignore[arg-type]
    assert callback.values == {}


@pytest.mark.parametrize(
    ("before", "owed", "must"),
    [
        ((2, 2, 1, True), False, True),  # saved in the hooks of an epoch's end, before the schedules
        ((2, 2, 2, True), False, False),  # behind them
        ((2, 2, 2, True), True, True),  # behind them, in an epoch that was resumed
        ((2, 1, 1, False), True, False),  # in the middle
        ((2, 2, 1, False), True, False),  # cut off
    ],
)
def test_when_a_schedule_has_missed_an_epoch(before: tuple[int, int, int, bool], owed: bool, must: bool) -> None:
    callback, content = ResumePoint(), {"loops": {"fit_loop": counters(*before)}}
    callback.on_load_checkpoint(SimpleNamespace(fast_dev_run=False), None, content)  # type: ignore[arg-type]
    callback.load_state_dict({"values": {0: 2.0}, "must_step": owed})
    assert callback.must_step == must and callback.values == {0: 2.0}
