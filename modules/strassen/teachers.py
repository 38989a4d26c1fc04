"""The full-precision network of an earlier run as a teacher."""

from torch import nn

from modules.components.checkpoint_file import CheckpointError, entry, read_checkpoint

PREFIX = "network."


def check_teacher(teacher: nn.Module | None, weights: str | None, lmbda: float, temperature: float) -> None:
    """Raise a ValueError for a distillation that cannot be."""
    if (teacher is None) != (weights is None):
        raise ValueError("a teacher needs both teacher, its network, and teacher_weights, a checkpoint of it")
    if not 0.0 <= lmbda <= 1.0 or not temperature > 0.0:
        raise ValueError(f"lmbda must be in 0..1 and temperature above 0, got {lmbda} and {temperature}")


def load_network_weights(network: nn.Module, path: str) -> None:
    """Fill ``network`` with the weights that a checkpoint of this method holds for its own network.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it holds no such network.
    """
    state = entry(read_checkpoint(path), "state_dict", network)
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        kind = type(network).__name__
        raise CheckpointError(
            f"{path} holds no network that is this {kind}: give the run of the same network"
        ) from error
