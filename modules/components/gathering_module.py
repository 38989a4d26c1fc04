"""LightningModules without gradients: what a pass over the data gathers or measures, and what a checkpoint keeps of it.

The only file of components that needs Lightning: methods that solve instead of learning share it.
"""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from modules.components.checkpoint_file import entry
from modules.components.gathering import Batch, gather_records, of_all_ranks


class WithoutGradients(LightningModule):
    """Nothing to learn. An optimizer over one idle number makes Lightning count batches as steps; without steps it
    saves no checkpoint, and without a parameter it refuses DDP. ``count_step`` ends a training step."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.idle = nn.Parameter(torch.zeros(()))

    def count_step(self) -> None:
        self.optimizers().step()  # type: ignore[union-attr]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.idle], lr=1.0)


class Gathering(WithoutGradients):
    """Gathers the batches of an epoch on the CPU, in ``gathered``, for whoever solves at its end.

    A checkpoint in the middle of an epoch keeps those of all ranks. A fit begins without those of an earlier one that
    failed. What is logged should count every item once: see gathering.py.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gathered: list[Batch] = []

    def setup(self, stage: str) -> None:
        """Called before a checkpoint, if any, brings back what its run had gathered."""
        super().setup(stage)
        if stage == "fit":
            self.gathered = []

    def training_step(self, batch: Batch, batch_index: int) -> None:
        self.gathered.append({name: value.cpu() for name, value in batch.items() if isinstance(value, Tensor)})
        self.count_step()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["gathered"] = [batch for part in of_all_ranks(self.gathered) for batch in part]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        gathered = entry(checkpoint, "gathered", self)
        self.gathered = gathered if self.global_rank == 0 else []


class Study(WithoutGradients):
    """Its ``records``, one dict a measurement, are for study_table.py and travel in the checkpoint, so that an
    interrupted study goes on where it stopped. ``fit`` is its only command, unless a subclass can predict."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, Any]] = []

    def setup(self, stage: str) -> None:
        """Called before a checkpoint, if any, brings back the records of its run.

        Raises:
            ValueError: for another command than ``fit``, if this study does not predict.
        """
        super().setup(stage)
        if stage == "fit":
            self.records = []
        elif stage == "predict" and type(self).predict_step is Study.predict_step:
            self.predict_step()

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        name = type(self).__name__
        raise ValueError(f"{name} measures and has nothing to predict: `train.py fit` leaves draws.csv and table.csv")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["records"] = gather_records(self.records)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.records = entry(checkpoint, "records", self)
