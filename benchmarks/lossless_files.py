"""Real files of a lossless codec against PNG, JPEG 2000 and WebP on a folder of photographs.

    python benchmarks/lossless_files.py data/kodak [--model l3c | --checkpoint last.ckpt] [--max-tile 768] [--quick]

Every file of ours is decoded from its bytes and compared. bpsp are means over images of 8 * file size / sub-pixels.
oxipng is measured where pyoxipng is installed (extra ``bench``).
"""

import argparse
import io
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, features
from rich.console import Console
from rich.progress import track
from rich.table import Table

from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.coding.checked_file import file_of
from modules.components.coding.container import unpack
from modules.components.files.images import SUFFIXES, read_exact
from modules.l3c.codec import Codec, estimated_bits


def pillow_size(pixels: np.ndarray, name: str, **options: object) -> int:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, name, **options)
    return buffer.tell()


def engineered(pixels: np.ndarray, quick: bool) -> dict[str, int]:
    """File sizes of the codecs that this machine has."""
    sizes = {"PNG": pillow_size(pixels, "PNG", optimize=True)}
    if not quick:
        try:
            import oxipng

            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            sizes["oxipng"] = len(oxipng.optimize_from_memory(buffer.getvalue(), level=6))
        except ImportError:
            pass
    if features.check("jpg_2000"):
        sizes["JPEG 2000"] = pillow_size(pixels, "JPEG2000", irreversible=False, mct=1)
    sizes["WebP"] = pillow_size(pixels, "WEBP", lossless=True, quality=100, method=4 if quick else 6)
    return sizes


@torch.inference_mode()
def estimate(codec: Codec, pixels: np.ndarray) -> float:
    """Bits by the likelihood in float32, as the training objective counts them."""
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return estimated_bits(codec.network.float(), x, codec.max_tile).sum().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--max-tile", type=int, default=768)
    parser.add_argument("--only-ours", action="store_true", help="no other codecs")
    parser.add_argument("--quick", action="store_true", help="two images, no oxipng, fast WebP")
    arguments = parser.parse_args()
    codec = load_codec(arguments.checkpoint or shipped_models()[arguments.model], max_tile=arguments.max_tile)
    paths = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in SUFFIXES)
    rows: dict[str, dict[str, float]] = {}
    encode_s = decode_s = 0.0
    for path in track(paths[:2] if arguments.quick else paths, "coding", console=Console(stderr=True)):
        pixels = read_exact(path).pixels
        start = time.perf_counter()
        file = file_of(codec, pixels)
        middle = time.perf_counter()
        decoded = codec.decompress(unpack(file))
        decode_s += time.perf_counter() - middle
        encode_s += middle - start
        assert np.array_equal(decoded, pixels), f"{path} did not come back"
        sizes = {"ours": len(file)} | ({} if arguments.only_ours else engineered(pixels, arguments.quick))
        rows[path.stem] = {name: 8 * size / pixels.size for name, size in sizes.items()}
        rows[path.stem]["estimate"] = estimate(codec, pixels) / pixels.size

    names = list(next(iter(rows.values())))
    mean = {name: float(np.mean([row[name] for row in rows.values()])) for name in names}
    table = Table("bpsp", *names, title=f"{len(rows)} images of {arguments.folder}, all decoded to identical pixels")
    for stem, row in [*rows.items(), ("mean", mean)]:
        table.add_row(stem, *(f"{row[name]:.3f}" for name in names))
    Console(width=100).print(table)
    worst = max(abs(row["ours"] / row["estimate"] - 1) for row in rows.values())
    average = mean["ours"] / mean["estimate"] - 1
    print(f"files differ from the estimate by {100 * average:+.2f} % on average, {100 * worst:.2f} % at most")
    encode_s, decode_s = encode_s / len(rows), decode_s / len(rows)
    print(f"{encode_s:.2f} s to compress (with the check), {decode_s:.2f} s to decompress an image")
    if not arguments.only_ours:
        print(f"ratio png_size_over_ours {mean['PNG'] / mean['ours']:.3f}")


if __name__ == "__main__":
    main()
