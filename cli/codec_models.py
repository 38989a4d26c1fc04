"""Which trained network a command of codec.py uses: a checkpoint, or the weights that are shipped."""

import argparse
import functools
import importlib
from pathlib import Path
from typing import Any

from modules.components.checkpoint_file import CheckpointError
from modules.components.coding.container import CorruptFileError
from modules.components.coding.model_file import load_network

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
DEFAULT_MODEL = "pixel_mlp"


def load_codec(path: Path, **options: Any) -> Any:
    """The codec of a weights file or checkpoint.

    Raises:
        FileNotFoundError, CheckpointError: if it cannot be loaded or its method has no codec.
    """
    method, network = load_network(path)
    try:
        codec_class = importlib.import_module(f"modules.{method}.codec").Codec
    except ImportError as error:
        raise CheckpointError(f"{path}: the method {method} has no codec") from error
    return codec_class(network, **options)


def shipped_models() -> dict[str, Path]:
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.pt"))}


def chosen_model(arguments: argparse.Namespace) -> Path:
    """Path of --checkpoint, of --model, or of the default.

    Raises:
        FileNotFoundError: naming the models there are.
    """
    if arguments.checkpoint:
        return arguments.checkpoint
    models = shipped_models()
    name = arguments.model or DEFAULT_MODEL
    if name not in models:
        raise FileNotFoundError(f"no model {name!r} in {WEIGHTS}; there are: {', '.join(models) or 'none'}")
    return models[name]


def candidate_models(arguments: argparse.Namespace) -> tuple[Path, ...]:
    return (arguments.checkpoint,) if arguments.checkpoint else tuple(shipped_models().values())


@functools.cache
def codec_of(path: Path, device: str, precision: str = "float32") -> Any:
    return load_codec(path, device=device, precision=precision)


@functools.cache
def codec_for_file(fingerprint: bytes, candidates: tuple[Path, ...], device: str) -> Any:
    """The codec whose fingerprint the file carries.

    Raises:
        CorruptFileError: if none of the candidates is the one.
    """
    for path in candidates:
        codec = codec_of(path, device)
        if codec.fingerprint == fingerprint:
            return codec
    names = ", ".join(path.stem for path in candidates) or "none"
    raise CorruptFileError(
        f"the file was written by model {fingerprint.hex()}, which is none of: {names}; name its checkpoint "
        "with --checkpoint"
    )
