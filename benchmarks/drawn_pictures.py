"""Bytes of a lossless codec beside others on pictures that are no photographs, and on one photograph in gray.

    python benchmarks/drawn_pictures.py data/photos/validation/wiki_027.webp [--quick]

White, thirty lines of text and a chart of 768x512, drawn here; the middle 384x384 of the photograph in colour, in gray,
and gray as RGB. Every file is decoded from its bytes and compared.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table

from cli.lossless_bench import OURS, engineered, measure, ours
from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.files.images import read_exact


def drawn(figure: Figure) -> np.ndarray:
    """uint8 [512, 768, 3]."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def text() -> np.ndarray:
    figure = Figure(figsize=(7.68, 5.12), dpi=100)
    for line in range(30):
        words = " ".join(format((line * 8 + i) * 2654435761 % 2**28, "x") for i in range(8))
        figure.text(0.02, 0.97 - line / 31, words, fontsize=9)
    return drawn(figure)


def chart() -> np.ndarray:
    figure = Figure(figsize=(7.68, 5.12), dpi=100, layout="constrained")
    axes = figure.subplots()
    x = np.linspace(0, 10, 400)
    for i in range(6):
        axes.plot(x, np.sin(x + i) * (i + 1), label=f"curve {i}")
    axes.bar(np.arange(10), np.arange(10) % 4, alpha=0.4)
    axes.set(xlabel="time, s", ylabel="amplitude", title="Six curves")
    axes.legend()
    axes.grid()
    return drawn(figure)


def photographs(path: Path) -> dict[str, np.ndarray]:
    pixels = read_exact(path).pixels
    if min(pixels.shape[:2]) < 384:
        raise ValueError(f"{path} is smaller than 384x384")
    top, left = ((side - 384) // 2 for side in pixels.shape[:2])
    crop = pixels[top : top + 384, left : left + 384]
    gray = np.array(Image.fromarray(np.ascontiguousarray(crop)).convert("L"))
    return {"photograph": crop, "the same in gray": gray, "the same in gray, as RGB": np.dstack([gray] * 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--quick", action="store_true", help="no oxipng, no JPEG XL effort 9, fast WebP")
    arguments = parser.parse_args()
    peers = {OURS: ours(load_codec(shipped_models()[DEFAULT_MODEL]))} | engineered(arguments.quick)
    pictures = {"white": np.full((512, 768, 3), 255, np.uint8), "thirty lines of text": text(), "chart": chart()}
    pictures |= photographs(arguments.photograph)
    table = Table("bytes", *peers, title="all decoded to identical pixels")
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, pixels in pictures.items():
            path = Path(folder) / "picture.png"
            Image.fromarray(np.ascontiguousarray(pixels)).save(path, compress_level=1)
            sizes = {row.codec: row.num_bytes for row in measure(path, peers)}
            table.add_row(name, *(f"{sizes[peer]:,}" for peer in peers))
            worst = max(worst, sizes[OURS] / sizes["WebP"])
    Console(width=110).print(table)
    print(f"ratio webp_over_ours_at_worst {1 / worst:.3f}")


if __name__ == "__main__":
    main()
