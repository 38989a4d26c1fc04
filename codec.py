"""Compress and decompress image files with trained networks.

    python codec.py compress photo.png folder/ --output out/        out/photo.pmlp, out/.../*.pmlp
    python codec.py compress photo.png --output small.pmlp          one input, one file; - is standard input or output
    python codec.py compress scene_leftImg8bit.png --checkpoint sc.ckpt --keep person,car --output out/
    python codec.py decompress out/ --output back/                  back/photo.png, ...
    python codec.py decompress face.dplc --samples 2 --output back/ back/face.png, face.1.png: random draws
    python codec.py sample --checkpoint best.ckpt --samples 16 --output out/
    srun -n 8 python codec.py compress folder/ --output out/ --resume    each process its part; again after a kill
    python codec.py verify out/                                     decode everything, write nothing
    python codec.py info out/
    python codec.py bench folder/ --output out/                     ours beside PNG, WebP, JPEG XL: table, plot, CSV
    python codec.py models
    python codec.py export --checkpoint best.ckpt --output weights/mine.pt

A method takes part by having modules/<method>/codec.py with a class ``Codec(network, device=, precision=)`` that has
``extension``, ``fingerprint``, ``compress(pixels, metadata)`` and ``decompress(container)``; its network is a
``ConfiguredNetwork``. A lossy one has ``read(container)``, which decodes and checks what it keeps exactly. One that
keeps chosen regions has ``side_information(path, shape, keep, box)``, whose result ``compress`` takes as ``side``. One
whose decoder is random has ``draws(container, samples, seed)`` and, where it needs no file, ``sample(samples, seed)``.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages make fresh tensors several times cheaper

from rich.console import Console
from rich.progress import track
from rich.table import Table

from cli import checkout, lossless_bench
from cli.codec_files import (
    compress_file,
    decompress_file,
    is_container,
    is_image,
    read_container,
    show_tiles,
    verify_file,
)
from cli.codec_models import DEFAULT_MODEL, candidate_models, chosen_model, codec_of, load_codec, shipped_models
from cli.file_jobs import STANDARD, Names, Outcome, found_files, named, printable
from cli.job_pool import complain, console, run_jobs
from cli.own_jobs import own_files, own_jobs
from modules.components.coding.container import unpack
from modules.components.coding.model_file import read_network_config, save_weights
from modules.components.files.images import SUFFIXES
from modules.components.files.png import png_bytes
from modules.components.files.whole_files import unfinished, write_whole

USER_ERRORS = (ValueError, OSError, RuntimeError)


def compress(arguments: argparse.Namespace) -> int:
    options = (chosen_model(arguments), arguments.device, arguments.precision)
    codec = codec_of(*options)
    names = Names(codec.extension, SUFFIXES)
    jobs, refused = own_jobs(arguments, names, is_image)
    show_tiles([codec], jobs)
    work = (*options, not arguments.no_verify, arguments.keep, arguments.box)
    return run_jobs("compress", compress_file, jobs, refused, work, arguments.workers, arguments.output == STANDARD)


def decompress(arguments: argparse.Namespace) -> int:
    candidates = candidate_models(arguments)
    codecs = [codec_of(path, arguments.device) for path in candidates]
    names = Names(".png", {codec.extension for codec in codecs})
    jobs, refused = own_jobs(arguments, names, is_container)
    show_tiles(codecs, jobs)
    if arguments.output == STANDARD and arguments.samples > 1:
        raise ValueError("--output - takes one image: leave out --samples, or name a folder")
    work = (candidates, arguments.device, arguments.samples, arguments.seed, arguments.force or arguments.resume)
    return run_jobs("decompress", decompress_file, jobs, refused, work, arguments.workers, arguments.output == STANDARD)


def verify(arguments: argparse.Namespace) -> int:
    jobs, refused = own_files(arguments, is_container)
    work = (candidate_models(arguments), arguments.device)
    return run_jobs("verify", verify_file, jobs, refused, work, arguments.workers, quiet=False)


def sample(arguments: argparse.Namespace) -> int:
    """Random images of a generative model, without a file."""
    codec = load_codec(arguments.checkpoint, device=arguments.device)
    if not hasattr(codec, "sample"):
        raise ValueError(f"{arguments.checkpoint} is of a method that decodes files only")
    targets = [arguments.output / f"sample{number:04d}.png" for number in range(arguments.samples)]
    if taken := [target for target in targets if target.exists() and not arguments.force]:
        raise FileExistsError(f"{taken[0]} exists; --force overwrites it")
    for target, pixels in zip(targets, codec.sample(arguments.samples, arguments.seed), strict=True):
        write_whole(target, png_bytes(pixels, {}))
    print(f"{len(targets)} samples in {arguments.output}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    """Print what a file's header says, after all its checks."""
    pairs, refused = found_files(arguments.files, is_container)
    for path, _ in pairs:
        try:
            file = read_container(path)
            c = unpack(file)
        except USER_ERRORS as error:
            refused.append(Outcome(path, error=str(error)))
            continue
        subpixels = c.width * c.height * (1 if c.mode == "L" else 3)
        kept = ", ".join(f"{name} ({len(data)} bytes)" for name, data in c.metadata.items()) or "none"
        lines = (
            f"{path}: {c.method}, {c.width} x {c.height} {c.mode}, {len(file):,} bytes, "
            f"{8 * len(file) / subpixels:.3f} bpsp",
            f"model {c.model.hex()}, {c.precision}, {c.threads or 'no'} CPU threads, {len(c.tiles)} tiles",
            f"metadata: {kept}",
        )
        print("\n  ".join(map(printable, lines)))
    for outcome in refused:
        complain(f"{outcome.source}: {outcome.error}")
    return 1 if refused else 0


def bench(arguments: argparse.Namespace) -> int:
    """Ours beside the lossless codecs of this machine: a table, and beside it CSV and plot in a folder."""
    codec = codec_of(chosen_model(arguments), arguments.device)
    peers = {lossless_bench.OURS: lossless_bench.ours(codec)} | lossless_bench.engineered(arguments.quick)
    pairs, refused = found_files(arguments.files, is_image)
    rows: list[lossless_bench.Measurement] = []
    for path, _ in track(pairs, "bench", console=console):
        try:
            rows += lossless_bench.measure(path, peers)
        except USER_ERRORS as error:
            refused.append(Outcome(path, error=str(error)))
    for outcome in refused:
        complain(f"{outcome.source}: {outcome.error}")
    if rows:
        mean = lossless_bench.means(rows)
        Console(width=max(console.width, 110)).print(lossless_bench.table(mean, len(rows) // len(peers)))
        print("\n".join(map(str, lossless_bench.write_products(arguments.output, rows))))
    return 1 if refused else 0


def models(arguments: argparse.Namespace) -> int:
    """Print the shipped weights."""
    table = Table("name", "method", "network", "parameters", "bytes", "fingerprint")
    for name, path in shipped_models().items():
        config, _ = read_network_config(path)
        codec = load_codec(path)
        parameters = sum(p.numel() for p in codec.network.parameters())
        class_name = config["class_path"].rsplit(".", 1)[1]
        method = config["class_path"].split(".")[1]
        table.add_row(name, method, class_name, f"{parameters:,}", f"{path.stat().st_size:,}", codec.fingerprint.hex())
    Console(width=max(console.width, 130)).print(table)
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Cut a Lightning checkpoint down to its network; what has no codec, before or after rounding, is not written."""
    if arguments.output.exists() and not arguments.force:
        raise FileExistsError(f"{arguments.output} exists; --force overwrites it")
    load_codec(arguments.checkpoint)
    config, state = read_network_config(arguments.checkpoint)
    with unfinished(arguments.output) as temporary:
        save_weights(temporary, config, state, not arguments.full)
        fingerprint = load_codec(temporary).fingerprint.hex()
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes, model {fingerprint}")
    return 0


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codec.py", description="Compress images with trained networks.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(run=run)
        return sub

    def model_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("files", nargs="+", type=named, help="files and folders; - is standard input")
        sub.add_argument("--checkpoint", type=Path, help="a Lightning checkpoint or exported weights")
        sub.add_argument("--device", default="cpu", help="where the network runs, e.g. cuda (default: %(default)s)")
        sub.add_argument("--workers", type=positive, default=1, help="processes (default: %(default)s)")
        part = "of N calls this is call K, counted from 1, and takes every N-th file (default: as srun or torchrun say)"
        sub.add_argument("--part", metavar="K/N", help=part)

    def batch_options(sub: argparse.ArgumentParser) -> None:
        model_options(sub)
        target = "folder for the results; for one input also a file, or - for standard output"
        sub.add_argument("--output", type=named, required=True, help=target)
        existing = sub.add_mutually_exclusive_group()
        existing.add_argument("--force", action="store_true", help="overwrite existing results")
        existing.add_argument(
            "--resume", action="store_true", help="keep existing results: an interrupted call goes on"
        )

    def random_options(sub: argparse.ArgumentParser, help_text: str, samples: int) -> None:
        sub.add_argument("--samples", type=positive, default=samples, help=help_text)
        sub.add_argument("--seed", type=int, default=0, help="of random decoding (default: %(default)s)")

    sub = command("compress", compress, "images to compressed files; each is decoded again before it is written")
    batch_options(sub)
    sub.add_argument("--model", help=f"shipped weights by name (default: {DEFAULT_MODEL}); see the command models")
    precision = "of the network; float64 is slower and lets files decode on other machines (default: %(default)s)"
    sub.add_argument("--precision", choices=("float32", "float64"), default="float32", help=precision)
    sub.add_argument("--no-verify", action="store_true", help="write without decoding first: faster, on trust")
    keep = "labels to keep, the rest is synthesised (selective compression), e.g. person,car (default: everything)"
    sub.add_argument("--keep", help=keep)
    sub.add_argument("--box", help="x,y,width,height in pixels to keep instead of labels")
    sub = command("decompress", decompress, "compressed files to PNG")
    batch_options(sub)
    random_options(sub, "images to decode from each file, for a method with a random decoder (default: %(default)s)", 1)
    sub = command("sample", sample, "random images of a generative model, without a file")
    sub.add_argument("--checkpoint", type=Path, required=True, help="a Lightning checkpoint or exported weights")
    sub.add_argument("--output", type=Path, required=True, help="folder for the images")
    sub.add_argument("--device", default="cpu", help="where the network runs, e.g. cuda (default: %(default)s)")
    sub.add_argument("--force", action="store_true", help="overwrite existing images")
    random_options(sub, "images to draw (default: %(default)s)", 16)
    model_options(command("verify", verify, "decode compressed files and write nothing"))
    command("info", info, "what compressed files say of themselves").add_argument("files", nargs="+", type=named)
    sub = command("bench", bench, "ours beside PNG, JPEG 2000, WebP and JPEG XL: sizes and CPU time, verified")
    sub.add_argument("files", nargs="+", type=named, help="images and folders of images")
    sub.add_argument("--output", type=Path, required=True, help="folder for bench.csv and bench.png")
    sub.add_argument("--model", help=f"shipped weights by name (default: {DEFAULT_MODEL})")
    sub.add_argument("--checkpoint", type=Path, help="a Lightning checkpoint or exported weights")
    sub.add_argument("--device", default="cpu", help="where the network runs (default: %(default)s)")
    sub.add_argument("--quick", action="store_true", help="leave out oxipng and JPEG XL effort 9, WebP in less time")
    command("models", models, "list the shipped weights")
    sub = command("export", export, "weights for sharing from a Lightning checkpoint")
    sub.add_argument("--checkpoint", type=Path, required=True)
    sub.add_argument("--output", type=Path, required=True)
    sub.add_argument("--full", action="store_true", help="keep float32 (default: half precision)")
    sub.add_argument("--force", action="store_true", help="overwrite an existing file")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns 0, 1 if a file failed, 2 for a mistake in the call."""
    arguments = build_parser().parse_args(args)
    try:
        checkout.require()
        return arguments.run(arguments)
    except USER_ERRORS as error:
        complain(f"codec.py: {error}")
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
