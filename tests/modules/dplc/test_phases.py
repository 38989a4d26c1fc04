"""Who is updated in which phase, how often, on one process and on two, and after an interruption."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import MultiStepLR

from modules.components.checkpoint_file import CheckpointError
from modules.dplc.module import GenerativeModel
from modules.dplc.nets import GenerativeNet
from modules.dplc.phases import TwoPhases
from tests.modules.dplc.small import Adam, Noise64, adversary, compressor, equal, generative, state_of, trainer

SYSTEMS = {
    "wgan_gp": lambda **options: generative(False, adversary(**options)),
    "wasserstein": lambda **options: generative(True, adversary(**options)),
    "gc": lambda **options: compressor(mmd_weight=0.0, adversary=adversary(**options)),
}


class Watch(Callback):
    """Notes after every phase whose parameters and gradients changed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, bool]] = []
        self.strangers: list[str] = []

    def setup(self, trainer: Any, pl_module: LightningModule, stage: str) -> None:
        assert isinstance(pl_module, TwoPhases)
        for name, other in (("critic_phase", pl_module.network), ("generator_phase", pl_module.adversary)):
            setattr(pl_module, name, self.around(getattr(pl_module, name), name, other, pl_module))

    def around(self, phase: Any, name: str, other: torch.nn.Module, module: TwoPhases) -> Any:
        def watched(*arguments: Any) -> Any:
            for p in other.parameters():
                p.grad = None
            network, critic = (dict(m.named_parameters()) for m in (module.network, module.adversary))
            before = [{k: v.detach().clone() for k, v in part.items()} for part in (network, critic)]
            result = phase(*arguments)
            pairs = zip(before, (network, critic), strict=True)
            changed = [any(not torch.equal(old[k], now[k]) for k in now) for old, now in pairs]
            self.seen.append((name, *changed))
            touched = [k for k, p in other.named_parameters() if p.grad is not None and p.grad.any()]
            self.strangers += [f"{name}:{k}" for k in touched]
            return result

        return watched


@pytest.mark.parametrize("kind", SYSTEMS)
def test_each_phase_updates_its_own_network_and_leaves_no_gradient_in_the_other(kind: str, tmp_path: Path) -> None:
    watch = Watch()
    trainer(tmp_path, callbacks=[watch]).fit(SYSTEMS[kind](steps=3), datamodule=Noise64())
    critic, generator = ("critic_phase", False, True), ("generator_phase", True, False)
    assert watch.seen == [critic, critic, critic, generator] * 2 + [critic] * 2
    assert watch.strangers == []


def test_batches_are_counted_over_epochs(tmp_path: Path) -> None:
    module, watch = SYSTEMS["wasserstein"](steps=3), Watch()
    run = trainer(tmp_path, callbacks=[watch], max_epochs=3)
    run.fit(module, datamodule=Noise64())
    assert module.batches == 24 and sum(name == "generator_phase" for name, *_ in watch.seen) == 8
    assert run.global_step == 32


def test_without_a_critic_every_batch_is_a_generator_step(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.fit(generative(), datamodule=Noise64())
    assert run.global_step == 8 and len(run.optimizers) == 1


def test_critic_in_chunks_takes_the_same_step(tmp_path: Path) -> None:
    moved = []
    for chunks in (1, 2, 4):
        sgd = partial(torch.optim.SGD, lr=0.1)
        module = generative(False, adversary(chunks=chunks), critic_optimizer=sgd)
        before = state_of(module.adversary)
        torch.manual_seed(3)
        run = trainer(tmp_path, limit_train_batches=1)
        run.fit(module, datamodule=Noise64())
        logged = [run.callback_metrics[f"train/{name}"] for name in ("wasserstein", "penalty")]
        moved.append([*logged, *(now - before[name] for name, now in module.adversary.state_dict().items())])
    assert max(change.abs().max() for change in moved[0][2:]) > 1e-3
    for other in moved[1:]:
        for a, b in zip(moved[0], other, strict=True):
            assert (a - b).abs().max() < 1e-3 * a.abs().max()


def test_schedules_of_both_optimizers_step_with_epochs(tmp_path: Path) -> None:
    def schedule(milestone: int) -> Any:
        return lambda optimizer: MultiStepLR(optimizer, [milestone], gamma=0.4)

    module = generative(True, adversary(steps=2), lr_scheduler=schedule(1), critic_scheduler=schedule(2))
    rates = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            rates.append([round(o.param_groups[0]["lr"] * 1e4, 3) for o in trainer.optimizers])

    run = trainer(tmp_path, callbacks=[Rates()], max_epochs=3, limit_train_batches=2)
    run.fit(module, datamodule=Noise64())
    assert rates == [[10, 10], [4, 10], [4, 4]]


def test_optimizers_hold_their_own_parameters(tmp_path: Path) -> None:
    module = SYSTEMS["wasserstein"]()
    trainer(tmp_path, max_epochs=0).fit(module, datamodule=Noise64())
    optimizers, _ = module.configure_optimizers()
    held = [{id(p) for group in optimizer.param_groups for p in group["params"]} for optimizer in optimizers]
    assert held == [{id(p) for p in part.parameters()} for part in (module.network, module.adversary)]


class Stop(Callback):
    """Saves and stops after so many batches, in the middle of an epoch."""

    def __init__(self, path: Path, after: int) -> None:
        self.path, self.after = path, after

    def on_train_batch_end(self, trainer: Any, pl_module: TwoPhases, *_: Any) -> None:
        if pl_module.batches == self.after:
            trainer.save_checkpoint(self.path, weights_only=False)
            raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["wasserstein", "gc"])
@pytest.mark.parametrize("after", [5, 8, 12])
def test_an_interrupted_run_ends_like_one_that_was_not(kind: str, after: int, tmp_path: Path) -> None:
    """8 batches an epoch, a generator step after every 3: stopped between phases, between epochs, after a phase."""
    options: dict[str, Any] = {"max_epochs": 2, "precision": "bf16-mixed"}
    whole = SYSTEMS[kind](steps=3)
    trainer(tmp_path, **options).fit(whole, datamodule=Noise64())
    half = SYSTEMS[kind](steps=3)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trainer(tmp_path, callbacks=[Stop(tmp_path / "half.ckpt", after)], **options).fit(half, datamodule=Noise64())
    assert half.batches == after
    resumed = SYSTEMS[kind](steps=3)
    torch.manual_seed(99)
    run = trainer(tmp_path, **options)
    run.fit(resumed, datamodule=Noise64(), ckpt_path=tmp_path / "half.ckpt", weights_only=False)
    assert resumed.batches == whole.batches == 16
    assert equal(state_of(whole), state_of(resumed))
    for first, second in zip(whole.trainer.optimizers, run.optimizers, strict=True):
        for a, b in zip(first.state.values(), second.state.values(), strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_checkpoint_of_something_else() -> None:
    with pytest.raises(CheckpointError, match="not one of GenerativeModel, it has no batches"):
        generative().on_load_checkpoint({"state_dict": {}})


class Ranks(Callback):
    """Saves the trained state of every rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: Any, pl_module: LightningModule) -> None:
        torch.save(state_of(pl_module), self.folder / f"{trainer.global_rank}.pt")

    def on_train_end(self, trainer: Any, pl_module: LightningModule) -> None:
        watch = next(c for c in trainer.callbacks if isinstance(c, Watch))
        torch.save([watch.seen, watch.strangers], self.folder / f"{trainer.global_rank}.seen")


@pytest.mark.parametrize("kind", ["wasserstein", "gc"])
def test_two_processes(kind: str, tmp_path: Path) -> None:
    """Both ranks end with the same parameters and statistics, and no phase touches the other's network."""
    ddp = {"devices": 2, "strategy": "ddp_fork_find_unused_parameters_true", "callbacks": [Watch(), Ranks(tmp_path)]}
    trainer(tmp_path, **ddp).fit(SYSTEMS[kind](steps=2, chunks=2), datamodule=Noise64())
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert equal(first, second)
    critic, generator = ("critic_phase", False, True), ("generator_phase", True, False)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.seen") == [[critic, critic, generator] * 2, []]


def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    """One critic step by SGD: two ranks move as far as one process with both ranks' batches would."""
    moved = []

    class Fixed(GenerativeModel):
        """No randomness: fakes are mirrored images, and the penalty is left out."""

        def fakes(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(3)

    for devices, batch_size in ((1, 4), (2, 2)):
        torch.manual_seed(0)
        sgd = partial(torch.optim.SGD, lr=0.1)
        module = Fixed(GenerativeNet(2, 16, False), adversary=adversary(penalty_weight=0.0), critic_optimizer=sgd)
        before = state_of(module.adversary)
        options: dict[str, Any] = {"callbacks": [Watch(), Ranks(tmp_path)], "limit_train_batches": 1}
        if devices == 2:
            options |= {"devices": 2, "strategy": "ddp_fork_find_unused_parameters_true"}
        trainer(tmp_path, **options).fit(module, datamodule=Noise64(batch_size=batch_size))
        after = torch.load(tmp_path / "0.pt")
        moved.append({name: after[f"adversary.{name}"] - before[name] for name in before})
    assert any(change.abs().max() > 1e-3 for change in moved[0].values())
    for name in moved[0]:
        assert torch.allclose(moved[0][name], moved[1][name], rtol=1e-3, atol=1e-6)


def test_checkpoints_of_a_run_can_be_kept(tmp_path: Path) -> None:
    keep = ModelCheckpoint(dirpath=tmp_path, filename="last", monitor="val/mse")
    module = generative(True, adversary(steps=2), critic_optimizer=Adam)
    trainer(tmp_path, callbacks=[keep], enable_checkpointing=True).fit(module, datamodule=Noise64())
    assert (tmp_path / "last.ckpt").is_file()
