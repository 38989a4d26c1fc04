"""What codec.py does with one file: read it, compress, decompress or verify it, and write the result whole."""

import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from cli.codec_models import codec_for_file, codec_of
from cli.file_jobs import STANDARD, Job, Outcome, read_whole
from cli.job_pool import console
from modules.components.coding.checked_file import file_of
from modules.components.coding.container import MAGIC, Container, CorruptFileError, unpack
from modules.components.files.images import SUFFIXES, read_exact
from modules.components.files.png import png_bytes
from modules.components.files.whole_files import write_whole

MANY_TILES = 16
"""From so many on, an image has a progress bar of its own."""


def is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def is_container(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return True  # the command names it, with the reason


def read_container(path: Path) -> bytes:
    """Bytes of a file of ours, which says so in its first bytes before the rest is read.

    Raises:
        CorruptFileError: if it is none.
    """
    if path != STANDARD and not is_container(path):
        raise CorruptFileError("not a Parsimony file (it does not start with PSMY)")
    return read_whole(path)


def tile_bar(tiles: Iterable, total: int) -> Iterable:
    return track(tiles, "tiles", total, console=console) if total >= MANY_TILES else tiles


def show_tiles(codecs: Iterable[Any], jobs: Sequence[Job]) -> None:
    """A bar over the tiles of a single file; several files have theirs."""
    for codec in codecs:
        if hasattr(type(codec), "progress"):
            codec.progress = tile_bar if len(jobs) == 1 else type(codec).progress


def compress_file(
    job: Job, model: Path, device: str, precision: str, verify: bool, keep: str | None, box: str | None
) -> Outcome:
    codec = codec_of(model, device, precision)
    source = io.BytesIO(read_whole(STANDARD)) if job.source == STANDARD else job.source
    pixels, metadata, notes = read_exact(source)
    wishes = {}
    if hasattr(codec, "side_information"):
        wishes["side"] = codec.side_information(job.source, pixels.shape[:2], keep, box)
    elif keep is not None or box is not None:
        raise ValueError("this model keeps whole images: leave out --keep and --box")
    file = file_of(codec, pixels, metadata, verify, **wishes)
    deliver(job.target, file)
    bytes_in = source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes
    return Outcome(job.source, bytes_in, len(file), pixels.size, notes=notes)


def decompress_file(
    job: Job, candidates: tuple[Path, ...], device: str, samples: int, seed: int, force: bool
) -> Outcome:
    file = read_container(job.source)
    first, container = decoded(file, candidates, device)
    images = [first] if (samples, seed) == (1, 0) else drawn(file, candidates, device, samples, seed)
    targets = [job.target, *(job.target.with_suffix(f".{number}.png") for number in range(1, samples))]
    if taken := [target for target in targets[1:] if target.exists() and not force]:
        raise FileExistsError(f"{taken[0]} exists; --force overwrites it")
    pngs = [png_bytes(pixels, container.metadata) for pixels in images]
    for target, png in reversed([*zip(targets, pngs, strict=True)]):  # the first one last: it stands for all of them
        deliver(target, png)
    return Outcome(job.source, len(file), sum(map(len, pngs)), sum(pixels.size for pixels in images))


def verify_file(job: Job, candidates: tuple[Path, ...], device: str) -> Outcome:
    file = read_container(job.source)
    pixels, _ = decoded(file, candidates, device)
    return Outcome(job.source, len(file), pixels.size, pixels.size)


def decoded(file: bytes, candidates: tuple[Path, ...], device: str) -> tuple[np.ndarray, Container]:
    container = unpack(file)
    return codec_for_file(container.model, candidates, device).decompress(container), container


def drawn(file: bytes, candidates: tuple[Path, ...], device: str, samples: int, seed: int) -> list[np.ndarray]:
    """Several images of one file, by a random decoder. Raises ValueError for a method that decodes to one image."""
    container = unpack(file)
    codec = codec_for_file(container.model, candidates, device)
    if not hasattr(codec, "draws"):
        raise ValueError(f"{container.method} decodes to one image: leave out --samples and --seed")
    return codec.draws(container, samples, seed)


def deliver(target: Path, data: bytes) -> None:
    if target == STANDARD:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        write_whole(target, data)
