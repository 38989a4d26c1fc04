"""Weights of a teacher that was trained before."""

from modules.components.checkpoint_file import read_checkpoint
from modules.components.frozen import Frozen


def load_weights(teacher: Frozen, checkpoint: str) -> None:
    """Put the student of ``checkpoint`` into ``teacher``.

    Raises:
        ValueError: if the weights are another network's.
        FileNotFoundError, CheckpointError: as ``read_checkpoint``.
    """
    state = read_checkpoint(checkpoint).get("state_dict", {})
    weights = {name.removeprefix("student."): v for name, v in state.items() if name.startswith("student.")}
    try:
        teacher.network.load_state_dict(weights)
    except RuntimeError as error:
        kind = type(teacher.network).__name__
        raise ValueError(f"teacher_weights: {checkpoint} holds no student that is this {kind}: {error}") from error
