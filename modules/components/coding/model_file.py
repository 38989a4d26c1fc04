"""Weights on disk and the fingerprint that ties a compressed file to them.

A weights file is ``torch.save`` of plain types and tensors: {"format": 1, "network": {"class_path", "init_args"},
"state_dict": {...}}. It is read with ``weights_only=True``, and only classes of ``modules.<method>.nets`` are built.
"""

import contextlib
import hashlib
import importlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.configured import ConfiguredNetwork

FORMAT = 1
MAX_ARGUMENT = 1 << 16
"""Largest width, depth or number of anything in a network."""


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
    prefix = ""
    if content.get("format") == FORMAT:
        config = content.get("network")
    elif "hyper_parameters" in content:
        parameters, prefix = content["hyper_parameters"], "network."
        config = parameters.get("network") if isinstance(parameters, dict) else None
    else:
        raise CheckpointError(f"{path} is neither exported weights nor a Lightning checkpoint of this project")
    if not (isinstance(config, dict) and isinstance(config.get("class_path"), str)):
        raise CheckpointError(f"{path} does not say which network it holds")
    return {"class_path": config["class_path"], "init_args": _arguments(config, path)}, _state(content, prefix, path)


def _arguments(config: dict[str, Any], path: Path) -> dict[str, Any]:
    arguments = {} if config.get("init_args") is None else config["init_args"]
    if not (isinstance(arguments, dict) and all(isinstance(name, str) for name in arguments)):
        raise CheckpointError(f"{path} does not say by name what its network is built with")
    try:
        _plain(arguments)
    except (TypeError, OverflowError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise CheckpointError(f"{path} names arguments of its network that are not plain: {reason}") from error
    return dict(arguments)


def _state(content: dict[str, Any], prefix: str, path: Path) -> dict[str, torch.Tensor]:
    state = content.get("state_dict")
    if not (isinstance(state, dict) and all(isinstance(name, str) for name in state)):
        raise CheckpointError(f"{path} holds no weights by name")
    state = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if wrong := [name for name, tensor in state.items() if not isinstance(tensor, torch.Tensor)]:
        raise CheckpointError(f"{path} holds a {type(state[wrong[0]]).__name__} as weight {wrong[0]}")
    return state


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
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > path.stat().st_size:
        raise CheckpointError(f"{path} is damaged: it is smaller than the weights that it names")
    method, class_name = parts.groups()
    try:
        network_class = getattr(importlib.import_module(f"modules.{method}.nets"), class_name)
        if not (isinstance(network_class, type) and issubclass(network_class, ConfiguredNetwork)):
            raise TypeError("it is no network that a codec can tell from others")
        _see_that_it_fits(network_class, config["init_args"], state)
        network = network_class(**config["init_args"])
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except Exception as error:  # a stranger's arguments make a constructor raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path} does not fit {config['class_path']}: {reason}") from error
    return NetworkFile(method, network.eval())


def take_weights(network: ConfiguredNetwork, path: str) -> None:
    """Put the weights of a file that ``load_network`` reads into a network of the same class and arguments.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it holds something else, or another network.
    """
    found, name = load_network(Path(path)).network, type(network).__name__
    if type(found) is not type(network):
        raise CheckpointError(f"{path} holds a {type(found).__name__}: give weights or a checkpoint of a {name}")
    if found.init_args != network.init_args:
        ours, theirs = network.init_args, found.init_args
        unlike = [key for key in sorted({*ours, *theirs}) if ours.get(key) != theirs.get(key)]
        said = ", ".join(f"{key} {theirs.get(key)}, not {ours.get(key)}" for key in unlike)
        raise CheckpointError(f"the {name} in {path} is another network than the config's ({said}): make them equal")
    network.load_state_dict(found.state_dict())


def _see_that_it_fits(
    network_class: type[ConfiguredNetwork], arguments: dict[str, Any], state: dict[str, torch.Tensor]
) -> None:
    """Build without memory first: what a few words of a file ask for may be larger than the machine.

    Raises:
        ValueError: unless the network has just the names and shapes of ``state``.
    """
    if large := {name: value for name, value in arguments.items() if isinstance(value, int) and value > MAX_ARGUMENT}:
        raise ValueError(f"its arguments {large} are more than {MAX_ARGUMENT}")
    with torch.device("meta"), at_most(10 * len(state) + 100):
        network = network_class(**arguments)
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    if differences := sorted(shapes.items() ^ found.items()):
        name = differences[0][0]
        raise ValueError(f"weight {name} is {found.get(name, 'missing')}, not {shapes.get(name, 'known')}")
    if not state:
        raise ValueError("there are no weights")


@contextlib.contextmanager
def at_most(parameters: int) -> Iterator[None]:
    """Networks that are built meanwhile may not register more; a stack of a billion layers would never end."""
    count = itertools.count(1)

    def counted(*_: Any) -> None:
        if next(count) > parameters:
            raise ValueError("it would have many more weights than the file")

    handle = register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()
