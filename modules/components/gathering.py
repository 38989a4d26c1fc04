"""Items of a set that several processes share: what all ranks hold, with every item counted once.

A loader shards its items over ranks and repeats a few, so that all ranks take equally many. Items are told apart by
their ``index`` in the set; batches without one count as they come, in a single process. A batch is a dict of tensors
[B, ...] and lists of B words.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

Batch = dict[str, Any]
T = TypeVar("T")


def of_all_ranks(mine: Any) -> list[Any]:
    """The same thing of every rank, in the order of the ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts


def done_on_all_ranks(work: Callable[[], T]) -> list[T]:
    """What ``work`` gives on every rank.

    Raises:
        ValueError: on all ranks, if ``work`` raises it on one of them; otherwise the others would wait for that one.
    """
    mine: T | ValueError
    try:
        mine = work()
    except ValueError as error:
        mine = error
    parts = of_all_ranks(mine)
    for part in parts:
        if isinstance(part, ValueError):
            raise part
    return parts


def joined(parts: list[Any]) -> Any:
    """Tensors or lists as one."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else [item for part in parts for item in part]


def together(batches: list[Batch]) -> Batch:
    """The batches of a rank as one; without batches an empty dict.

    Raises:
        ValueError: for batches with different entries, or entries of different shapes.
    """
    names = {tuple(sorted(batch)) for batch in batches}
    if len(names) > 1:
        raise ValueError(f"batches hold different entries: {' and '.join(', '.join(name) for name in sorted(names))}")
    try:
        return {name: joined([batch[name] for batch in batches]) for name in batches[0]} if batches else {}
    except RuntimeError as error:
        raise ValueError(f"batches do not fit together: {error}") from error


def is_first(indices: list[Tensor], rank: int) -> Tensor:
    """bool [N]: which items of ``rank`` neither a lower rank holds nor the rank itself before.

    Args:
        indices: int64 [N_r] of every rank.
    """
    seen = {int(i) for lower in indices[:rank] for i in lower}
    kept = []
    for i in indices[rank].tolist():
        kept.append(i not in seen)
        seen.add(i)
    return torch.tensor(kept, dtype=torch.bool)


def own_items(batches: list[Batch], rank: int) -> Batch:
    """This rank's items; over all ranks every item of the set once.

    Raises:
        ValueError: for several ranks and batches without ``index``.
    """
    whole = together(batches)
    indices = of_all_ranks(whole.get("index"))
    if whole.get("index") is None:
        check_alone(len(indices))
        return whole
    kept = is_first(indices, rank)
    return {name: value[kept] for name, value in whole.items()}


def all_items(batches: list[Batch]) -> Batch:
    """Every item of the set once, in the set's order, on every rank.

    Raises:
        ValueError: for several ranks and batches without ``index``.
    """
    parts = of_all_ranks(together(batches))
    whole = together([part for part in parts if part])
    if whole and "index" not in whole:
        check_alone(len(parts))
    if "index" not in whole:
        return whole
    order = whole["index"].argsort(stable=True)
    index = whole["index"][order]
    order = order[torch.cat((index.new_ones(1).bool(), index.diff() > 0))]
    return {n: v[order] if isinstance(v, Tensor) else [v[i] for i in order.tolist()] for n, v in whole.items()}


def gather_records(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of all ranks, each once, ordered by draw. Those of one draw are told apart by what they are about:
    words and the options that start with ``with_``."""
    unique: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part in of_all_ranks(records):
        for record in part:
            about = (v for k, v in record.items() if k == "draw" or k.startswith("with_") or isinstance(v, str))
            unique.setdefault(tuple(about), record)
    return sorted(unique.values(), key=lambda record: record["draw"])


def check_alone(world_size: int) -> None:
    if world_size > 1:
        raise ValueError("batches without index cannot be told apart across processes: use --trainer.devices 1")
