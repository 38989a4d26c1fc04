"""Coding one 768x512 photograph with full-size L3C: integer kernels against dense tables with torchac.

    python benchmarks/l3c_codec.py [--image photo.png] [--quick]

Both ways run the same network passes; the work outside of them is compared. The dense way is the published one: a
float CDF over 257 (25) edges for every sub-pixel, rounded to 16 bits, then torchac. The weights are random, so the
symbols are harder to code than a trained network's. Each way runs in a process of its own for its peak memory.
CPU-seconds of all threads.
"""

import argparse
import multiprocessing
import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchac_tables import decode_tables, encode_tables

from datamodules.images.dead_leaves import dead_leaves
from modules.components.coding.rans import encode_intervals
from modules.l3c import integer_mixture
from modules.l3c.codec import Codec, reproducible_arithmetic
from modules.l3c.integer_mixture import Grid, decode_mixture
from modules.l3c.losses import shift_means, split_parameters
from modules.l3c.nets import L3CNet

Seconds = dict[str, float]


@contextmanager
def counted(seconds: Seconds, name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds[name] += time.process_time() - start


def network_passes(pixels: np.ndarray, seconds: Seconds) -> list[tuple[np.ndarray, np.ndarray, Grid]]:
    """(parameters [h, w, Q], symbols [h, w, C], grid) of scales 0..S-1, as encoder and decoder make them."""
    torch.manual_seed(0)
    codec = Codec(L3CNet())
    network = codec.network
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().contiguous(memory_format=torch.channels_last)
    with reproducible_arithmetic(torch.get_num_threads()):
        codec._place("float32")
        network(x[..., :64, :64])
        with counted(seconds, "bare forward pass"):
            network(x)
        with counted(seconds, "networks, encode"):
            latents = [latent.symbols[0].permute(1, 2, 0).numpy() for latent in network.encode(x)]
        symbols, made, feature = [pixels, *latents], [], None
        with counted(seconds, "networks, decode"):
            for scale in range(len(latents), 0, -1):
                parameters, feature = codec._predict(scale, symbols[scale], feature)
                made.insert(0, parameters)
    seconds["networks, encode"] += seconds["networks, decode"]
    return [
        (parameters, np.ascontiguousarray(target).astype(np.uint16), grid)
        for parameters, target, grid in zip(made, symbols, codec._grids, strict=False)
    ]


def ours(scales: list[tuple[np.ndarray, np.ndarray, Grid]], seconds: Seconds) -> int:
    size = 0
    for parameters, symbols, grid in scales:
        starts, frequencies = np.empty(symbols.size, np.uint16), np.empty(symbols.size, np.uint16)
        with counted(seconds, "entropy model, encode"):
            integer_mixture._intervals(parameters, symbols, grid, starts, frequencies)
        with counted(seconds, "coder, encode"):
            stream = encode_intervals(starts, frequencies)
        with counted(seconds, "entropy model and coder, decode"):
            decoded = decode_mixture(stream, parameters, symbols.shape, grid)
        assert np.array_equal(decoded, symbols)
        size += len(stream)
    return size


def dense_table(parameters: torch.Tensor, x: torch.Tensor, channel: int, grid: Grid) -> np.ndarray:
    """[h * w, L + 1] integer CDF of one channel, by way of a float tensor [K, h * w, L + 1]."""
    from modules.l3c.nets import Alphabet

    alphabet = Alphabet(x.shape[1], grid.num_symbols, float(grid.low), 1 / float(grid.inverse_step), grid.is_rgb)
    logits, means, log_scales, *coefficients = split_parameters(parameters, alphabet, grid.num_mixtures)
    if grid.is_rgb:
        means = shift_means(means, coefficients[0], x)
    edges = alphabet.low + alphabet.step * (torch.arange(grid.num_symbols + 1) - 0.5)
    weights = logits[0, channel].softmax(0).flatten(1)[..., None]
    inverse = torch.exp(-log_scales[0, channel].clamp(min=-7)).flatten(1)[..., None]
    cdf = (weights * torch.sigmoid((edges - means[0, channel].flatten(1)[..., None]) * inverse)).sum(0)
    table = (cdf * (65536 - grid.num_symbols)).round().to(torch.int32) + torch.arange(grid.num_symbols + 1)
    table[:, 0], table[:, -1] = 0, 65536
    return table.numpy()


@torch.inference_mode()
def dense(scales: list[tuple[np.ndarray, np.ndarray, Grid]], seconds: Seconds) -> int:
    size = 0
    for array, symbols, grid in scales:
        parameters = torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()
        values = float(grid.low) + symbols.astype(np.float32) / grid.inverse_step
        x = torch.from_numpy(values).permute(2, 0, 1)[None].contiguous()
        for channel in range(symbols.shape[2]):
            flat = symbols[..., channel].ravel()
            for direction in ("encode", "decode"):
                with counted(seconds, f"entropy model, {direction}"):
                    table = dense_table(parameters, x, channel, grid)
                with counted(seconds, f"coder, {direction}"):
                    if direction == "encode":
                        stream = encode_tables(table, flat)
                    else:
                        assert np.array_equal(decode_tables(table, stream), flat)
            size += len(stream)
    return size


def run_alone(way: str, pixels: np.ndarray, queue: multiprocessing.Queue) -> None:
    """Networks and one way of coding in this process; puts (seconds, stream bytes, peak GiB)."""
    seconds: Seconds = defaultdict(float)
    code = {"ours": ours, "dense": dense}[way]
    warm_up = network_passes(pixels[:16, :16], defaultdict(float))
    code(warm_up, defaultdict(float))  # compiles
    scales = network_passes(pixels, seconds)
    size = code(scales, seconds)
    queue.put((dict(seconds), size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def measure(way: str, pixels: np.ndarray) -> tuple[Seconds, int, float]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run_alone, args=(way, pixels, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def outside(seconds: Seconds, direction: str) -> float:
    return sum(s for name, s in seconds.items() if name.endswith(direction) and not name.startswith("networks"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", help="a photograph; default: generated dead leaves, 768x512")
    parser.add_argument("--quick", action="store_true", help="a 128x128 part")
    arguments = parser.parse_args()
    pixels = np.array(Image.open(arguments.image).convert("RGB")) if arguments.image else dead_leaves(512, 768, 0)
    side = 128 if arguments.quick else 10**6
    pixels = np.ascontiguousarray(pixels[:side, :side][: pixels.shape[0] // 8 * 8, : pixels.shape[1] // 8 * 8])

    results = {way: measure(way, pixels) for way in ("ours", "dense")}
    height, width = pixels.shape[:2]
    table = Table("CPU-seconds", *results, title=f"one {width} x {height} image, L3C with 5,008,395 parameters")
    for name in dict.fromkeys(name for seconds, *_ in results.values() for name in seconds):
        table.add_row(name, *(f"{seconds[name]:.3f}" if name in seconds else "" for seconds, *_ in results.values()))
    for direction in ("encode", "decode"):
        table.add_row(
            f"outside the networks, {direction}", *(f"{outside(s, direction):.3f}" for s, *_ in results.values())
        )
    table.add_row("peak memory, GiB", *(f"{peak:.2f}" for *_, peak in results.values()))
    table.add_row("bpsp of the streams", *(f"{8 * size / pixels.size:.4f}" for _, size, _ in results.values()))
    Console(width=100).print(table)
    ratios = {d: outside(results["dense"][0], d) / outside(results["ours"][0], d) for d in ("encode", "decode")}
    print(f"ratio l3c_entropy_encode {ratios['encode']:.1f}")
    print(f"ratio l3c_entropy_decode {ratios['decode']:.1f}")


if __name__ == "__main__":
    main()
