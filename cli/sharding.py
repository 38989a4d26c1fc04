"""Strategies that split a network's weights over devices, refused by name where they would break a run."""

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from callbacks.training_phases import TrainingPhases

SHARDING = (FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy)


def check(trainer: Trainer, module: LightningModule) -> None:
    """Raise a ValueError where a run needs whole weights that the strategy splits; Generations looks for itself."""
    if not isinstance(trainer.strategy, SHARDING):
        return
    split = f"{type(trainer.strategy).__name__} splits over the devices: use --trainer.strategy ddp"
    if not module.automatic_optimization:
        raise ValueError(f"{type(module).__name__} steps its optimizers itself, over whole weights, which {split}")
    if any(isinstance(callback, TrainingPhases) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise ValueError(f"TrainingPhases hands whole weights from phase to phase, which {split}")
