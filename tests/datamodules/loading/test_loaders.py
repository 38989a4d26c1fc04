"""Order, sharding and exact resumption, with a real trainer and without."""

import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from datamodules.images.crops import RandomCrops
from datamodules.loading.loaders import EpochSampler, EvaluationSampler, data_root, evaluation_loader, training_loader


def crops(count: int = 11, crops_per_image: int = 2) -> RandomCrops:
    generator = torch.Generator().manual_seed(3)
    images = [torch.randint(256, (3, 20, 24), generator=generator, dtype=torch.uint8) for _ in range(count)]
    return RandomCrops(images, 16, crops_per_image, seed=5)


class MeanModule(pl.LightningModule):
    """One weight that follows the batch means, and a trace of both."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.trace: list[tuple[float, float]] = []

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        mean = batch["image"].float().mean()
        self.trace.append((float(mean), float(self.weight.detach())))
        return (self.weight - mean / 255) ** 2

    def validation_step(self, batch: dict[str, Tensor]) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class CropsModule(pl.LightningDataModule):
    """Seven training batches an epoch."""

    def __init__(self, num_workers: int) -> None:
        super().__init__()
        self.num_workers = num_workers

    def train_dataloader(self) -> object:
        return training_loader(crops(), 3, 0, self.num_workers, self.trainer)

    def val_dataloader(self) -> object:
        return evaluation_loader(crops(4, 1), 2, 0, self.trainer)


class SaveEverywhere(pl.Callback):
    """Keep a checkpoint after every batch and at the end of every epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        trainer.save_checkpoint(self.folder / f"batch{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, *args: object) -> None:
        trainer.save_checkpoint(self.folder / f"epoch{trainer.global_step}.ckpt")


def run(folder: Path, steps: int, num_workers: int, resume: str | None = None, **options: object) -> MeanModule:
    """Train to step ``steps``, leaving checkpoints in ``folder``."""
    module = MeanModule()
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=SaveEverywhere(folder),
        **options,  # type: ignore[arg-type]
    )
    torch.manual_seed(steps)  # must not matter
    path = None if resume is None else folder / f"{resume}.ckpt"
    trainer.fit(module, CropsModule(num_workers), ckpt_path=path, weights_only=False)
    return module


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("saved", ["batch4", "epoch4", "batch7", "epoch7", "batch10", "epoch10"])
@pytest.mark.parametrize("validated", [True, False])
def test_ten_steps_and_ten_more_are_twenty(tmp_path: Path, num_workers: int, saved: str, validated: bool) -> None:
    """A stop by max_steps also ends an epoch, so epoch4 and epoch10 are saved in the middle of one."""
    options: dict = {} if validated else {"limit_val_batches": 0}
    whole = run(tmp_path, 20, num_workers=0, **options)
    steps = int(saved[5:])
    first = run(tmp_path, steps, num_workers, **options)
    second = run(tmp_path, 20, num_workers, resume=saved, **options)
    assert first.trace + second.trace == whole.trace
    assert torch.equal(second.weight, whole.weight)
    assert len({mean for mean, _ in whole.trace}) == 20


@pytest.mark.parametrize("saved", ["batch1", "batch5", "batch13", "epoch14", "batch15"])
def test_resume_from_a_run_that_was_cut_off(tmp_path: Path, saved: str) -> None:
    whole = run(tmp_path, 20, 0)
    assert run(tmp_path, 20, 2, resume=saved).trace == whole.trace[int(saved[5:]) :]


@pytest.mark.parametrize("options", [{}, {"limit_val_batches": 0}])
@pytest.mark.parametrize("saved", ["batch6", "epoch8"])
def test_limited_epochs(tmp_path: Path, saved: str, options: dict) -> None:
    whole = run(tmp_path, 12, 0, limit_train_batches=4, **options)
    second = run(tmp_path, 12, 0, resume=saved, limit_train_batches=4, **options)
    assert second.trace == whole.trace[int(saved[5:]) :]


def test_batches_do_not_depend_on_workers_and_change_with_the_epoch() -> None:
    def epoch(num_workers: int, number: int) -> Tensor:
        loader = training_loader(crops(), 4, 1, num_workers, None)
        loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
        return torch.cat([batch["image"] for batch in loader])

    state = torch.get_rng_state()
    assert torch.equal(epoch(0, 1), epoch(2, 1))
    assert not torch.equal(epoch(0, 1), epoch(0, 2))
    assert torch.equal(state, torch.get_rng_state())


def test_ranks_share_an_epoch_without_overlap() -> None:
    samplers = [EpochSampler(crops(12, 1), seed=4, rank=rank, world_size=3) for rank in range(3)]
    for sampler in samplers:
        sampler.set_epoch(2)
    draws = [set(sampler) for sampler in samplers]
    assert set.union(*draws) == {(2, index) for index in range(12)}
    assert all(len(part) == 4 for part in draws)


@pytest.mark.parametrize(("size", "world_size"), [(12, 1), (12, 3), (11, 4), (2, 5)])
def test_the_order_is_that_of_torchs_sampler(size: int, world_size: int) -> None:
    for rank in range(world_size):
        mine, theirs = (kind(crops(size, 1), world_size, rank) for kind in (torchs_sampler, DistributedSampler))
        for sampler in (mine, theirs):
            sampler.set_epoch(3)
        assert [index for _, index in mine] == list(theirs) and len(mine) == len(theirs)


def test_draws_that_are_left_stay_in_their_epoch() -> None:
    sampler = EpochSampler(crops(6, 1), seed=1)
    sampler.set_epoch(2)
    whole = list(sampler)
    draws = iter(sampler)
    first = next(draws)
    sampler.set_epoch(3)
    assert [first, *draws] == whole and whole[0][0] == 2


def torchs_sampler(dataset: Dataset, world_size: int, rank: int) -> EpochSampler:
    return EpochSampler(dataset, rank=rank, world_size=world_size)


@pytest.mark.parametrize(("size", "world_size"), [(7, 3), (5, 5), (8, 1)])
def test_evaluation_sees_every_sample_once(size: int, world_size: int) -> None:
    samplers = [EvaluationSampler(crops(size, 1), rank, world_size) for rank in range(world_size)]
    indices = [index for sampler in samplers for index in sampler]
    assert sorted(indices) == list(range(size))
    assert [len(sampler) for sampler in samplers] == [len(list(sampler)) for sampler in samplers]


def test_evaluation_with_fewer_samples_than_ranks_is_refused() -> None:
    with pytest.raises(ValueError, match="2 evaluation samples"):
        EvaluationSampler(crops(2, 1), 0, 3)


class Indices(Dataset):
    def __len__(self) -> int:
        return 9

    def __getitem__(self, draw: tuple[int, int] | int) -> int:
        return draw[1] if isinstance(draw, tuple) else draw


class SeenIndices(pl.LightningModule):
    """Writes the indices that its rank was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.folder = folder

    def record(self, split: str, batch: Tensor) -> None:
        with (self.folder / f"{split}{self.global_rank}").open("a") as file:
            file.writelines(f"{index}\n" for index in batch.tolist())

    def training_step(self, batch: Tensor) -> Tensor:
        self.record("train", batch)
        return self.weight**2

    def validation_step(self, batch: Tensor) -> None:
        self.record("val", batch)
        self.log("val/mean", batch.float().mean(), batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class IndicesModule(pl.LightningDataModule):
    def train_dataloader(self) -> object:
        return training_loader(Indices(), 1, 0, 0, self.trainer)

    def val_dataloader(self) -> object:
        return evaluation_loader(Indices(), 1, 0, self.trainer)


def fit_on_two_processes(folder: Path) -> None:
    torch.set_num_threads(1)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(SeenIndices(folder), IndicesModule())


def test_two_processes_shard_both_loaders(tmp_path: Path) -> None:
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=120)
    seen = {
        name: [int(line) for line in (tmp_path / name).read_text().split()]
        for name in ("train0", "train1", "val0", "val1")
    }
    assert len(seen["train0"]) == len(seen["train1"]) == 5  # nine samples: one occurs twice
    assert set(seen["train0"] + seen["train1"]) == set(range(9))
    assert seen["val0"] == [0, 2, 4, 6, 8]
    assert seen["val1"] == [1, 3, 5, 7]


def test_data_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARSIMONY_DATA", raising=False)
    assert data_root() == Path("data")
    monkeypatch.setenv("PARSIMONY_DATA", "elsewhere")
    assert data_root() == Path("elsewhere")
    assert data_root("here") == Path("here")
    with pytest.raises(ValueError, match="the root s3://bucket is a URL, from which packed images are read; this data"):
        data_root("s3://bucket")


if __name__ == "__main__":
    fit_on_two_processes(Path(sys.argv[1]))
