"""Real files of a lossless codec beside PNG, JPEG 2000, WebP and JPEG XL on a folder of photographs.

    python benchmarks/lossless_files.py data/kodak [--model pixel_mlp | --checkpoint last.ckpt] [--quick]

Every file is decoded from its bytes and compared, the others' too (cli/lossless_bench.py, which ``codec.py bench``
uses as well). bpsp are means over images of 8 * file size / sub-pixels, seconds are CPU seconds of this process,
means over images. Beside them the estimate of the network, which files should hardly exceed; PixelMLP's
are shorter, since its histograms learn in the file.
"""

import argparse
import os
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from cli.lossless_bench import OURS, engineered, measure, ours
from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.files.images import SUFFIXES, read_exact


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--only-ours", action="store_true", help="no other codecs")
    parser.add_argument("--quick", action="store_true", help="two images, no oxipng, fast WebP")
    arguments = parser.parse_args()
    codec = load_codec(arguments.checkpoint or shipped_models()[arguments.model])
    peers = {OURS: ours(codec)} | ({} if arguments.only_ours else engineered(arguments.quick))
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    sizes: dict[str, dict[str, float]] = {}
    seconds = {name: np.zeros(2) for name in peers}
    for path in track(paths[:2] if arguments.quick else paths, "coding", console=Console(stderr=True)):
        rows = measure(path, peers)
        pixels = read_exact(path).pixels
        sizes[path.stem] = {row.codec: row.bpsp for row in rows}
        sizes[path.stem]["estimate"] = codec.estimated_bits(pixels) / pixels.size
        for row in rows:
            seconds[row.codec] += (row.encode_seconds, row.decode_seconds)

    names = [*peers, "estimate"]
    mean = {name: float(np.mean([row[name] for row in sizes.values()])) for name in names}
    table = Table("bpsp", *names, title=f"{len(sizes)} images of {arguments.folder}, all decoded to identical pixels")
    for stem, row in [*sizes.items(), ("mean", mean)]:
        table.add_row(stem, *(f"{row[name]:.3f}" for name in names))
    for i, what in enumerate(("encode, CPU s", "decode, CPU s")):
        table.add_row(what, *(f"{seconds[name][i] / len(sizes):.2f}" for name in peers), "")
    Console(width=120).print(table)
    worst = max(abs(row[OURS] / row["estimate"] - 1) for row in sizes.values())
    average = mean[OURS] / mean["estimate"] - 1
    print(f"files differ from the estimate by {100 * average:+.2f} % on average, {100 * worst:.2f} % at most")
    print(f"{os.cpu_count()} cores; one-core figures: OMP_NUM_THREADS=1 and taskset -c 0")
    if not arguments.only_ours:
        print(f"ratio webp_size_over_ours {mean['WebP'] / mean[OURS]:.3f}")


if __name__ == "__main__":
    main()
