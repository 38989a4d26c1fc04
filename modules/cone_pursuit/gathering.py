"""What the modules share that gather in training_step and solve at the end of the epoch.

A loader shards its items over ranks and repeats a few, so that all ranks take equally many. Numbers that are logged
count every item once: items are told apart by their ``index`` in the set.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

Batch = dict[str, Any]
Records = list[dict[str, Any]]


class Gathering(LightningModule):
    """Nothing to learn: an optimizer over one idle number makes Lightning count batches as steps, without which it
    saves no checkpoint. ``gathered`` holds the epoch's batches on the CPU; a checkpoint keeps them."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.idle = nn.Parameter(torch.zeros(()))
        self.gathered: list[Batch] = []

    def training_step(self, batch: Batch, batch_index: int) -> None:
        self.gathered.append({name: value.cpu() for name, value in batch.items() if isinstance(value, Tensor)})
        self.optimizers().step()  # type: ignore[union-attr]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gathered"] = [batch for part in of_all_ranks(self.gathered) for batch in part]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.gathered = checkpoint["gathered"] if self.global_rank == 0 else []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.idle], lr=1.0)


class Study(Gathering):
    """Its ``records``, one dict a measurement, are for callbacks/study_table.py and travel in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.records: Records = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["records"] = gather_records(self.records)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.records = checkpoint["records"]


def of_all_ranks(mine: Any) -> list[Any]:
    """The same thing of every rank, in the order of the ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return parts


def together(batches: list[Batch]) -> Batch:
    """The batches of a rank as one."""
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


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
    """This rank's items; over all ranks every item of the set once."""
    whole = together(batches)
    kept = is_first(of_all_ranks(whole["index"]), rank)
    return {name: value[kept] for name, value in whole.items()}


def all_items(batches: list[Batch]) -> Batch:
    """Every item of the set once, in the set's order, on every rank."""
    whole = together(of_all_ranks(together(batches)))
    order = whole["index"].argsort(stable=True)
    index = whole["index"][order]
    order = order[torch.cat((index.new_ones(1).bool(), index.diff() > 0))]
    return {name: value[order] for name, value in whole.items()}


def gather_records(records: Records) -> Records:
    """The records of all ranks, each once, ordered by draw. Those of one draw are told apart by what they are about:
    words and the options that start with ``with_``."""
    unique: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part in of_all_ranks(records):
        for record in part:
            about = (v for k, v in record.items() if k == "draw" or k.startswith("with_") or isinstance(v, str))
            unique.setdefault(tuple(about), record)
    return sorted(unique.values(), key=lambda record: record["draw"])
