"""Real files of a lossy codec beside JPEG, JPEG 2000, WebP, AVIF and JPEG XL on a folder of photographs.

    python benchmarks/lossy_files.py data/kodak --checkpoint low.ckpt med.ckpt [--plot rate_distortion.png] [--quick]

Every file is decoded from its bytes, headers counted. bpp, MS-SSIM (RGB, five scales, components/ms_ssim.py) and PSNR
are means over images, decibels of MS-SSIM those of the mean; seconds are CPU seconds of this process. The others code
at a few qualities each; JPEG XL is measured where pillow-jxl-plugin is installed (extra ``bench``). The last line
compares 1 - MS-SSIM with JPEG's at the same bpp, interpolated in decibels between its points, for the checkpoint where
it is worst.
"""

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from callbacks.reports.rate_distortion import Coder, Point, coder_of, draw, engineered, mean_curves, measure, table_of
from codec import load_codec
from modules.components.files.images import SUFFIXES, read_exact


def ours(checkpoint: Path) -> Coder:
    encode, decode = coder_of(load_codec(checkpoint))
    decode(encode(np.zeros((16, 16, 3), np.uint8)))  # kernels are compiled once
    return encode, decode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, nargs="+", required=True, help="one for each rate point")
    parser.add_argument("--plot", type=Path, help="a picture of the curves")
    parser.add_argument("--quick", action="store_true", help="two images, fast settings of the others")
    arguments = parser.parse_args()
    coders = {"ours": [ours(path) for path in arguments.checkpoint], **engineered(arguments.quick)}
    paths = sorted(path for path in arguments.folder.iterdir() if path.suffix.lower() in SUFFIXES)
    paths = paths[:2] if arguments.quick else paths
    found: dict[str, list[list[Point]]] = {name: [[] for _ in points] for name, points in coders.items()}
    for path in track(paths, "coding", console=Console(stderr=True)):
        pixels = read_exact(path).pixels
        for name, points in coders.items():
            for coder, results in zip(points, found[name], strict=True):
                results.append(measure(coder, pixels))
    curves = mean_curves(found)
    title = f"{len(paths)} images of {arguments.folder.name}, real files"
    Console(width=100).print(table_of(curves, title))
    if arguments.plot:
        draw(curves, arguments.plot, title)
        print(arguments.plot)
    jpeg = [[p.bpp for p in curves["JPEG"]], [p.ms_ssim_db for p in curves["JPEG"]]]
    gains = [p.ms_ssim_db - np.interp(p.bpp, *jpeg) for p in curves["ours"]]
    print(f"ratio jpeg_distortion_over_ours {10 ** (min(gains) / 10):.3f}")


if __name__ == "__main__":
    main()
