"""A million small images from packed shards against a folder of files: opening, images per second, going on.

    python benchmarks/streamed_images.py [--images 1000000] [--folder DIR] [--quick]

The set: 8x8 PNG images in folders of a thousand; 1,000 different files, each under many names (hard links), so that
both ways read from memory and the difference is that of finding and opening files. A disk or a network that must be
waited for is worse for a million files. Both are read as ``OpenImages`` reads them: listed and judged (opening), then
drawn at random over the whole set, a crop each, in batches of 256. Seconds are CPU-seconds of this process and its
threads, which other work on the machine does not change; beside them is the clock.

Then the same shards behind a web server of this machine, in a process of its own, that answers ranges at once or after
20 ms, as a store may: a batch asked for at once, in this process or in four workers; image by image; and again from the
cache of a first pass. By the clock, since waiting is what differs. Such small images are the worst case: nearly all of
the work is in the questions.

Going on: a loader whose state says that half of the epoch is over hands out its next batch, which must be the one that
an uninterrupted epoch has there.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch.utils.data import Dataset

from datamodules.images.crops import RandomCrops
from datamodules.images.pack_images import pack_folder
from datamodules.images.remote import Cache, Folder, RemotePath
from datamodules.images.sharded_images import find_images, scan_images
from datamodules.loading.loaders import EpochSampler, ResumableDataLoader, training_loader

SIDE, BATCH, DIFFERENT, WORKERS = 8, 256, 1000, 4


def write_files(folder: Path, count: int) -> None:
    """Folders of a thousand names each, for a thousand files."""
    random = np.random.default_rng(0)
    (folder / "0000").mkdir(parents=True)
    for number in range(min(DIFFERENT, count)):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / "0000" / f"{number:04d}.png")
    for number in range(DIFFERENT, count):
        target = folder / f"{number // DIFFERENT:04d}" / f"{number % DIFFERENT:04d}.png"
        if number % DIFFERENT == 0:
            target.parent.mkdir()
        os.link(folder / "0000" / target.name, target)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """What ``work`` returns, its CPU-seconds and those of the clock."""
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.process_time() - cpu, time.perf_counter() - start


def opened(folder: Folder) -> RandomCrops:
    return RandomCrops(scan_images(find_images(folder), min_side=SIDE, quiet=True).paths, SIDE)


def loader(crops: RandomCrops) -> ResumableDataLoader:
    return training_loader(crops, BATCH, 0, 0, None)


def read(crops: RandomCrops, batches: int) -> None:
    for _ in zip(range(batches), loader(crops), strict=False):
        pass


def batch_at(crops: RandomCrops, number: int) -> torch.Tensor:
    """Batch ``number`` of the epoch, from a loader that goes on there."""
    resumed = loader(crops)
    resumed.load_state_dict({"epoch": 0, "batches": number})
    return next(iter(resumed))["image"]


class RangeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    delay = 0.0

    def log_message(self, *arguments: object) -> None:
        """Nothing, a line a question is too much."""

    def answer(self, status: int, length: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        path = Path(self.path)
        self.answer(200, path.stat().st_size, b"") if path.is_file() else self.answer(404, 0, b"")

    def do_GET(self) -> None:
        start, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        time.sleep(self.delay)
        with open(self.path, "rb") as file:
            data = os.pread(file.fileno(), end + 1 - start, start)
        self.answer(206, len(data), data)


def serve(delay: float, port: Any) -> None:
    RangeHandler.delay = delay
    server = ThreadingHTTPServer(("127.0.0.1", 0), RangeHandler)
    port.put(server.server_port)
    server.serve_forever()


@contextmanager
def serving(delay: float) -> Iterator[str]:
    """The URL of a server of all files, which waits ``delay`` seconds before each answer."""
    context = get_context("fork")
    port = context.Queue()
    process = context.Process(target=serve, args=(delay, port), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{port.get(timeout=60)}"
    finally:
        process.terminate()
        process.join()


def steady_rate(crops: Dataset, batches: int, workers: int) -> float:
    """Images a second by the clock, after the workers have filled their queues."""
    iterator = iter(training_loader(crops, BATCH, 0, workers, None))
    for _ in range(1 + 2 * workers):
        next(iterator)
    start = time.perf_counter()
    for _ in range(batches):
        next(iterator)
    return batches * BATCH / (time.perf_counter() - start)


class OneByOne(Dataset):
    """The same crops, each image asked for when it is its turn."""

    def __init__(self, crops: RandomCrops) -> None:
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, draw: tuple[int, int]) -> dict[str, torch.Tensor]:
        return self.crops[draw]


def remote_table(packed: Path, kept: Path, batches: int) -> Table:
    """Images a second by the clock, from ``packed`` on the disk and behind a server."""
    table = Table("shards", "this process", f"{WORKERS} workers", title="images per second by the clock")

    def row(name: str, crops: Dataset) -> None:
        table.add_row(name, *(f"{steady_rate(crops, batches, workers):,.0f}" for workers in (0, WORKERS)))

    row("on the disk", opened(packed))
    for delay in (0.0, 0.02):
        with serving(delay) as url:
            behind = f"behind a server, {1000 * delay:.0f} ms"
            far = RemotePath(url + str(packed))
            row(behind, opened(far))
            table.add_row(f"{behind}, one by one", f"{steady_rate(OneByOne(opened(far)), 2, 0):,.0f}", "")
            crops = opened(RemotePath(far.url, Cache(kept / str(delay), 4 << 30)))
            read(crops, batches + 1 + 2 * WORKERS)
            row(f"{behind}, from the cache", crops)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--folder", help="to write the set in, about 1.2 GB; the temporary folder without it")
    parser.add_argument("--quick", action="store_true", help="20,000 images")
    options = parser.parse_args()
    count, batches = (20_000, 20) if options.quick else (options.images, 200)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as root:
        files, packed = Path(root, "files"), Path(root, "packed")
        write_files(files, count)
        shards, cpu, clock = timed(lambda: pack_folder(files, packed, 256_000_000, quiet=True))
        size = sum(path.stat().st_size for path in packed.iterdir())
        print(f"{count:,} images packed into {len(shards.shards)} shards, {size / 1e6:,.0f} MB with the index:")
        print(f"{cpu:.0f} CPU-seconds ({count / cpu:,.0f} images each), {clock:.0f} s by the clock")
        table = Table("way", "opening, CPU-seconds", "clock", "images per CPU-second", "clock", "going on, CPU-seconds")
        speeds, middles = [], []
        for name, folder in (("files", files), ("shards", packed)):
            crops, *opening = timed(lambda folder=folder: opened(folder))
            read(crops, 2)  # warm up
            _, *reading = timed(lambda crops=crops: read(crops, batches))
            middle, *going_on = timed(lambda crops=crops: batch_at(crops, count // BATCH // 2))
            speeds.append(batches * BATCH / reading[0])
            middles.append(middle)
            cells = [*opening, speeds[-1], batches * BATCH / reading[1], going_on[0]]
            table.add_row(name, *(f"{cell:,.3g}" if cell < 100 else f"{cell:,.0f}" for cell in cells))
        start = count // BATCH // 2 * BATCH
        draws = EpochSampler(crops).order()[start : start + BATCH]
        uninterrupted = torch.stack([crops[0, int(index)]["image"] for index in draws])
        Console(width=110).print(table)
        Console(width=110).print(remote_table(packed, Path(root, "kept"), 16 if options.quick else 40))
    assert torch.equal(*middles) and torch.equal(uninterrupted, middles[0]), "a resumed epoch has other batches"
    print("the batch in the middle of the epoch is the same from files, from shards and without an interruption")
    print(f"ratio streamed_images {speeds[1] / speeds[0]:.2f}")


if __name__ == "__main__":
    main()
