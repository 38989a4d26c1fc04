"""The file of a collapsed network: ternary matrices at 1.6 or 2 bits a weight, everything else as float32.

All integers little endian::

    magic           4  "PSTN"
    version         1  1
    base            1  3: five weights in a byte, 2: four
    body length     8  bytes that follow, checksum excluded
    header length   4
    header          n  JSON: {"network": {"class_path", "init_args"}, "entries": [[name, kind, shape], ...]}; a kind is
                       ternary or real
    entries            one after the other
    checksum        8  BLAKE2b of everything before

``unpack`` trusts nothing: every length is checked against the bytes that are there before anything is allocated. Only
classes of modules/strassen/nets.py are built from a file, without memory, and the file's tensors put into them.
"""

import copy
import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from modules.components.checkpoint_file import CheckpointError
from modules.components.coding.container import CorruptFileError, digest
from modules.components.coding.model_file import at_most, read_network_config
from modules.strassen import nets
from modules.strassen.collapse import collapse
from modules.strassen.conversion import SPNNetwork
from modules.strassen.packing import PER_BYTE, pack_ternary, packed_size, unpack_ternary

MAGIC, VERSION = b"PSTN", 1
START, CHECKSUM = 14, 8
MAX_HEADER = 1 << 24
MAX_DIMENSIONS = 5
PREFIX = "modules.strassen.nets."


class PackedNetwork(NamedTuple):
    """Content of a file."""

    network: dict[str, Any]
    """``class_path`` and ``init_args`` of the network before its collapse."""
    state: dict[str, Tensor]
    """Of the collapsed network: int8 and float32."""


def pack(content: PackedNetwork, base: int = 3) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: for another base than 2 or 3, or an int8 tensor that is not ternary.
    """
    if base not in PER_BYTE:
        raise ValueError(f"base must be 2 (four weights in a byte) or 3 (five), got {base}")
    entries, parts = [], []
    for name, tensor in content.state.items():
        kind = "ternary" if tensor.dtype == torch.int8 else "real"
        entries.append([name, kind, list(tensor.shape)])
        array = tensor.cpu().contiguous().numpy()
        parts.append(pack_ternary(array, base) if kind == "ternary" else array.astype("<f4").tobytes())
    header = json.dumps({"network": content.network, "entries": entries}).encode()
    body = struct.pack("<I", len(header)) + header + b"".join(parts)
    file = MAGIC + struct.pack("<BBQ", VERSION, base, len(body)) + body
    return file + digest(file)


def unpack(file: bytes) -> PackedNetwork:
    """The content of a file.

    Raises:
        CorruptFileError: if it is of another kind or version, cut short, altered or inconsistent.
    """
    if file[:4] != MAGIC:
        raise CorruptFileError("not a packed ternary network (it does not start with PSTN)")
    if len(file) < START + CHECKSUM:
        raise CorruptFileError("the file is cut short")
    version, base, length = struct.unpack("<BBQ", file[4:START])
    if version != VERSION:
        raise CorruptFileError(f"format version {version}; this program reads version {VERSION}")
    if length != len(file) - START - CHECKSUM:
        raise CorruptFileError(f"the file holds {len(file)} bytes, not {length + START + CHECKSUM}: cut or appended")
    if digest(memoryview(file)[:-CHECKSUM]) != file[-CHECKSUM:]:
        raise CorruptFileError("the checksum does not match: the file was altered or damaged")
    return unpack_body(memoryview(file)[START:-CHECKSUM], base)


def unpack_body(body: memoryview, base: int) -> PackedNetwork:
    if base not in PER_BYTE or len(body) < 4:
        raise CorruptFileError("an unknown base, or no header")
    length = struct.unpack("<I", body[:4])[0]
    if length > min(MAX_HEADER, len(body) - 4):
        raise CorruptFileError("the header is longer than the file or than 16 MiB")
    try:
        header = json.loads(bytes(body[4 : 4 + length]))
        network = {
            "class_path": str(header["network"]["class_path"]),
            "init_args": dict(header["network"]["init_args"]),
        }
        entries = [(str(name), str(kind), tuple(shape)) for name, kind, shape in header["entries"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError("the header does not say what the file holds") from error
    rest, state = body[4 + length :], {}
    for name, kind, shape in entries:
        state[name], used = read_entry(rest, kind, shape, base, name)
        rest = rest[used:]
    if len(rest) or len(state) != len(entries):
        raise CorruptFileError("bytes are left after the last entry, or a name occurs twice")
    return PackedNetwork(network, state)


def read_entry(data: memoryview, kind: str, shape: tuple[Any, ...], base: int, name: str) -> tuple[Tensor, int]:
    """A tensor off the front of ``data``, and how many bytes it takes."""
    is_shape = len(shape) <= MAX_DIMENSIONS and all(type(size) is int and 0 < size < 1 << 32 for size in shape)
    if not is_shape or kind not in ("ternary", "real"):
        raise CorruptFileError(f"{name} has an impossible shape or kind")
    count = math.prod(shape)
    used = packed_size(count, base) if kind == "ternary" else 4 * count
    if used > len(data):
        raise CorruptFileError(f"{name} is longer than the file")
    if kind == "real":
        return torch.from_numpy(np.frombuffer(data[:used], "<f4").astype(np.float32)).view(shape), used
    try:
        return torch.from_numpy(unpack_ternary(bytes(data[:used]), count, base)).view(shape), used
    except ValueError as error:
        raise CorruptFileError(f"{name}: {error}") from error


def save_packed(path: Path, network: SPNNetwork, config: dict[str, Any], base: int = 3) -> int:
    """Collapse and write a trained network; returns the number of bytes.

    Args:
        path: of the file.
        network: in the stage ``quantized`` or ``frozen``.
        config: ``class_path`` and ``init_args`` that build it.
        base: 3 for 1.6 bits a weight, 2 for 2 bits.
    """
    file = pack(PackedNetwork(config, collapse(network).state_dict()), base)
    path.write_bytes(file)
    return len(file)


def build(network: dict[str, Any]) -> nn.Module:
    """A network of modules/strassen/nets.py by its ``class_path`` and ``init_args``, with weights of no meaning.

    Raises:
        CorruptFileError: if it is no such network, or cannot be built.
    """
    name = network["class_path"].removeprefix(PREFIX)
    made = getattr(nets, name, None) if network["class_path"] == PREFIX + name else None
    if not (isinstance(made, type) and issubclass(made, nn.Module) and made.__module__ == nets.__name__):
        raise CorruptFileError(f"{network['class_path']} is no network of {PREFIX[:-1]}: pass your own network")
    try:
        return made(**network["init_args"])
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last two from impossible sizes
        raise CorruptFileError(f"{name} cannot be built from its arguments: {' '.join(str(error).split())}") from error


def build_empty(network: dict[str, Any], tensors: int) -> nn.Module:
    """The same on the device ``meta``: sizes without numbers, and a ValueError where it has many more tensors.

    A few words of a file may ask for more than the machine has.
    """
    with torch.device("meta"), at_most(10 * tensors + 100):
        return build(network)


def forms(state: dict[str, Tensor]) -> dict[str, tuple[tuple[int, ...], bool]]:
    """Shape of each tensor, and whether it is ternary; not of the stages, which a file holds as real numbers."""
    return {
        name: (tuple(tensor.shape), tensor.dtype == torch.int8)
        for name, tensor in state.items()
        if not name.endswith("_extra_state")
    }


def trained_network(checkpoint: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network of a checkpoint of this method, in evaluation mode, and its ``class_path`` and ``init_args``.

    Raises:
        FileNotFoundError, ValueError: if it cannot be read or holds another network.
    """
    config, state = read_network_config(checkpoint)
    empty = build_empty(config, len(state))
    if forms(empty.state_dict()) != forms(state):
        raise CheckpointError(f"{checkpoint} does not fit its own {type(empty).__name__}")
    network = build(config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint} does not fit its own {type(network).__name__}") from error
    return network.eval(), config


def load_packed(path: Path, network: SPNNetwork | None = None) -> nn.Module:
    """The collapsed network of a file, in evaluation mode.

    Args:
        path: of the file.
        network: a converted network of the same form, for those that are not of modules/strassen/nets.py.

    Raises:
        FileNotFoundError: if there is no such file.
        CorruptFileError: if it is damaged or does not fit the network.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    content = unpack(path.read_bytes())
    skeleton = build_empty(content.network, len(content.state)) if network is None else network
    if not isinstance(skeleton, SPNNetwork):
        raise CorruptFileError(f"{path} names a {type(skeleton).__name__}, which has no SPN layers")
    if skeleton.stage == "full":
        skeleton = copy.deepcopy(skeleton)
        skeleton.stage = "quantized"
    model = collapse(skeleton)
    try:
        if forms(model.state_dict()) != forms(content.state):
            raise ValueError("other names, shapes or kinds")
        model.load_state_dict(content.state, assign=network is None)
    except (RuntimeError, ValueError) as error:
        raise CorruptFileError(f"{path} does not fit a {type(skeleton).__name__}") from error
    return model
