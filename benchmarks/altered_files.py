"""Files of a lossless codec, altered at random: each is refused in one line or decodes to the same pixels.

    python benchmarks/altered_files.py data/kodak [--alterations 10000] [--quick]

Five files: a colour crop, the same in gray, a flat picture, a crop one row high, a crop beside a flat area in tiles.
An alteration flips bits, sets bytes, cuts, inserts or writes an extreme number; in three of four files the length and
the checksum are put right afterwards, so that what lies behind them is reached.
"""

import argparse
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from codec import DEFAULT_MODEL, load_codec, shipped_models
from modules.components.coding.container import CorruptFileError, digest, pack, unpack
from modules.components.files.images import SUFFIXES, read_exact
from modules.pixel_mlp import codec as codec_file

HEADER, CHECKSUM = 13, 8
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def pictures(folder: Path) -> list[np.ndarray]:
    path = next(path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)
    crop = read_exact(path).pixels[:48, :48]
    beside = np.concatenate((crop, np.full_like(crop, 200)), axis=1)
    return [crop, crop[..., 1].copy(), np.full_like(crop, 7), crop[:1].copy(), beside]


def flipped(file: bytearray, random: np.random.Generator) -> None:
    for _ in range(random.integers(1, 4)):
        file[random.integers(len(file))] ^= 1 << int(random.integers(8))


def overwritten(file: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(len(file)))
    length = min(int(random.integers(1, 9)), len(file) - place)
    file[place : place + length] = random.bytes(length)


def cut(file: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(len(file)))
    del file[place : place + int(random.integers(1, 40))]


def inserted(file: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(len(file) + 1))
    file[place:place] = random.bytes(int(random.integers(1, 40)))


def extreme(file: bytearray, random: np.random.Generator) -> None:
    place = int(random.integers(max(1, min(len(file) - 4, 200))))  # most lengths and sizes are near the front
    file[place : place + 4] = struct.pack("<I", random.choice(EXTREMES))


WAYS: tuple[Callable[[bytearray, np.random.Generator], None], ...] = (flipped, overwritten, cut, inserted, extreme)


def put_right(file: bytearray) -> bytes:
    """With length and checksum of the bytes that are there now."""
    body = bytes(file[HEADER:-CHECKSUM])
    front = bytes(file[:5]) + struct.pack("<Q", len(body)) + body
    return front + digest(front)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alterations", type=int, default=10_000)
    parser.add_argument("--quick", action="store_true", help="500 alterations")
    arguments = parser.parse_args()
    codec_file.MAX_TILE = 48
    codec, random = load_codec(shipped_models()[DEFAULT_MODEL]), np.random.default_rng(0)
    images = pictures(arguments.folder)
    files = [pack(codec.compress(image)) for image in images]
    counts: Counter[str] = Counter()
    longest = 0.0
    number = 500 if arguments.quick else arguments.alterations
    for i in track(range(number), "altered files", console=Console(stderr=True)):
        image, file = images[i % len(files)], bytearray(files[i % len(files)])
        WAYS[int(random.integers(len(WAYS)))](file, random)
        altered = put_right(file) if random.integers(4) else bytes(file)
        start = time.process_time()
        try:
            same = np.array_equal(codec.decompress(unpack(altered)), image)
            counts["the same pixels" if same else "WRONG PIXELS"] += 1
        except CorruptFileError as error:
            counts["refused" if "\n" not in str(error) else "REFUSED IN SEVERAL LINES"] += 1
        except Exception as error:
            counts[f"CRASH: {type(error).__name__}"] += 1
        longest = max(longest, time.process_time() - start)
    print(", ".join(f"{count} {what}" for what, count in counts.most_common()) + f"; {longest:.2f} CPU s at most")
    print(f"ratio failures {number - counts['refused'] - counts['the same pixels']}")


if __name__ == "__main__":
    main()
