"""Lossless files of a folder, all tiles at once on a device, beside one tile after another on this machine's CPU.

    python benchmarks/lossless_device.py data/kodak --device cuda [--copies 4] [--quick]

Bytes must be equal, and every file is decoded both ways. Megabytes are those of the pixels; seconds are wall-clock
seconds, the stored WebP that every tile is compared with included, and beside them without it: streams alone.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.coding.container import pack
from modules.components.devices import usable_device
from modules.components.files.images import SUFFIXES, read_exact
from modules.pixel_mlp import codec as codec_file
from modules.pixel_mlp.batched import BatchCoder


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Result and seconds; results are on the CPU, so nothing is still under way."""
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda", help="cpu takes the tensors there too, to try this program")
    parser.add_argument("--copies", type=int, default=1, help="of the folder, coded together")
    parser.add_argument("--quick", action="store_true", help="the upper left 96x64 of two images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    on_cpu = load_codec(shipped_models()[DEFAULT_MODEL])
    on_device = load_codec(shipped_models()[DEFAULT_MODEL])
    on_device.batched = BatchCoder(on_device.network, usable_device(arguments.device))
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    images = [read_exact(path).pixels for path in (paths[:2] if arguments.quick else paths)]
    if arguments.quick:
        images = [image[:64, :96] for image in images]
    together = images * arguments.copies
    megabytes = sum(image.size for image in images) / 1e6
    for codec in (on_cpu, on_device):  # compile kernels, start the device
        codec.decompress(codec.compress(images[0][:32, :32]))
    table = Table(
        "", "encode, MB/s", "streams alone", "decode, MB/s", title=f"{len(images)} images, {megabytes:.1f} MB"
    )
    files, rates = {}, {}
    for name, codec, work in (("CPU, one thread", on_cpu, images), (arguments.device, on_device, together)):
        size = megabytes * len(work) / len(images)
        containers, encode = timed(lambda codec=codec, work=work: codec.compress_all(work))
        decoded, decode = timed(lambda codec=codec, containers=containers: codec.decompress_all(containers))
        if not all(np.array_equal(a, b) for a, b in zip(decoded, work, strict=True)):
            raise RuntimeError(f"pixels did not come back from {name}")
        store, codec_file.store = codec_file.store, lambda pixels, rival: bytes(rival)
        try:
            _, streams = timed(lambda codec=codec, work=work: codec.compress_all(work))
        finally:
            codec_file.store = store
        table.add_row(name, *(f"{size / seconds:.2f}" for seconds in (encode, streams, decode)))
        files[name], rates[name] = [pack(container) for container in containers], size / decode
    first, second = files
    if files[first] * arguments.copies != files[second]:
        raise RuntimeError(f"the bytes of {second} are not those of the CPU")
    Console(width=100).print(table)
    print(f"ratio decode_of_{arguments.device}_over_one_core {rates[second] / rates[first]:.2f}")


if __name__ == "__main__":
    main()
