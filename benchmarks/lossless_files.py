"""Real files of a lossless codec beside PNG, JPEG 2000, WebP and JPEG XL on a folder of photographs.

    python benchmarks/lossless_files.py data/kodak [--model pixel_mlp | --checkpoint last.ckpt] [--quick]

Every file is decoded from its bytes and compared, the others' too. bpsp are means over images of 8 * file size /
sub-pixels, seconds are CPU seconds of this process, means over images. oxipng and JPEG XL are measured where pyoxipng
and pillow-jxl-plugin are installed (extra ``bench``).
"""

import argparse
import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, features
from rich.console import Console
from rich.progress import track
from rich.table import Table

from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.coding.checked_file import file_of
from modules.components.coding.container import unpack
from modules.components.files.images import SUFFIXES, read_exact

Encoder = Callable[[np.ndarray], bytes]
Decoder = Callable[[bytes], np.ndarray]


def with_pillow(name: str, **options: object) -> tuple[Encoder, Decoder]:
    def encode(pixels: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, name, **options)
        return buffer.getvalue()

    return encode, lambda file: np.array(Image.open(io.BytesIO(file)))


def engineered(quick: bool) -> dict[str, tuple[Encoder, Decoder]]:
    """The codecs that this machine has."""
    found = {"PNG": with_pillow("PNG", optimize=True)}
    with contextlib.suppress(ImportError):
        import oxipng

        fast, decode = with_pillow("PNG")
        if not quick:
            found["oxipng"] = (lambda pixels: bytes(oxipng.optimize_from_memory(fast(pixels), level=6))), decode
    if features.check("jpg_2000"):
        found["JPEG 2000"] = with_pillow("JPEG2000", irreversible=False, mct=1)
    found["WebP"] = with_pillow("WEBP", lossless=True, quality=100, method=4 if quick else 6)
    with contextlib.suppress(ImportError):
        import pillow_jxl  # noqa: F401

        for effort in (7,) if quick else (7, 9):
            found[f"JPEG XL e{effort}"] = with_pillow("JXL", lossless=True, effort=effort)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--only-ours", action="store_true", help="no other codecs")
    parser.add_argument("--quick", action="store_true", help="two images, no oxipng, fast WebP")
    arguments = parser.parse_args()
    codec = load_codec(arguments.checkpoint or shipped_models()[arguments.model])
    ours = (lambda pixels: file_of(codec, pixels, verify=False)), (lambda file: codec.decompress(unpack(file)))
    codecs = {"ours": ours} | ({} if arguments.only_ours else engineered(arguments.quick))
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    sizes: dict[str, dict[str, float]] = {}
    seconds = {name: np.zeros(2) for name in codecs}
    codec.decompress(unpack(ours[0](np.zeros((16, 16, 3), np.uint8))))  # kernels are compiled once
    for path in track(paths[:2] if arguments.quick else paths, "coding", console=Console(stderr=True)):
        pixels = read_exact(path).pixels
        row = sizes[path.stem] = {}
        for name, (encode, decode) in codecs.items():
            start = time.process_time()
            file = encode(pixels)
            middle = time.process_time()
            decoded = decode(file)
            seconds[name] += (middle - start, time.process_time() - middle)
            assert np.array_equal(decoded, pixels), f"{path} did not come back from {name}"
            row[name] = 8 * len(file) / pixels.size
        row["estimate"] = codec.estimated_bits(pixels) / pixels.size

    names = [*codecs, "estimate"]
    mean = {name: float(np.mean([row[name] for row in sizes.values()])) for name in names}
    table = Table("bpsp", *names, title=f"{len(sizes)} images of {arguments.folder}, all decoded to identical pixels")
    for stem, row in [*sizes.items(), ("mean", mean)]:
        table.add_row(stem, *(f"{row[name]:.3f}" for name in names))
    for i, what in enumerate(("encode, CPU s", "decode, CPU s")):
        table.add_row(what, *(f"{seconds[name][i] / len(sizes):.2f}" for name in codecs), "")
    Console(width=120).print(table)
    worst = max(abs(row["ours"] / row["estimate"] - 1) for row in sizes.values())
    average = mean["ours"] / mean["estimate"] - 1
    print(f"files differ from the estimate by {100 * average:+.2f} % on average, {100 * worst:.2f} % at most")
    print(f"{os.cpu_count()} cores; one-core figures: OMP_NUM_THREADS=1 and taskset -c 0")
    if not arguments.only_ours:
        print(f"ratio webp_size_over_ours {mean['WebP'] / mean['ours']:.3f}")


if __name__ == "__main__":
    main()
