"""CPM's files under one setting of the machine, decoded and written again under others: symbols and bytes equal?

    python benchmarks/cpm_exactness.py data/kodak --checkpoint last.ckpt [--quick]

The images are encoded once; these symbols are what has to come back. Then a process of its own for each setting codes
them again, compares the bytes, decodes the first files and compares the symbols. Settings: the instruction sets of
oneDNN, MKL, PyTorch, OpenBLAS (the decoder's matrix products) and numba (its kernel), oneDNN off, threads, one channel
in a pass of the context model and several images in one.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codec import load_codec
from modules.components.coding.rans import CorruptStreamError, encode_intervals
from modules.components.files.images import SUFFIXES, read_exact
from modules.cpm import exact_context
from modules.cpm.exact_context import ExactContext, intervals, intervals_of, logits
from modules.cpm.incremental import decode
from modules.cpm.nets import REACH

IMAGES_AT_ONCE = 6


class Setting(NamedTuple):
    environment: dict[str, str] | None = None
    threads: int = 1
    onednn: bool = True
    one_channel: bool = False
    """In a pass, and not as many as the codec takes."""
    images: int = 1
    """In a pass, which the codec itself never does."""


SETTINGS = {
    "default": Setting(),
    "oneDNN: SSE 4.1": Setting({"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    "oneDNN: AVX2": Setting({"ONEDNN_MAX_CPU_ISA": "AVX2"}),
    "oneDNN off": Setting(onednn=False),
    "2 threads": Setting(threads=2),
    "SSE 4 in oneDNN, MKL, PyTorch, OpenBLAS": Setting(
        {
            "ONEDNN_MAX_CPU_ISA": "SSE41",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "ATEN_CPU_CAPABILITY": "default",
            "OPENBLAS_CORETYPE": "Nehalem",
        }
    ),
    "kernels for any x86-64": Setting({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}),
    "one channel in a pass": Setting(one_channel=True),
    f"{IMAGES_AT_ONCE} images in a pass": Setting(images=IMAGES_AT_ONCE),
}


class Found(NamedTuple):
    wrong: int
    """Files that decode to other symbols."""
    other: int
    """Images whose symbols become other bytes."""


def together(context: ExactContext, images: list[np.ndarray]) -> list[np.ndarray]:
    """Logits [K, h, w, L] of images of one shape, whose volumes follow each other along the channels of one pass."""
    channels, height, width = images[0].shape
    shape = channels + REACH, height + 2 * REACH, width + 2 * REACH
    volumes = []
    for symbols in images:
        volume = context.centers[:1].expand(shape).clone()
        volume[REACH:, REACH:-REACH, REACH:-REACH] = context.centers[torch.from_numpy(symbols.astype(np.int64))]
        volumes.append(volume)
    found = logits(context, torch.cat(volumes)).long().numpy()
    return [found[start : start + channels] for start in range(0, len(found), channels + REACH)]


def in_groups(images: list[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """In their order, those of one shape beside each other together."""
    group: list[np.ndarray] = []
    for symbols in images:
        if group and (len(group) == size or symbols.shape != group[0].shape):
            yield group
            group = []
        group.append(symbols)
    yield group


def comes_back(stream: bytes, symbols: np.ndarray, context: ExactContext) -> bool:
    try:
        return np.array_equal(decode(stream, symbols.shape, context), symbols)  # type: ignore[arg-type]
    except CorruptStreamError:
        return False


def coded(context: ExactContext, images: list[np.ndarray], setting: Setting) -> Iterator[bytes]:
    """The stream of each image."""
    if setting.images == 1:
        yield from (encode_intervals(*intervals(context, symbols)) for symbols in images)
        return
    for group in in_groups(images, setting.images):
        for scores, symbols in zip(together(context, group), group, strict=True):
            yield encode_intervals(*intervals_of(scores, symbols))


def check(context: ExactContext, images: list[np.ndarray], streams: list[bytes], setting: Setting) -> Found:
    """What this process makes of symbols, and of streams that another one wrote."""
    if setting.one_channel:
        exact_context.VALUES_AT_ONCE = 1
    wrong = sum(not comes_back(f, s, context) for f, s in zip(streams, images, strict=True))
    return Found(wrong, sum(a != b for a, b in zip(coded(context, images, setting), streams, strict=True)))


def work(checkpoint: Path, job: Path, name: str) -> None:
    setting = SETTINGS[name]
    torch.set_num_threads(setting.threads)
    with np.load(job) as content:
        count = len(content.files) // 2
        images = [content[f"symbols{i}"] for i in range(count)]
        streams = [content[f"stream{i}"].tobytes() for i in range(count)]
    with torch.backends.mkldnn.flags(enabled=setting.onednn):
        print(json.dumps(check(load_codec(checkpoint).context, images, streams, setting)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of photographs")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of a CPM")
    parser.add_argument("--quick", action="store_true", help="one image")
    parser.add_argument("--worker", nargs=2, metavar=("JOB", "SETTING"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments.checkpoint, Path(arguments.worker[0]), arguments.worker[1])
        return
    torch.set_num_threads(1)
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    codec = load_codec(arguments.checkpoint)
    containers = [codec.compress(read_exact(path).pixels) for path in paths[: 1 if arguments.quick else None]]
    streams = [container.tiles[0].payload for container in containers]
    images = [codec.read(container) for container in containers]
    title = f"{len(images)} images, {sum(s.size for s in images):,} symbols, {sum(map(len, streams)):,} bytes"
    table = Table("setting", "other symbols", "other bytes", title=title)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job.npz"
        numbered = [(f"symbols{i}", s) for i, s in enumerate(images)]
        numbered += [(f"stream{i}", np.frombuffer(s, np.uint8)) for i, s in enumerate(streams)]
        np.savez(job, **dict(numbered))
        command = [sys.executable, __file__, str(arguments.folder), "--checkpoint", str(arguments.checkpoint)]
        for name, setting in SETTINGS.items():
            environment = os.environ | (setting.environment or {})
            call = [*command, "--worker", str(job), name]
            result = subprocess.run(call, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found = Found(*json.loads(result.stdout.splitlines()[-1]))
            failures += sum(found)
            table.add_row(name, *map(str, found))
    Console(width=110).print(table)
    print(f"ratio failures {failures}")


if __name__ == "__main__":
    main()
