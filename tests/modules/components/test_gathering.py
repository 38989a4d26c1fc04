"""Every item counts once, however many ranks share the set, and no rank waits for one that failed."""

from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from modules.components.gathering import (
    all_items,
    done_on_all_ranks,
    gather_records,
    is_first,
    of_all_ranks,
    own_items,
)


@pytest.mark.parametrize(("size", "world"), [(7, 3), (2, 3), (6, 2), (5, 1)])
def test_ranks_share_a_set_without_counting_an_item_twice(size: int, world: int) -> None:
    each = -(-size // world)
    indices = [torch.tensor([(rank + step * world) % size for step in range(each)]) for rank in range(world)]
    kept = torch.cat([indices[rank][is_first(indices, rank)] for rank in range(world)])
    assert sorted(kept.tolist()) == list(range(size))


def test_all_items_are_in_the_order_of_the_set() -> None:
    batches = [{"index": torch.tensor(i), "points": 10.0 * torch.tensor(i)} for i in ([2, 0], [1, 2, 0])]
    assert all_items(batches)["points"].tolist() == [0, 10, 20]


def test_items_without_an_index_count_as_they_come() -> None:
    batches = [{"points": torch.tensor([5, 3])}, {"points": torch.tensor([5])}]
    assert all_items(batches)["points"].tolist() == own_items(batches, 0)["points"].tolist() == [5, 3, 5]
    assert all_items([]) == {}


def work(rank: int, folder: str) -> None:
    """Rank one fails first, then it is rank one alone that holds items."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)

    def fail() -> int:
        if rank == 1:
            raise ValueError("nothing to do on one")
        return 0

    try:
        done_on_all_ranks(fail)
    except ValueError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
    assert done_on_all_ranks(lambda: rank) == of_all_ranks(rank) == [0, 1]
    items = [{"index": torch.tensor([1, 0]), "points": torch.tensor([10, 0])}] if rank else []
    assert all_items(items)["points"].tolist() == [0, 10]
    for gather in (all_items, lambda batches: own_items(batches, rank)):
        with pytest.raises(ValueError, match="without index"):
            gather([{"points": torch.zeros(2)}])
    distributed.destroy_process_group()


def test_an_error_on_one_rank_is_raised_on_all(tmp_path: Path) -> None:
    multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="fork")
    assert [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)] == ["nothing to do on one"] * 2


def test_batches_that_do_not_fit_together() -> None:
    rows = torch.ones(2, 3)
    with pytest.raises(ValueError, match="different entries: index, rows and rows"):
        all_items([{"rows": rows}, {"rows": rows, "index": torch.tensor([1, 0])}])
    with pytest.raises(ValueError, match="do not fit together"):
        all_items([{"rows": rows}, {"rows": torch.ones(2, 4)}])


def test_records_are_told_apart_by_what_they_are_about() -> None:
    one = {"draw": 1, "algorithm": "amp", "with_iteration": 0, "value": 2.0}
    others = [one | {"algorithm": "pwmp"}, one | {"with_iteration": 1}, one | {"draw": 0}]
    assert gather_records([one, *others, dict(one)]) == [others[2], one, *others[:2]]


def test_a_repeated_index_counts_once() -> None:
    assert is_first([torch.tensor([3, 3, 1, 3, 1, 2])], 0).tolist() == [True, False, True, False, False, True]
    indices = [torch.tensor([0, 2]), torch.tensor([2, 1, 1, 0])]
    assert is_first(indices, 1).tolist() == [False, True, False, False]
    assert is_first(indices, 0).tolist() == [True, True]  # what a higher rank holds does not matter
