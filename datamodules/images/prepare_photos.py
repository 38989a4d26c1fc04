"""Prepare photographs for training as L3C does (v3 of its data): scaled down until JPEG artefacts are gone, lossless.

    python -m datamodules.images.prepare_photos SOURCE DEST

Of every photograph below SOURCE: draw a scale uniformly from [min_side / shorter side, max_scale], resize by Lanczos,
drop it if its mean HSV saturation or value is too high, write it losslessly to the same relative place below DEST.
Dropped as well are photographs that would have to be scaled by more than max_scale, and files that are not 8-bit RGB
(datamodules/images/reading.py). The scale depends on the seed and on the file's relative name alone, and a file
appears under its name only when complete: an interrupted run is continued by the same command.
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from datamodules.images.reading import SkippedImageError, decode, find_photos, open_photo
from datamodules.loading.reporting import track
from datamodules.loading.restartable import run_restartable

WRITTEN = "written"
THERE = "already there"
TOO_SMALL = "too small for the scale range"
TOO_COLOURFUL = "too saturated or too bright"
TOO_WIDE = "too large for WebP"
WEBP_MAX_SIDE = 16383


class Preparation(NamedTuple):
    """What decides how a prepared photograph looks."""

    format: str = "png"
    min_side: int = 512
    max_scale: float = 0.8
    max_saturation: float = 0.9
    max_value: float = 0.8
    seed: int = 0


def draw_scale(name: str, shorter_side: int, preparation: Preparation) -> float | None:
    """The scale of the file ``name``: uniform on [min_side / shorter_side, max_scale]; None if that is empty."""
    smallest = preparation.min_side / shorter_side
    if smallest > preparation.max_scale:
        return None
    digest = hashlib.sha256(f"{preparation.seed}/{name}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    return float(generator.uniform(smallest, preparation.max_scale))


def mean_saturation_and_value(pixels: np.ndarray) -> tuple[float, float]:
    """Means over an image [H, W, 3] uint8 of HSV saturation and value, both in [0, 1]."""
    high, low = pixels.max(axis=2).astype(np.float32), pixels.min(axis=2).astype(np.float32)
    return float(np.mean((high - low) / np.maximum(high, 1))), float(np.mean(high) / 255)


def prepare_photo(name: str, source: Path, dest: Path, preparation: Preparation) -> str:
    """Prepare ``source / name``; what became of it: written, already there, or why it was dropped."""
    target = (dest / name).with_suffix(f".{preparation.format}")
    if target.exists():
        return THERE
    try:
        with open_photo(source / name) as image:
            scale = draw_scale(name, min(image.size), preparation)
        if scale is None:
            return TOO_SMALL
        photo = Image.fromarray(decode(source / name))
    except SkippedImageError as error:
        return error.reason
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    saturation, value = mean_saturation_and_value(np.asarray(photo))
    if saturation > preparation.max_saturation or value > preparation.max_value:
        return TOO_COLOURFUL
    if preparation.format == "webp" and max(photo.size) > WEBP_MAX_SIDE:
        return TOO_WIDE
    write_lossless(photo, target)
    return WRITTEN


def write_lossless(photo: Image.Image, target: Path) -> None:
    """Write beside the target and rename, so that the target is complete whenever it exists."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial_file = target.with_name(target.name + ".part")
    options = {"lossless": True, "quality": 75, "method": 4} if target.suffix == ".webp" else {}
    photo.save(partial_file, format=target.suffix[1:].upper(), **options)
    os.replace(partial_file, target)


def prepare_folder(source: Path, dest: Path, preparation: Preparation, workers: int, quiet: bool = False) -> Counter:
    """Prepare all photographs below ``source`` in ``workers`` processes; how many came to which end.

    Raises:
        FileNotFoundError: if ``source`` is no folder.
        ValueError: if it holds no photograph, two files would get one name, or ``dest`` was made in another way.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}")
    names = [path.relative_to(source).as_posix() for path in find_photos(source)]
    if not names:
        raise ValueError(f"no PNG, JPEG or WebP file in {source}")
    stems = Counter(Path(name).with_suffix("").as_posix() for name in names)
    if twice := [stem for stem, count in stems.items() if count > 1]:
        raise ValueError(f"files that differ only in their suffix: {', '.join(twice[:5])}")
    check_same_preparation(dest, preparation)
    prepare = partial(prepare_photo, source=source, dest=dest, preparation=preparation)
    # Spawned, since a fork would copy the progress bar's thread in an unknown state.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            return Counter(track(pool.map(prepare, names, chunksize=4), len(names), "preparing photos", quiet))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_same_preparation(dest: Path, preparation: Preparation) -> None:
    """Keep the settings in ``dest``, so that a continued run cannot mix two preparations."""
    record = dest / "preparation.json"
    settings = json.dumps(preparation._asdict(), indent=2) + "\n"
    if record.exists() and record.read_text() != settings:
        raise ValueError(f"{dest} was prepared with other settings (see {record}): use them, or another folder")
    dest.mkdir(parents=True, exist_ok=True)
    record.write_text(settings)


def parse_arguments(args: list[str] | None) -> argparse.Namespace:
    defaults = Preparation()
    parser = argparse.ArgumentParser(
        prog="python -m datamodules.images.prepare_photos",
        description="Scale photographs down by a random factor (Lanczos) and write them losslessly, as L3C's data v3.",
        epilog="An interrupted run is continued by the same command.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="folder of photographs, searched with its subfolders")
    parser.add_argument("dest", type=Path, help="folder to write to; keeps the subfolders")
    parser.add_argument("--format", choices=("png", "webp"), default=defaults.format, help="lossless either way")
    parser.add_argument("--min-side", type=int, default=defaults.min_side, help="shorter side after scaling, at least")
    parser.add_argument("--max-scale", type=float, default=defaults.max_scale, help="largest scale, in (0, 1]")
    parser.add_argument("--max-saturation", type=float, default=defaults.max_saturation, help="drop above, [0, 1]")
    parser.add_argument("--max-value", type=float, default=defaults.max_value, help="drop above (HSV value), [0, 1]")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the scales")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parsed = parser.parse_args(args)
    if parsed.min_side < 1 or not 0 < parsed.max_scale <= 1 or parsed.workers < 1:
        parser.error("--min-side and --workers must be at least 1, --max-scale within (0, 1]")
    return parsed


def main(args: list[str] | None = None) -> int:
    """The command; 0 if DEST holds photographs afterwards, 1 if nothing could be written; else ``run_restartable``."""
    parsed = parse_arguments(args)
    preparation = Preparation(*(getattr(parsed, field) for field in Preparation._fields))

    def work() -> int:
        ends = prepare_folder(parsed.source, parsed.dest, preparation, parsed.workers)
        print(f"{sum(ends.values())} files: " + ", ".join(f"{count} {end}" for end, count in ends.most_common()))
        return 0 if ends[WRITTEN] + ends[THERE] else 1

    return run_restartable("prepare_photos", work)


if __name__ == "__main__":
    sys.exit(main())
