"""Files of PixelMLP under one setting of the machine, decoded and written again under others: bytes and pixels equal?

    python benchmarks/exact_files.py data/photos/validation [--crops 1000] [--size 24] [--quick]

Crops of photographs are compressed once under the default setting. Then, under every other one, each file is decoded
and compared with its crop, each crop is compressed again and the bytes are compared, and the mixtures of the network in
torch (the estimate, and what a GPU would compute) are compared by a hash of all their numbers. Settings: threads, the
instruction sets of oneDNN, MKL, PyTorch, OpenBLAS (the kernel's matrix product) and numba, oneDNN off, the tensors that
a GPU computes with, memory format, float64. What the kernels do not know, dtype and memory format, is a setting of the
network in torch only.
"""

import argparse
import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.coding.container import pack, unpack
from modules.components.files.images import SUFFIXES, read_exact
from modules.pixel_mlp.batched import BatchCoder
from modules.pixel_mlp.context import contexts, pad

PROCESSES: dict[str, dict[str, str]] = {
    "SSE4: oneDNN, MKL, PyTorch, OpenBLAS": {
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "AVX2: oneDNN, MKL, PyTorch, OpenBLAS": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "kernels for any x86-64": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
}
"""Environments of processes of their own."""
BATCH = 100


class Result(NamedTuple):
    wrong: int | None
    """Files that decode to other pixels."""
    other: int | None
    """Crops whose files have other bytes."""
    mixtures: str
    """Hash of the network's numbers in torch."""


def crops_of(folder: Path, number: int, size: int) -> np.ndarray:
    """uint8 [number, size, size, 3] at random places of the folder's images, in turn."""
    random = np.random.default_rng(0)
    images = [read_exact(path).pixels for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    images = [image for image in images if image.ndim == 3 and min(image.shape[:2]) >= size]
    result = []
    for i in range(number):
        image = images[i % len(images)]
        y, x = (int(random.integers(side - size + 1)) for side in image.shape[:2])
        result.append(image[y : y + size, x : x + size])
    return np.stack(result)


@torch.inference_mode()
def mixtures_hash(network: torch.nn.Module, crops: np.ndarray, dtype: torch.dtype, layout: torch.memory_format) -> str:
    """Of every logit, mean and log scale."""
    sha = hashlib.sha256()
    for start in range(0, len(crops), BATCH):
        image = torch.from_numpy(crops[start : start + BATCH]).permute(0, 3, 1, 2).contiguous(memory_format=layout)
        known = [type(c)(*(field.to(dtype) for field in c)) for c in contexts(pad(image))]
        for mixture in network.to(dtype)(known):
            for field in mixture:
                sha.update(field.double().contiguous().numpy().tobytes())
    network.float()
    return sha.hexdigest()


def check(codec: Any, crops: np.ndarray, files: list[bytes]) -> Result:
    """What this process makes of files that another one, or another setting, wrote."""
    wrong = sum(not np.array_equal(codec.decompress(unpack(f)), c) for f, c in zip(files, crops, strict=True))
    other = sum(pack(codec.compress(crop)) != file for crop, file in zip(crops, files, strict=True))
    return Result(wrong, other, mixtures_hash(codec.network, crops, torch.float32, torch.contiguous_format))


def check_tensors(codec: Any, crops: np.ndarray, files: list[bytes]) -> Result:
    """``check`` of what a GPU would do, all crops together."""
    codec.batched = BatchCoder(codec.network, torch.device("cpu"))
    decoded = codec.decompress_all([unpack(file) for file in files])
    wrong = sum(not np.array_equal(a, b) for a, b in zip(decoded, crops, strict=True))
    other = sum(pack(container) != file for container, file in zip(codec.compress_all(crops), files, strict=True))
    codec.batched = None
    return Result(wrong, other, mixtures_hash(codec.network, crops, torch.float32, torch.contiguous_format))


def in_this_process(codec: Any, crops: np.ndarray, files: list[bytes]) -> Iterator[tuple[str, Result]]:
    torch.set_num_threads(2)
    yield "2 threads", check(codec, crops, files)
    torch.set_num_threads(1)
    with torch.backends.mkldnn.flags(enabled=False):
        yield "oneDNN off", check(codec, crops, files)
    yield "tensors of batched.py", check_tensors(codec, crops, files)
    # The kernels know neither dtype nor memory format: they are settings of the network in torch only.
    yield "float64", Result(None, None, mixtures_hash(codec.network, crops, torch.float64, torch.contiguous_format))
    yield "channels_last", Result(None, None, mixtures_hash(codec.network, crops, torch.float32, torch.channels_last))


def in_other_processes(folder: Path, crops: np.ndarray, files: list[bytes]) -> Iterator[tuple[str, Result]]:
    with tempfile.TemporaryDirectory() as place:
        job = Path(place) / "job"
        job.write_bytes(pickle.dumps((crops, files)))
        for name, setting in PROCESSES.items():
            command = [sys.executable, __file__, str(folder), "--worker", str(job)]
            result = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True, check=True)
            yield name, Result(*json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--size", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="20 crops")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    codec = load_codec(shipped_models()[DEFAULT_MODEL])
    if arguments.worker:
        print(json.dumps(check(codec, *pickle.loads(arguments.worker.read_bytes()))))
        return
    torch.set_num_threads(1)
    crops = crops_of(arguments.folder, 20 if arguments.quick else arguments.crops, arguments.size)
    files = [pack(codec.compress(crop)) for crop in crops]
    expected = mixtures_hash(codec.network, crops, torch.float32, torch.contiguous_format)
    table = Table("setting", "wrong pixels", "other bytes", "mixtures", title=f"{len(crops)} crops")
    failures = 0
    settings = in_this_process(codec, crops, files), in_other_processes(arguments.folder, crops, files)
    for name, found in itertools.chain(*settings):
        equal = found.mixtures == expected
        failures += (found.wrong or 0) + (found.other or 0) + (not equal)
        table.add_row(name, *("-" if n is None else str(n) for n in found[:2]), "equal" if equal else "DIFFERENT")
    Console(width=110).print(table)
    print(f"ratio failures {failures}")


if __name__ == "__main__":
    main()
