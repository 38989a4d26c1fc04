"""Weights of a teacher that was trained before."""

from pathlib import Path

import torch

from modules.components.frozen import Frozen


def load_weights(teacher: Frozen, checkpoint: str) -> None:
    """Put the student of ``checkpoint`` into ``teacher``.

    Raises:
        ValueError: if the weights are another network's or the file is no checkpoint.
        FileNotFoundError: if there is no such checkpoint.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"teacher_weights: no file {checkpoint}")
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage provokes
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"teacher_weights: {checkpoint} is no checkpoint that can be read safely: {reason}") from error
    state = content.get("state_dict", {}) if isinstance(content, dict) else {}
    weights = {name.removeprefix("student."): v for name, v in state.items() if name.startswith("student.")}
    try:
        teacher.network.load_state_dict(weights)
    except RuntimeError as error:
        kind = type(teacher.network).__name__
        raise ValueError(f"teacher_weights: {checkpoint} holds no student that is this {kind}: {error}") from error
