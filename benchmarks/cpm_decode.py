"""Decoding CPM's symbols: every activation once (modules/cpm/incremental.py) against the 5x9x9 block of each symbol.

    python benchmarks/cpm_decode.py [--quick]

The published way runs the context model on the neighbourhood of each symbol, one after another, as a decoder must that
keeps nothing. It is measured on the first channels of a crop and extrapolated to the whole image; ours decodes all
196,608 symbols of a 768x512 image (32 channels). Both run the same full-size context model, random, in the same whole
numbers, and both decode the symbols that were coded. CPU seconds.
"""

import argparse
import time

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from modules.components.coding.rans import encode_intervals, open_stream, pop, slot_of
from modules.cpm.exact_context import ExactContext, edge, intervals, logits, weigh
from modules.cpm.incremental import decode
from modules.cpm.nets import REACH, CPMNet

IMAGE = 32, 64, 96
"""Symbols of a Kodak image at the paper's low and medium rates."""


def symbol_by_symbol(stream: bytes, shape: tuple[int, int, int], context: ExactContext) -> np.ndarray:
    """Symbols uint8 [K, h, w]: the network runs on the block before each."""
    channels, height, width = shape
    state, words = open_stream(stream)
    position, symbols, weights = 0, np.empty(shape, np.uint8), np.empty(len(context.centers), np.int64)
    size = channels + REACH, height + 2 * REACH, width + 2 * REACH
    values = context.centers[:1].expand(size).clone()
    for d, y, x in np.ndindex(shape):
        block = values[d : d + REACH + 1, y : y + 2 * REACH + 1, x : x + 2 * REACH + 1]
        scores = logits(context, block)[0, 0, 0].long().numpy()
        total = weigh(scores, weights)
        edges = [edge(below, total, s, len(weights)) for s, below in enumerate(np.cumsum([0, *weights]))]
        symbol = int(np.searchsorted(edges, slot_of(state), side="right")) - 1
        state, position = pop(state, position, words, edges[symbol], edges[symbol + 1] - edges[symbol])
        state = np.uint64(state)
        symbols[d, y, x] = symbol
        values[d + REACH, y + REACH, x + REACH] = context.centers[symbol]
    return symbols


def seconds_of(function: object, *arguments: object) -> tuple[float, np.ndarray]:
    start = time.process_time()
    result = function(*arguments)  # type: ignore[operator]
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller crop symbol by symbol")
    crop = (2, 8, 12) if parser.parse_args().quick else (4, 16, 24)
    torch.manual_seed(0)
    context = ExactContext.of(CPMNet(32, width=2, groups=1, units=1))
    rows = []
    for name, function, shape in (("block of each symbol", symbol_by_symbol, crop), ("incremental", decode, IMAGE)):
        symbols = np.random.default_rng(0).integers(0, 6, shape, dtype=np.uint8)
        small = symbols[:1, :2, :2].copy()
        function(encode_intervals(*intervals(context, small)), small.shape, context)  # kernels are compiled once
        stream = encode_intervals(*intervals(context, symbols))
        taken, decoded = seconds_of(function, stream, shape, context)
        assert np.array_equal(decoded, symbols)
        rows.append((name, symbols.size, taken, taken / symbols.size * np.prod(IMAGE)))
    table = Table("decoder", "symbols", "CPU s", "of a 768x512 image, CPU s")
    for name, size, taken, whole in rows:
        table.add_row(name, f"{size:,}", f"{taken:.2f}", f"{whole:.1f}")
    Console(width=100).print(table)
    print(f"ratio cpm_decode {rows[0][3] / rows[1][3]:.1f}")


if __name__ == "__main__":
    main()
