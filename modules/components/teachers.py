"""The network of an earlier run as a teacher."""

from pathlib import Path

from modules.components.checkpoint_file import CheckpointError, entry, read_checkpoint
from modules.components.frozen import Frozen


def check_teacher(teacher: object | None, weights: str | None) -> None:
    """Raise a ValueError for a teacher without weights, or the other way round."""
    if (teacher is None) != (weights is None):
        raise ValueError("a teacher from outside needs both teacher, its network, and teacher_weights, a checkpoint")


def load_teacher(teacher: Frozen, checkpoint: Path | str, part: str) -> None:
    """Fill ``teacher`` with the weights that a checkpoint holds for ``part``, an attribute of the module that wrote it.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it is damaged, has no such part, or another network there.
    """
    state = entry(read_checkpoint(checkpoint), "state_dict", teacher.network)
    weights = {name.removeprefix(f"{part}."): value for name, value in state.items() if name.startswith(f"{part}.")}
    try:
        teacher.network.load_state_dict(weights)
    except RuntimeError as error:
        kind = type(teacher.network).__name__
        raise CheckpointError(
            f"{checkpoint} holds no {part} that is this {kind}: give the run of the same network"
        ) from error
