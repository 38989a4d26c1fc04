"""Pack a folder of images into tar shards, to be read from one large file instead of a million small ones.

    python -m datamodules.images.pack_images FOLDER OUTPUT [--shard-size 256] [--shuffle SEED]

OUTPUT then stands for FOLDER wherever a split of images is read (datamodules/images/shards.py): for
``<root>/train`` and ``<root>/val`` pack each. Bytes and relative paths stay as they are. Each image is decoded once;
what training would leave out (datamodules/images/reading.py) is left out here, counted and named.

Which file comes into which shard follows from the listing alone, and a shard appears under its name only when it is
complete: an interrupted run is continued by the same command, from its first missing shard. Two runs, or a run in two
pieces, write the same bytes.
"""

import argparse
import json
import random
import sys
import tarfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from datamodules.images.reading import SkippedImageError, find_photos, open_photo
from datamodules.images.remote import MANIFEST
from datamodules.images.shard_files import NAMES, SAMPLES
from datamodules.images.shards import ROW, VERSION, Shards
from datamodules.loading.packing import fingerprint
from datamodules.loading.reporting import describe_skipped, track
from datamodules.loading.restartable import run_restartable
from modules.components.files.images import ImageError, decoder_errors
from modules.components.files.whole_files import remove_leftovers, unfinished, write_whole

BLOCK = 512
"""Bytes of a tar file's header, and what its members are rounded up to."""
PLAN = "packing.json"


class Shard(NamedTuple):
    """What goes into one file."""

    name: str
    files: list[str]
    """Paths below the folder."""


def rounded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def plan(sizes: list[tuple[str, int]], shard_bytes: int) -> list[Shard]:
    """Files and their sizes, in order, into shards of ``shard_bytes`` at most, but of one file at least.

    The longest names, above 100 bytes, need more than a block and may make a shard a little larger.
    """
    shards: list[Shard] = []
    room = 0
    for name, size in sizes:
        room -= BLOCK + rounded(size)
        if room < 0 or not shards:
            shards.append(Shard(f"shard-{len(shards):06d}.tar", []))
            room = shard_bytes // tarfile.RECORDSIZE * tarfile.RECORDSIZE - 3 * BLOCK - rounded(size)
        shards[-1].files.append(name)
    return shards


def examine(data: bytes) -> tuple[int, int, int]:
    """Height, width and channels of an image that can be decoded to its end.

    Raises:
        SkippedImageError: by the rules of reading.py, where 8-bit grayscale passes.
    """
    with open_photo(BytesIO(data), gray_to_rgb=True) as image:
        try:
            with decoder_errors():
                image.load()
        except ImageError as error:
            raise SkippedImageError(error.reason) from error
        return image.height, image.width, len(image.getbands())


def pack_shard(shard: Shard, folder: Path, output: Path) -> None:
    """Write a shard and, beside it, what the index will hold of it; nothing if both are there."""
    record = (output / shard.name).with_suffix(".json")
    if record.exists() and (output / shard.name).exists():
        return
    remove_leftovers(output / shard.name)
    rows: list[list[int]] = []
    names: list[str] = []
    skipped: dict[str, list[str]] = {}
    with unfinished(output / shard.name) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in shard.files:
            data = (folder / name).read_bytes()
            try:
                size = examine(data)
            except SkippedImageError as error:
                skipped.setdefault(error.reason, []).append(name)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, BytesIO(data))
            rows.append([tar.offset - rounded(len(data)), len(data), zlib.crc32(data), *size])
            names.append(name)
    write_whole(record, json.dumps({"rows": rows, "names": names, "skipped": skipped}).encode())


class Index:
    """Collects what the shards hold."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = {name: label for label, name in enumerate(classes)}
        self.parts: list[np.ndarray] = []
        self.names: list[bytes] = []
        self.name_bytes = 0
        self.shards: list[dict[str, Any]] = []
        self.skipped: dict[str, list[str]] = {}

    def add(self, output: Path, shard: Shard) -> None:
        content = json.loads((output / shard.name).with_suffix(".json").read_bytes())
        names = [name.encode() for name in content["names"]]
        rows = np.zeros(len(names), ROW)
        columns = np.array(content["rows"], np.int64).reshape(-1, 6).T
        for field, column in zip(("offset", "bytes", "crc", "height", "width", "channels"), columns, strict=True):
            rows[field] = column
        lengths = np.array([len(name) for name in names], np.int64)
        rows["name_bytes"], rows["name"] = lengths, self.name_bytes + lengths.cumsum() - lengths
        rows["label"] = [self.classes.get(top_folder(name), -1) for name in content["names"]]
        rows["shard"] = len(self.shards)
        self.parts.append(rows)
        self.names += names
        self.name_bytes += int(lengths.sum())
        self.shards.append({"name": shard.name, "bytes": (output / shard.name).stat().st_size})
        for reason, left_out in content["skipped"].items():
            self.skipped.setdefault(reason, []).extend(left_out)

    def write(self, output: Path, key: str) -> None:
        rows = np.concatenate(self.parts)
        if not len(rows):
            raise ValueError(f"no usable image: {describe_skipped(self.skipped)}")
        write_whole(output / NAMES, b"".join(self.names))
        with unfinished(output / SAMPLES) as temporary, temporary.open("wb") as file:
            np.save(file, rows, allow_pickle=False)
        content = {"version": VERSION, "key": key, "images": len(rows), "classes": list(self.classes)}
        content |= {"shards": self.shards, "skipped": self.skipped}
        write_whole(output / MANIFEST, json.dumps(content).encode())


def top_folder(name: str) -> str:
    """The first folder of a path; empty for a file outside of folders."""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else ""


def pack_folder(
    folder: Path, output: Path, shard_bytes: int, shuffle: int | None = None, workers: int = 1, quiet: bool = False
) -> Shards:
    """Pack what is not packed yet, and open the result.

    Args:
        folder: searched with its subfolders, hidden ones left out.
        output: a folder, made if needed.
        shard_bytes: size of a shard, at most, unless an image alone is larger.
        shuffle: seed of the order; by path without it.
        workers: processes.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no usable image, or ``output`` is of other files or settings.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    paths = find_photos(folder)
    if not paths:
        raise ValueError(f"no PNG, JPEG or WebP file in {folder}")
    stamps = [(path.relative_to(folder).as_posix(), path.stat()) for path in paths]
    if odd := [name for name, _ in stamps if any("\ud800" <= c <= "\udfff" for c in name)]:
        raise ValueError(f"{len(odd)} file names in {folder} are not UTF-8, such as {odd[0]!a}: rename them")
    key = fingerprint(stamps, VERSION, shard_bytes, shuffle)
    check_same_plan(output, key)
    if not is_whole(output):
        sizes = [(name, status.st_size) for name, status in stamps]
        if shuffle is not None:
            random.Random(shuffle).shuffle(sizes)
        shards = plan(sizes, shard_bytes)
        index = Index(sorted({top_folder(name) for name, _ in stamps} - {""}))
        for shard in packed(shards, folder, output, workers, quiet):
            index.add(output, shard)
        index.write(output, key)
    for record in output.glob("shard-*.json"):
        record.unlink()
    return Shards(output)


def is_whole(output: Path) -> bool:
    """Whether ``output`` can be opened; what cannot is packed again, but for shards of an interrupted run."""
    try:
        Shards(output)
    except (FileNotFoundError, ValueError):
        (output / MANIFEST).unlink(missing_ok=True)
        return False
    return True


def packed(shards: list[Shard], folder: Path, output: Path, workers: int, quiet: bool) -> Iterator[Shard]:
    """The shards in order, each when it is written."""
    work = partial(pack_shard, folder=folder, output=output)
    if workers == 1:
        for shard in track(shards, len(shards), "packing images", quiet):
            work(shard)
            yield shard
        return
    # Spawned, since a fork would copy the progress bar's thread in an unknown state.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            done = track(pool.map(work, shards), len(shards), "packing images", quiet)
            yield from (shard for shard, _ in zip(shards, done, strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_same_plan(output: Path, key: str) -> None:
    """Keep the fingerprint of files and settings in ``output``, so that a continued run cannot mix two sets."""
    record = output / PLAN
    text = json.dumps({"key": key}) + "\n"
    if record.exists() and record.read_text() != text:
        raise ValueError(f"{output} was packed from other files or with other settings: use another folder")
    if not record.exists():
        write_whole(record, text.encode())


def parse_arguments(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.images.pack_images",
        description="Pack a folder of images into tar shards with an index; OUTPUT then stands for FOLDER.",
        epilog="An interrupted run is continued by the same command.",
    )
    parser.add_argument("folder", type=Path, help="of images, searched with its subfolders; of class folders as well")
    parser.add_argument("output", type=Path, help="folder to write to")
    parser.add_argument("--shard-size", type=float, default=256, help="10^6 bytes, at most (default: %(default)s)")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="in a random order (default: by path)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parsed = parser.parse_args(args)
    if parsed.shard_size <= 0 or parsed.workers < 1:
        parser.error("--shard-size must be above 0 and --workers at least 1")
    return parsed


def main(args: list[str] | None = None) -> int:
    """The command; 0 if OUTPUT is whole afterwards, else see ``run_restartable``."""
    parsed = parse_arguments(args)

    def work() -> int:
        shards = pack_folder(parsed.folder, parsed.output, int(1e6 * parsed.shard_size), parsed.shuffle, parsed.workers)
        size = sum(shards.sizes.values())
        print(f"{parsed.output}: {len(shards.rows):,} images in {len(shards.shards)} shards, {size:,} bytes")
        if shards.skipped:
            print(f"left out: {describe_skipped(shards.skipped)}")
        return 0

    return run_restartable("pack_images", work)


if __name__ == "__main__":
    sys.exit(main())
