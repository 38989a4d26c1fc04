"""Weights on disk and the fingerprint that ties a compressed file to them.

A weights file is ``torch.save`` of plain types and tensors: {"format": 1, "network": {"class_path", "init_args"},
"state_dict": {...}}. It is read with ``weights_only=True``, and only classes of ``modules.<method>.nets`` are built.
"""

import hashlib
import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch

from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.configured import ConfiguredNetwork

FORMAT = 1


class NetworkFile(NamedTuple):
    method: str
    """Folder of the method below modules/."""
    network: ConfiguredNetwork
    """float32, in eval mode."""


def fingerprint(network: ConfiguredNetwork) -> bytes:
    """16 bytes that change with the class, each argument of its constructor, and the names and values of its state.

    Arguments count with their defaults and by value: 64 is 64.0 and a list is a tuple.
    """
    sha = hashlib.sha256(_plain((type(network).__qualname__, network.init_args)).encode())
    for name, tensor in sorted(network.state_dict().items()):
        sha.update(repr((name, tuple(tensor.shape))).encode())
        sha.update(tensor.detach().float().contiguous().cpu().numpy().astype("<f4").tobytes())
    return sha.digest()[:16]


def _plain(value: Any) -> str:
    """One text for equal arguments; TypeError for what has none, such as an object."""
    if isinstance(value, ConfiguredNetwork):
        return _plain((type(value).__qualname__, value.init_args))
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key!r}: {_plain(entry)}' for key, entry in sorted(value.items()))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return repr(float(value))
    if value is None or isinstance(value, (bool, str)):
        return repr(value)
    raise TypeError(f"a network with a codec takes plain arguments, not {type(value).__name__}")


def save_weights(path: Path, network_config: dict[str, Any], state_dict: dict[str, torch.Tensor], half: bool) -> None:
    """Write a weights file; ``half`` stores 16-bit floats, which are widened again on loading."""
    state = {name: (t.half() if half and t.is_floating_point() else t).cpu() for name, t in state_dict.items()}
    torch.save({"format": FORMAT, "network": network_config, "state_dict": state}, path)


def read_network_config(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The network's {"class_path", "init_args"} and state, of a weights file or a Lightning checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if the file is neither.
    """
    content = read_checkpoint(path)
    if content.get("format") == FORMAT:
        config, state = content.get("network"), content.get("state_dict")
    elif "hyper_parameters" in content:
        config = content["hyper_parameters"].get("network")
        prefix = "network."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
    else:
        raise CheckpointError(f"{path} is neither exported weights nor a Lightning checkpoint of this project")
    if not (isinstance(config, dict) and isinstance(config.get("class_path"), str) and isinstance(state, dict)):
        raise CheckpointError(f"{path} does not say which network it holds")
    return {"class_path": config["class_path"], "init_args": dict(config.get("init_args") or {})}, state


def load_network(path: Path) -> NetworkFile:
    """Build the network of a weights file or a Lightning checkpoint.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it holds something else, or a class outside ``modules.<method>.nets``.
    """
    config, state = read_network_config(path)
    parts = re.fullmatch(r"modules\.([a-z][a-z0-9_]*)\.nets\.([A-Za-z]\w*)", config["class_path"])
    if parts is None:
        raise CheckpointError(f"{path} names {config['class_path']}, which is not a network of this project")
    method, class_name = parts.groups()
    try:
        network_class = getattr(importlib.import_module(f"modules.{method}.nets"), class_name)
        network = network_class(**config["init_args"])
        if not isinstance(network, ConfiguredNetwork):
            raise TypeError("it is no network that a codec can tell from others")
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (ImportError, AttributeError, TypeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path} does not fit {config['class_path']}: {reason}") from error
    return NetworkFile(method, network.eval())
