"""Lightning's switches for callbacks that configs/trainer.yaml names: switched off, those are left out."""

from importlib import import_module

from jsonargparse import Namespace
from pytorch_lightning.callbacks import Checkpoint, ProgressBar

SWITCHES = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
"""Options of the trainer and what they stand for; Lightning itself refuses to have both."""


def class_of(callback: Namespace) -> type:
    module, _, name = callback.class_path.rpartition(".")
    return getattr(import_module(module), name)


def apply(trainer: Namespace) -> None:
    """Take out of the trainer's config the callbacks that its options switch off."""
    off = tuple(kind for option, kind in SWITCHES.items() if trainer.get(option) is False)
    callbacks = trainer.get("callbacks")
    if off and isinstance(callbacks, list):
        trainer.callbacks = [callback for callback in callbacks if not issubclass(class_of(callback), off)]
