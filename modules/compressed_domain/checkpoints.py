"""How the stages hand their networks on: checkpoint of a codec -> of a classifier -> of a segmentation network."""

import re
from typing import Any, NamedTuple

from torch import Tensor, nn

from modules.components.checkpoint_file import CheckpointError, entry, read_checkpoint
from modules.components.coding.model_file import fingerprint
from modules.compressed_domain.nets import MAX_CENTERS, MAX_CHANNELS, CompressionNet

HEADS = ("classifier.", "head.")
"""Prefixes of what a network for another task does not take over."""
PREFIXES = ("network.", "classifier.")
"""Of a network in a checkpoint of stages 2 and 3, and of stage 4."""


class Codebook(NamedTuple):
    """What a network that reads files has to know of the codec that wrote them."""

    model: bytes
    """Fingerprint of the codec."""
    centers: Tensor
    """float32 [L]."""
    channels: int


def codebook_entry(codec: CompressionNet) -> dict[str, Any]:
    """What checkpoints hold of a codec for ``read_codebook``."""
    centers = codec.quantizer.levels.detach().float().cpu()
    return {"model": fingerprint(codec).hex(), "centers": centers, "channels": codec.channels}


def read_codebook(content: dict[str, Any], path: object) -> Codebook:
    """The codebook in a checkpoint's content.

    Raises:
        CheckpointError: if it has none, or one that no codec made.
    """
    found = content.get("codebook")
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} knows no codec: it is no checkpoint of a network that works on codes")
    model, centers, channels = found.get("model"), found.get("centers"), found.get("channels")
    if (
        isinstance(model, str)
        and re.fullmatch("[0-9a-f]{32}", model)
        and isinstance(centers, Tensor)
        and centers.ndim == 1
        and 2 <= len(centers) <= MAX_CENTERS
        and bool(centers.float().isfinite().all())
        and isinstance(channels, int)
        and 1 <= channels <= MAX_CHANNELS
    ):
        return Codebook(bytes.fromhex(model), centers.float(), channels)
    raise CheckpointError(f"{path} holds a damaged codebook")


def load_classifier(network: nn.Module, path: str, codec: CompressionNet | None) -> None:
    """Put the network of a checkpoint of stages 2 to 4 into ``network``; a head of another size or task is left out.

    Args:
        codec: what ``network`` will work with; None for original images.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it holds no such network, or one that was trained with another codec.
    """
    content = read_checkpoint(path)
    state = entry(content, "state_dict", network)
    prefix = next((p for p in PREFIXES if any(name.startswith(f"{p}features.") for name in state)), None)
    if prefix is None:
        raise CheckpointError(f"{path} holds no network of this method that classifies or segments")
    if codec is not None and read_codebook(content, path).model != fingerprint(codec):
        raise CheckpointError(f"{path} was trained with another codec than codec_weights: give both of one chain")
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    own = network.state_dict()
    fits = {name: value for name, value in found.items() if name in own and value.shape == own[name].shape}
    unlike = [name for name in sorted({*own, *found} - {*fits}) if not name.startswith(HEADS)]
    if unlike:
        raise CheckpointError(f"{path} holds no {type(network).__name__} of these sizes: {unlike[0]} differs")
    network.load_state_dict(fits, strict=False)
