"""The order that reads few shards at a time: every sample once, shared by ranks, few shards in a stretch, resumable."""

import numpy as np
import pytest
from torch.utils.data import Dataset

from datamodules.loading.loaders import EpochSampler, training_loader
from datamodules.loading.shard_order import ShardSampler

SHARDS = np.repeat([4, 0, 7, 2, 9, 5], [5, 3, 6, 2, 4, 4])  # 24 images


class Indices(Dataset):
    def __init__(self, samples: int = 24) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, draw: tuple[int, int]) -> int:
        return draw[1]


def sampler(rank: int = 0, world: int = 1, at_once: int = 2, samples: int = 24, epoch: int = 3) -> ShardSampler:
    one = ShardSampler(Indices(samples), SHARDS, at_once, 5, rank, world)
    one.set_epoch(epoch)
    return one


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (3, 2), (4, 1), (8, 0)])
@pytest.mark.parametrize("kind", ["shards", "whole"])
def test_every_sample_once_over_ranks_and_workers(world: int, workers: int, kind: str) -> None:
    seen: list[int] = []
    for rank in range(world):
        own = sampler(rank, world) if kind == "shards" else EpochSampler(Indices(), 5, rank, world)
        loader = training_loader(Indices(), 2 if world < 8 else 1, 0, workers, None, sampler=own)
        seen += [int(index) for batch in loader for index in batch]
    assert sorted(seen) == list(range(24))


@pytest.mark.parametrize("world", [5, 7, 23, 50])
@pytest.mark.parametrize("kind", ["shards", "whole"])
def test_ranks_that_do_not_divide_the_set_repeat_a_few(world: int, kind: str) -> None:
    samplers = [sampler(r, world) if kind == "shards" else EpochSampler(Indices(), 5, r, world) for r in range(world)]
    draws = [list(one) for one in samplers]
    assert {len(part) for part in draws} == {len(samplers[0])} == {-(-24 // world)}
    assert {index for part in draws for _, index in part} == set(range(24))


def test_windows_of_shards() -> None:
    order = sampler().order()
    visited = SHARDS[order]
    windows, start = [], 0
    for _ in range(3):
        pair = list(dict.fromkeys(visited[start:]))[:2]
        length = int(np.isin(SHARDS, pair).sum())
        assert set(visited[start : start + length]) == set(pair)
        windows.append(pair)
        start += length
    assert start == 24
    first = visited[: int(np.isin(SHARDS, windows[0]).sum())]
    assert len(np.flatnonzero(np.diff(first))) > 2  # mixed, not one after the other


def test_a_rank_reads_its_share_of_the_shards() -> None:
    shards = np.repeat(np.arange(40), 10)
    parts = [ShardSampler(Indices(400), shards, 1, 0, rank, 4) for rank in range(4)]
    assert [len(set(shards[part.order()])) for part in parts] == [10] * 4
    assert len(set(shards[EpochSampler(Indices(400), 0, 0, 4).order()])) == 40


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert list(sampler()) == list(sampler())
    assert [i for _, i in sampler()] != [i for _, i in sampler(epoch=4)]
    other = ShardSampler(Indices(), SHARDS, 2, 6)
    other.set_epoch(3)
    assert list(other) != list(sampler())
    assert {epoch for epoch, _ in sampler()} == {3}
    assert list(sampler(at_once=1)) != list(sampler(at_once=6))


def test_it_goes_on_in_the_middle() -> None:
    own = sampler(1, 2)
    whole = list(own)
    own.start = 5
    assert list(own) == whole[5:] and len(own) == 12


def test_crops_of_an_image_stay_with_its_shard() -> None:
    order = sampler(samples=72).order()
    assert sorted(order) == list(range(72))
    visited = SHARDS[order % 24]
    assert set(visited[: 3 * int(np.isin(SHARDS, visited[:20]).sum())]) == set(visited[:20])


def test_at_least_one_at_once() -> None:
    with pytest.raises(ValueError, match="shards_at_once must be at least 1, got 0"):
        sampler(at_once=0)
