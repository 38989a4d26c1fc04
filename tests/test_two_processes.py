"""Every shipped config trains in two processes: tiny networks, written batches, gloo; afterwards both hold the same.
Searches, whose starts share a device, say so in one line.

One config of each method here, all with PARSIMONY_TWO_PROCESSES=1. That the numbers are those of one process is tested
where a method's own tests are; solvers, which gather, there too.
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader

from modules.compressed_domain import joint, tasks
from tests.shipped_models import Experiment, batch, build, on_a_gpu

PAGE = (Path(__file__).parents[1] / "docs" / "cluster.md").read_text()
FIND_UNUSED = {f"modules.{method}" for method in re.findall(r"^\| `(\w+)/.*\| find unused \|", PAGE, re.MULTILINE)}
"""Methods that the page sends to ddp_find_unused_parameters_true; the others take ddp."""


class SameInBoth(Callback):
    """Raises in the child process where the two differ, have learnt nothing or hold what is no number."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.before = weights(pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        after = weights(pl_module)
        both: Any = pl_module.all_gather(after)
        assert both.shape[0] == 2 and torch.equal(both[0], both[1]), "the processes hold different weights"
        assert after.isfinite().all() and not torch.equal(self.before, after), "nothing was learnt"


def weights(module: LightningModule) -> Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in module.parameters()])


def batches(one: Experiment) -> list[dict[str, Any]]:
    """Four that differ in their images, signals and points."""
    found = []
    for number in range(4):
        items = batch(one)
        items["image"] = (items["image"].int() + 31 * number).remainder(256).to(torch.uint8)
        items |= {name: items[name] * (1 + number) for name in ("signal", "points")}
        found.append(items)
    return found


def cases() -> list[Experiment]:
    every = on_a_gpu()
    first = {one.method: one for one in reversed(every)}
    return every if os.environ.get("PARSIMONY_TWO_PROCESSES") else list(first.values())


def refused(one: Experiment) -> AbstractContextManager[Any]:
    """What is expected of a config that takes one device only."""
    if one.model["class_path"].startswith("modules.strassen.search."):
        return pytest.raises(ProcessRaisedException, match="a search trains all its starts on one device")
    return nullcontext()


def is_scheduled(one: Experiment) -> bool:
    """True for a config whose learning rate follows a validation."""
    return "ReduceLROnPlateau" in str(one.model)


@pytest.mark.parametrize("one", cases(), ids=lambda one: one.name)
def test_both_processes_hold_the_same_weights(one: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    module = build(one)
    if hasattr(module, "codec_weights"):  # of an earlier stage; random ones will do
        for place in (tasks, joint):
            for name in ("take_weights", "load_classifier"):
                monkeypatch.setattr(place, name, lambda *_: None)
        module.codec_weights = module.start_weights = "random"
    elif hasattr(module, "start_weights"):
        module.start_weights = None
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork_find_unused_parameters_true" if one.method in FIND_UNUSED else "ddp_fork",
        max_epochs=1,
        limit_val_batches=int(is_scheduled(one)),
        callbacks=[SameInBoth()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with refused(one):
        trainer.fit(module, *[DataLoader(batches(one), batch_size=None)] * 2)  # type: ignore[arg-type]
