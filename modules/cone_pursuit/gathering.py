"""What the modules share that gather in training_step and solve at the end of the epoch.

Numbers that are logged count every item once, see components/gathering.py.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from modules.components.checkpoint_file import entry
from modules.components.gathering import Batch, gather_records, of_all_ranks

Records = list[dict[str, Any]]


class Gathering(LightningModule):
    """Nothing to learn: an optimizer over one idle number makes Lightning count batches as steps, without which it
    saves no checkpoint. ``gathered`` holds the epoch's batches on the CPU; a checkpoint keeps them. A fit begins
    without those of an earlier one that failed."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.idle = nn.Parameter(torch.zeros(()))
        self.gathered: list[Batch] = []

    def setup(self, stage: str) -> None:
        """Called before a checkpoint, if any, brings back what its run had gathered."""
        if stage == "fit":
            self.gathered = []

    def training_step(self, batch: Batch, batch_index: int) -> None:
        self.gathered.append({name: value.cpu() for name, value in batch.items() if isinstance(value, Tensor)})
        self.optimizers().step()  # type: ignore[union-attr]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["gathered"] = [batch for part in of_all_ranks(self.gathered) for batch in part]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        gathered = entry(checkpoint, "gathered", self)
        self.gathered = gathered if self.global_rank == 0 else []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.idle], lr=1.0)


class Study(Gathering):
    """Its ``records``, one dict a measurement, are for study_table.py and travel in the checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.records: Records = []

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if stage == "fit":
            self.records = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["records"] = gather_records(self.records)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.records = entry(checkpoint, "records", self)
