"""Files of PixelMLP under one setting of the machine, decoded and written again under others: bytes and pixels equal?

    python benchmarks/exact_files.py data/photos/validation [--crops 1000] [--size 24] [--quick]

Crops of photographs are compressed once under the default setting. Then, in a process of its own for each setting,
every file is decoded and compared with its crop, every crop is compressed again and the bytes are compared, and the
mixtures of the network in torch (the estimate, and the code for a GPU) are compared by a hash of all their numbers.
Settings: threads, the instruction sets that oneDNN, MKL, PyTorch, OpenBLAS (the kernel's matrix product) and numba may
use, oneDNN off, channels_last images, float64.
"""

import argparse
import hashlib
import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.coding.container import pack, unpack
from modules.components.files.images import SUFFIXES, read_exact
from modules.pixel_mlp.context import contexts, pad

SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "oneDNN SSE41": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN off": {"EXACT_ONEDNN": "off"},
    "MKL SSE4.2, PyTorch without vectors": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "ATEN_CPU_CAPABILITY": "default"},
    "OpenBLAS Nehalem (SSE4.2)": {"OPENBLAS_CORETYPE": "Nehalem"},
    "OpenBLAS Haswell (AVX2)": {"OPENBLAS_CORETYPE": "Haswell"},
    "numba for any x86-64": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "channels_last": {"EXACT_FORMAT": "channels_last"},
    "float64": {"EXACT_TYPE": "float64"},
}
BATCH = 100


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
def mixtures_hash(network: torch.nn.Module, crops: np.ndarray) -> str:
    """Of every logit, mean and log scale, under the dtype and memory format of this process."""
    wide = os.environ.get("EXACT_TYPE") == "float64"
    network = network.double() if wide else network
    sha = hashlib.sha256()
    for start in range(0, len(crops), BATCH):
        image = torch.from_numpy(crops[start : start + BATCH]).permute(0, 3, 1, 2)
        last = os.environ.get("EXACT_FORMAT") == "channels_last"
        known = contexts(pad(image.contiguous(memory_format=[torch.contiguous_format, torch.channels_last][last])))
        if wide:
            known = [type(c)(*(field.double() for field in c)) for c in known]
        for mixture in network(known):
            for field in mixture:
                sha.update(field.double().contiguous().numpy().tobytes())
    return sha.hexdigest()


def work(crops: np.ndarray, files: list[bytes]) -> dict[str, int | str]:
    """One setting: how many files differ and how many decode to other pixels."""
    torch.backends.mkldnn.enabled = os.environ.get("EXACT_ONEDNN") != "off"
    codec = load_codec(shipped_models()[DEFAULT_MODEL])
    wrong = sum(not np.array_equal(codec.decompress(unpack(f)), c) for f, c in zip(files, crops, strict=True))
    other = sum(pack(codec.compress(crop)) != file for crop, file in zip(crops, files, strict=True))
    return {"wrong": wrong, "other": other, "mixtures": mixtures_hash(codec.network, crops)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--size", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="20 crops")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(work(*pickle.loads(arguments.worker.read_bytes()))))
        return
    codec = load_codec(shipped_models()[DEFAULT_MODEL])
    crops = crops_of(arguments.folder, 20 if arguments.quick else arguments.crops, arguments.size)
    files = [pack(codec.compress(crop)) for crop in crops]
    expected = mixtures_hash(codec.network, crops)
    table = Table("setting", "wrong pixels", "other bytes", "mixtures", title=f"{len(crops)} crops")
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "job"
        job.write_bytes(pickle.dumps((crops, files)))
        for name, setting in SETTINGS.items():
            command = [sys.executable, __file__, str(arguments.folder), "--worker", str(job)]
            result = subprocess.run(command, env=os.environ | setting, capture_output=True, text=True, check=True)
            found = json.loads(result.stdout.splitlines()[-1])
            equal = found["mixtures"] == expected
            failures += found["wrong"] + found["other"] + (not equal)
            table.add_row(name, str(found["wrong"]), str(found["other"]), "equal" if equal else "DIFFERENT")
    Console(width=110).print(table)
    print(f"ratio failures {failures}")


if __name__ == "__main__":
    main()
