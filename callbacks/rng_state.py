"""Random numbers go on after a restart where they stopped."""

import random
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer

State = dict[str, Any]


def capture() -> State:
    """The generators of python, numpy, torch and the current GPU, as types that ``weights_only`` loading knows."""
    version, numbers, gauss = random.getstate()
    algorithm, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [algorithm, torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore(state: State) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    algorithm, keys, *rest = state["numpy"]
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class RngState(Callback):
    """Store the generators of every rank in the checkpoint and restore them before the next training batch.

    What is drawn between an epoch's end and the first batch of the next (a DataLoader draws a seed whenever it is
    iterated, more often in an uninterrupted run than in a resumed one) is taken back, in every run alike. Batches are
    fetched before that point: data must come from generators of its own, seeded by (seed, epoch, index). A rank that
    the checkpoint does not know keeps its fresh state.
    """

    def __init__(self) -> None:
        self.pending: State | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.pending is None:  # not where a run goes on between an epoch's last batch and its end
            self.pending = capture()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.pending is not None:
            restore(self.pending)
            self.pending = None

    def state_dict(self) -> dict[str, Any]:
        """Called on all ranks at once, as saving a checkpoint is."""
        own = self.pending or capture()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {"ranks": [own]}
        ranks: list[State | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        initialized = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if initialized else 0
        if rank < len(state_dict["ranks"]):
            self.pending = state_dict["ranks"][rank]
