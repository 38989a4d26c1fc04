"""A strategy that splits weights is refused where a run needs them whole."""

from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from callbacks.training_phases import TrainingPhases
from cli import sharding


class Module(LightningModule):
    def __init__(self, automatic: bool = True) -> None:
        super().__init__()
        self.automatic_optimization = automatic


def trainer(kind: type, *callbacks: Any) -> Any:
    return SimpleNamespace(strategy=object.__new__(kind), callbacks=list(callbacks))


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
def test_sharding_is_refused_by_name(kind: type) -> None:
    phases = TrainingPhases([{"epochs": 1}], "checkpoints")
    sharding.check(trainer(kind), Module())
    with pytest.raises(ValueError, match=f"Module steps its optimizers itself.*{kind.__name__} splits.*ddp"):
        sharding.check(trainer(kind), Module(automatic=False))
    with pytest.raises(ValueError, match=f"TrainingPhases hands whole weights.*{kind.__name__} splits"):
        sharding.check(trainer(kind, phases), Module())
    sharding.check(trainer(DDPStrategy, phases), Module(automatic=False))
