"""Classify or segment files that codec.py wrote, without building encoder or decoder.

    python -m modules.compressed_domain.predict FILE... --checkpoint BEST.ckpt --output FOLDER

FILE is a compressed file or a folder, searched for .cdom. The checkpoint is one of a network on codes (stages 2 to 4).
For each file FOLDER gets ``<name>.json`` (class, probabilities) or ``<name>.png`` (8-bit label map of the image's
size). A file that cannot be used is one line on stderr; the exit code is then 1. What exists is overwritten only with
--force.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.coding.container import unpack
from modules.components.files.png import png_bytes
from modules.components.files.whole_files import write_whole
from modules.compressed_domain.checkpoints import PREFIXES, Codebook, read_codebook
from modules.compressed_domain.codec import Codec, read_code
from modules.compressed_domain.losses import IGNORE
from modules.compressed_domain.nets import CodeResNet, CodeResNetD

MAX_FILE = 1 << 28
"""Bytes of a compressed file."""
MAX_ARGUMENT = 1 << 16
"""Largest size of anything in a network that a checkpoint describes."""
Network = CodeResNet | CodeResNetD


def load_reader(path: Path) -> tuple[Network, Codebook]:
    """The network of a checkpoint, in eval mode on the CPU, and what it has to know of the codec.

    Raises:
        FileNotFoundError: if there is no such file.
        CheckpointError: if it holds no network on codes, or cannot be read safely.
    """
    content = read_checkpoint(path)
    settings, state = content.get("hyper_parameters"), content.get("state_dict")
    if not (isinstance(settings, dict) and isinstance(state, dict)):
        raise CheckpointError(f"{path} is no checkpoint of this method")
    for prefix in PREFIXES[::-1]:  # of stage 4, "network" is the codec
        described = settings.get(prefix.removesuffix("."))
        if isinstance(described, dict) and any(str(name).startswith(f"{prefix}features.") for name in state):
            weights = {n.removeprefix(prefix): v for n, v in state.items() if str(n).startswith(prefix)}
            network, codebook = build(described, weights, path), read_codebook(content, path)
            if network.channels != codebook.channels:
                raise CheckpointError(f"{path} is damaged: its network takes other channels than its codec has")
            return network, codebook
    raise CheckpointError(f"{path} holds no network that classifies or segments: give a run of stages 2 to 4")


def build(described: dict[str, Any], weights: dict[str, Any], path: Path) -> Network:
    """The network that hyper-parameters describe; only ``CodeResNet`` and ``CodeResNetD`` are built.

    Raises:
        CheckpointError: for another class, or weights that do not fit it.
    """
    allowed = {f"modules.compressed_domain.nets.{c.__name__}": c for c in (CodeResNet, CodeResNetD)}
    name, options = str(described.get("class_path")), described.get("init_args") or {}
    if name not in allowed:
        raise CheckpointError(f"{path} holds a {name.rpartition('.')[2]}, which does not read codes: decode the files")
    try:
        if large := [v for v in options.values() if isinstance(v, int) and v > MAX_ARGUMENT]:
            raise ValueError(f"its argument {large[0]} is more than {MAX_ARGUMENT}")
        if allowed[name] is CodeResNetD and (classes := int(options.get("num_classes", 0))) > IGNORE:
            raise ValueError(f"an 8-bit label map holds {IGNORE} classes, not {classes}")
        with torch.device("meta"):  # what a few words of a file ask for may be larger than the machine
            network: Network = allowed[name](**options)
        network.load_state_dict(weights, assign=True)
        if odd := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise ValueError(f"weight {odd[0]} is not finite")
    except Exception as error:  # a stranger's arguments make a constructor raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path} does not fit {name}: {reason}") from error
    return network.float().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def read_values(path: Path, codebook: Codebook) -> tuple[Tensor, int, int]:
    """Centre values [1, C, h, w] of a compressed file, and the image's height and width.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is too large, damaged, or another codec wrote it.
    """
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"more than {MAX_FILE >> 20} MiB")
    if not path.is_file():
        raise ValueError("not a regular file")
    container = unpack(path.read_bytes())
    symbols = read_code(container, codebook.model, codebook.channels, len(codebook.centers))
    return codebook.centers[torch.from_numpy(symbols)][None], container.height, container.width


@torch.inference_mode()
def result_of(path: Path, network: nn.Module, codebook: Codebook, names: list[str]) -> tuple[str, bytes]:
    """The line to print and the content of the result of one file."""
    values, height, width = read_values(path, codebook)
    logits = network(values.contiguous(memory_format=torch.channels_last))
    if isinstance(network, CodeResNetD):
        labels = logits[0, :, :height, :width].argmax(0)
        found = labels.unique(return_counts=True)
        shares = sorted(zip(*(part.tolist() for part in found), strict=True), key=lambda pair: -pair[1])
        told = ", ".join(f"{name_of(label, names)} {count / labels.numel():.1%}" for label, count in shares[:3])
        return told, png_bytes(labels.to(torch.uint8).numpy(), {})
    probabilities = logits[0].softmax(0).tolist()
    best = max(range(len(probabilities)), key=probabilities.__getitem__)
    summary = {
        "file": path.name,
        "class": name_of(best, names),
        "probabilities": {name_of(k, names): p for k, p in enumerate(probabilities)},
    }
    told = f"{summary['class']} ({probabilities[best]:.3f})"
    return told, (json.dumps(summary, indent=2) + "\n").encode()


def name_of(label: int, names: list[str]) -> str:
    return names[label] if names else str(label)


def read_names(path: Path | None, network: Network) -> list[str]:
    """Class names, one a line; a line's first column if there are several, as tabs divide them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there are not as many as the network has classes, or one of them twice.
    """
    if path is None:
        return []
    names = [
        line.split("\t")[0].strip()
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        if line.strip()
    ]
    head = network.classifier if isinstance(network, CodeResNet) else network.head.branches[0]
    count = len(head.weight)  # type: ignore[arg-type]
    if len(names) != count:
        raise ValueError(f"{path} names {len(names)} classes, the network has {count}")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{path} names {twice[0]} twice")
    return names


def find_files(sources: list[Path]) -> list[Path]:
    """Files as named, and all .cdom files of folders.

    Raises:
        FileNotFoundError: for a folder without any.
    """
    files: list[Path] = []
    for source in sources:
        inside = sorted(source.rglob(f"*{Codec.extension}")) if source.is_dir() else [source]
        if not inside:
            raise FileNotFoundError(f"no {Codec.extension} file in {source}")
        files += inside
    return files


def predict_file(source: Path, target: Path, reader: tuple[Network, Codebook], names: list[str], force: bool) -> str:
    """Write the result of one file; the line to print.

    Raises:
        OSError, ValueError: if the file cannot be used, or the result is there.
    """
    if target.exists() and not force:
        raise FileExistsError(f"{target} exists; --force overwrites it")
    told, content = result_of(source, *reader, names)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, content)
    return told


def parse(args: list[str] | None) -> argparse.Namespace:
    program, about = "python -m modules.compressed_domain.predict", "Classify or segment files that codec.py wrote."
    parser = argparse.ArgumentParser(prog=program, description=about)
    parser.add_argument("files", nargs="+", type=Path, help="compressed files, and folders of them")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a network on codes")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder (default: %(default)s)")
    parser.add_argument("--classes", type=Path, help="file with the name of each class in a line")
    parser.add_argument("--force", action="store_true", help="overwrite existing results")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    try:
        reader = load_reader(options.checkpoint)
        names = read_names(options.classes, reader[0])
        sources = find_files(options.files)
        suffix = ".png" if isinstance(reader[0], CodeResNetD) else ".json"
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed, taken = 0, set()
    for source in sources:
        target = options.output / f"{source.stem}{suffix}"
        try:
            if target in taken:
                raise ValueError(f"another input already becomes {target}: rename it or choose another --output")
            taken.add(target)
            print(f"{source}: {predict_file(source, target, reader, names, options.force)}", flush=True)
        except (OSError, ValueError) as error:
            failed += 1
            print(f"error: {source}: {error}", file=sys.stderr, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
