"""Compress and decompress image files with trained networks.

    python codec.py compress photo.png folder/ --output out/        out/photo.l3c, out/.../*.l3c
    python codec.py decompress out/ --output back/                  back/photo.png, ...
    python codec.py decompress face.dplc --samples 2 --output back/      back/face.png, face.1.png: random draws
    python codec.py sample --checkpoint best.ckpt --samples 16 --output out/
    python codec.py info out/photo.l3c
    python codec.py models
    python codec.py export --checkpoint best.ckpt --output weights/mine.pt

A method takes part by having modules/<method>/codec.py with a class ``Codec(network, device=, precision=, coder=)``
that has ``extension``, ``fingerprint``, ``compress(pixels, metadata)`` and ``decompress(container)``; one whose decoder
is random also has ``draws(container, samples, seed)`` and, where it needs no file, ``sample(samples, seed)``.
"""

import argparse
import functools
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # huge pages make fresh tensors several times cheaper

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from modules.components.checkpoint_file import CheckpointError
from modules.components.coding.container import MAGIC, CorruptFileError, pack, unpack
from modules.components.coding.exact_image import SUFFIXES, read_exact, replace_with, write_png
from modules.components.coding.model_file import load_network, read_network_config, save_weights

WEIGHTS = Path(__file__).resolve().parent / "weights"
DEFAULT_MODEL = "l3c"
USER_ERRORS = (ValueError, OSError, RuntimeError)

console = Console(stderr=True, soft_wrap=True)


class Job(NamedTuple):
    source: Path
    target: Path


class Outcome(NamedTuple):
    source: Path
    bytes_in: int
    bytes_out: int
    subpixels: int
    error: str = ""


def load_codec(path: Path, **options: Any) -> Any:
    """The codec of a weights file or checkpoint.

    Raises:
        FileNotFoundError, CheckpointError: if it cannot be loaded or its method has no codec.
    """
    method, network = load_network(path)
    try:
        codec_class = importlib.import_module(f"modules.{method}.codec").Codec
    except ImportError as error:
        raise CheckpointError(f"{path}: the method {method} has no codec") from error
    return codec_class(network, **options)


def shipped_models() -> dict[str, Path]:
    return {path.stem: path for path in sorted(WEIGHTS.glob("*.pt"))}


def chosen_model(arguments: argparse.Namespace) -> Path:
    """Path of --checkpoint, of --model, or of the default.

    Raises:
        FileNotFoundError: naming the models there are.
    """
    if arguments.checkpoint:
        return arguments.checkpoint
    models = shipped_models()
    name = arguments.model or DEFAULT_MODEL
    if name not in models:
        raise FileNotFoundError(f"no model {name!r} in {WEIGHTS}; there are: {', '.join(models) or 'none'}")
    return models[name]


@functools.cache
def codec_of(path: Path, device: str, precision: str, coder: str) -> Any:
    return load_codec(path, device=device, precision=precision, coder=coder)


@functools.cache
def codec_for_file(fingerprint: bytes, candidates: tuple[Path, ...], device: str) -> Any:
    """The codec whose fingerprint the file carries.

    Raises:
        CorruptFileError: if none of the candidates is the one.
    """
    for path in candidates:
        codec = load_codec(path, device=device)
        if codec.fingerprint == fingerprint:
            return codec
    names = ", ".join(path.stem for path in candidates) or "none"
    raise CorruptFileError(
        f"the file was written by model {fingerprint.hex()}, which is none of: {names}; name its checkpoint "
        "with --checkpoint"
    )


def compress_file(job: Job, model: Path, device: str, precision: str, coder: str) -> Outcome:
    codec = codec_of(model, device, precision, coder)
    pixels, metadata = read_exact(job.source)
    file = pack(codec.compress(pixels, metadata))
    replace_with(job.target, lambda temporary: temporary.write_bytes(file))
    return Outcome(job.source, job.source.stat().st_size, len(file), pixels.size)


def decompress_file(
    job: Job, candidates: tuple[Path, ...], device: str, samples: int, seed: int, force: bool
) -> Outcome:
    file = job.source.read_bytes()
    container = unpack(file)
    codec = codec_for_file(container.model, candidates, device)
    if (samples, seed) == (1, 0):
        images = [codec.decompress(container)]
    elif hasattr(codec, "draws"):
        images = codec.draws(container, samples, seed)
    else:
        raise ValueError(f"{container.method} decodes to one image: leave out --samples and --seed")
    targets = [job.target, *(job.target.with_suffix(f".{number}.png") for number in range(1, samples))]
    if taken := [target for target in targets[1:] if target.exists() and not force]:
        raise ValueError(f"{taken[0]} exists; --force overwrites it")
    for target, pixels in zip(targets, images, strict=True):
        write_png(target, pixels, container.metadata)
    bytes_out = sum(target.stat().st_size for target in targets)
    return Outcome(job.source, len(file), bytes_out, sum(pixels.size for pixels in images))


def guarded(work: Callable[..., Outcome], job: Job, *arguments: Any) -> Outcome:
    """The outcome of one file; whatever is wrong with the file becomes one line."""
    try:
        return work(job, *arguments)
    except (*USER_ERRORS, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return Outcome(job.source, 0, 0, 0, reason)


def is_container(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def find_jobs(
    sources: Sequence[Path], output: Path, suffix: str, accepts: Callable[[Path], bool], force: bool
) -> tuple[list[Job], list[Outcome]]:
    """Jobs for every file named and every accepted file in a folder named, and the outcomes refused at once."""
    jobs, refused, targets = [], [], set()
    for source in sources:
        if source.is_dir():
            pairs = [(p, p.relative_to(source)) for p in sorted(source.rglob("*")) if p.is_file() and accepts(p)]
            if not pairs:
                refused.append(Outcome(source, 0, 0, 0, "no files for this command in the folder"))
        else:
            pairs = [(source, Path(source.name))]
        for path, relative in pairs:
            target = output / relative.with_suffix(suffix)
            if not path.exists():
                refused.append(Outcome(path, 0, 0, 0, "no such file"))
            elif target in targets:
                refused.append(Outcome(path, 0, 0, 0, f"another input already becomes {target}"))
            elif target.exists() and not force:
                refused.append(Outcome(path, 0, 0, 0, f"{target} exists; --force overwrites it"))
            else:
                targets.add(target)
                jobs.append(Job(path, target))
    return jobs, refused


def _start_worker(threads: int) -> None:
    torch.set_num_threads(threads)


def outcomes_of(work: Callable[..., Outcome], jobs: list[Job], arguments: tuple, workers: int) -> Iterable[Outcome]:
    """Outcomes as they come, from this process or from ``workers`` processes that share the cores."""
    if workers <= 1 or len(jobs) <= 1:
        yield from (guarded(work, job, *arguments) for job in jobs)
        return
    threads = max(1, torch.get_num_threads() // workers)
    context = multiprocessing.get_context("spawn")
    pool: Executor
    with ProcessPoolExecutor(workers, context, _start_worker, (threads,)) as pool:
        futures: dict[Future[Outcome], Job] = {pool.submit(guarded, work, job, *arguments): job for job in jobs}
        for future in as_completed(futures):
            try:
                yield future.result()
            except Exception as error:  # a worker killed from outside, for memory say
                yield Outcome(futures[future].source, 0, 0, 0, f"its worker process died: {error}")


def run_jobs(
    verb: str, work: Callable[..., Outcome], jobs: list[Job], refused: list[Outcome], arguments: tuple, workers: int
) -> int:
    """Do the work behind a progress bar, report, and return the exit code."""
    done: list[Outcome] = []
    failed = list(refused)
    columns = (
        TextColumn(verb),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, console=console, disable=len(jobs) < 2) as progress:
        task = progress.add_task(verb, total=len(jobs), rate="")
        for outcome in outcomes_of(work, jobs, arguments, workers):
            (failed if outcome.error else done).append(outcome)
            progress.update(task, advance=1, rate=_rate(done, verb))
    for outcome in failed:
        console.print(f"{outcome.source}: {outcome.error}", style="red", markup=False, highlight=False)
    if done:
        sizes = f"{sum(o.bytes_in for o in done):,} -> {sum(o.bytes_out for o in done):,} bytes"
        print(f"{len(done)} {verb}ed, {sizes} {_rate(done, verb)}".rstrip())
    return 1 if failed else 0


def _rate(done: list[Outcome], verb: str) -> str:
    if not done or verb != "compress":
        return ""
    return f"{sum(8 * o.bytes_out / o.subpixels for o in done) / len(done):.3f} bpsp"


def compress(arguments: argparse.Namespace) -> int:
    model = chosen_model(arguments)
    options = (model, arguments.device, arguments.precision, arguments.coder)
    extension = codec_of(*options).extension
    accepts = lambda path: path.suffix.lower() in SUFFIXES  # noqa: E731
    jobs, refused = find_jobs(arguments.files, arguments.output, extension, accepts, arguments.force)
    return run_jobs("compress", compress_file, jobs, refused, options, arguments.workers)


def decompress(arguments: argparse.Namespace) -> int:
    candidates = (arguments.checkpoint,) if arguments.checkpoint else tuple(shipped_models().values())
    jobs, refused = find_jobs(arguments.files, arguments.output, ".png", is_container, arguments.force)
    options = (candidates, arguments.device, arguments.samples, arguments.seed, arguments.force)
    return run_jobs("decompress", decompress_file, jobs, refused, options, arguments.workers)


def sample(arguments: argparse.Namespace) -> int:
    """Random images of a generative model, without a file."""
    codec = load_codec(arguments.checkpoint, device=arguments.device)
    if not hasattr(codec, "sample"):
        raise ValueError(f"{arguments.checkpoint} is of a method that decodes files only")
    targets = [arguments.output / f"sample{number:04d}.png" for number in range(arguments.samples)]
    if taken := [target for target in targets if target.exists() and not arguments.force]:
        raise FileExistsError(f"{taken[0]} exists; --force overwrites it")
    for target, pixels in zip(targets, codec.sample(arguments.samples, arguments.seed), strict=True):
        write_png(target, pixels, {})
    print(f"{len(targets)} samples in {arguments.output}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    """Print what a file's header says, after all its checks."""
    code = 0
    for path in arguments.files:
        try:
            file = path.read_bytes()
            c = unpack(file)
        except USER_ERRORS as error:
            console.print(f"{path}: {error}", style="red", markup=False, highlight=False)
            code = 1
            continue
        subpixels = c.width * c.height * (1 if c.mode == "L" else 3)
        kept = ", ".join(f"{name} ({len(data)} bytes)" for name, data in c.metadata.items()) or "none"
        print(
            f"{path}: {c.method}, {c.width} x {c.height} {c.mode}, {len(file):,} bytes, "
            f"{8 * len(file) / subpixels:.3f} bpsp\n"
            f"  model {c.model.hex()}, {c.precision}, {c.threads or 'no'} CPU threads, coder {c.coder}, "
            f"{len(c.tiles)} tiles\n  metadata: {kept}"
        )
    return code


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
    """Cut a Lightning checkpoint down to its network."""
    config, state = read_network_config(arguments.checkpoint)
    if arguments.output.exists() and not arguments.force:
        raise FileExistsError(f"{arguments.output} exists; --force overwrites it")
    replace_with(arguments.output, lambda temporary: save_weights(temporary, config, state, not arguments.full))
    fingerprint = load_codec(arguments.output).fingerprint.hex()
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes, model {fingerprint}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codec.py", description="Compress images with trained networks.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(run=run)
        return sub

    def batch_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("files", nargs="+", type=Path, help="files and folders")
        sub.add_argument("--output", type=Path, required=True, help="folder for the results")
        sub.add_argument("--checkpoint", type=Path, help="a Lightning checkpoint or exported weights")
        sub.add_argument("--device", default="cpu", help="where the network runs, e.g. cuda (default: %(default)s)")
        sub.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
        sub.add_argument("--force", action="store_true", help="overwrite existing results")

    def random_options(sub: argparse.ArgumentParser, help_text: str, samples: int) -> None:
        sub.add_argument("--samples", type=int, default=samples, help=help_text)
        sub.add_argument("--seed", type=int, default=0, help="of random decoding (default: %(default)s)")

    sub = command("compress", compress, "images to compressed files; each is decoded again before it is written")
    batch_options(sub)
    sub.add_argument("--model", help=f"shipped weights by name (default: {DEFAULT_MODEL}); see the command models")
    precision = "of the network; float64 is slower and lets files decode on other machines (default: %(default)s)"
    sub.add_argument("--precision", choices=("float32", "float64"), default="float32", help=precision)
    coder = "entropy coder (default: %(default)s)"
    sub.add_argument("--coder", choices=("rans", "torchac"), default="rans", help=coder)
    sub = command("decompress", decompress, "compressed files to PNG")
    batch_options(sub)
    random_options(sub, "images to decode from each file, for a method with a random decoder (default: %(default)s)", 1)
    sub = command("sample", sample, "random images of a generative model, without a file")
    sub.add_argument("--checkpoint", type=Path, required=True, help="a Lightning checkpoint or exported weights")
    sub.add_argument("--output", type=Path, required=True, help="folder for the images")
    sub.add_argument("--device", default="cpu", help="where the network runs, e.g. cuda (default: %(default)s)")
    sub.add_argument("--force", action="store_true", help="overwrite existing images")
    random_options(sub, "images to draw (default: %(default)s)", 16)
    command("info", info, "what a compressed file says of itself").add_argument("files", nargs="+", type=Path)
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
        return arguments.run(arguments)
    except USER_ERRORS as error:
        console.print(f"codec.py: {' '.join(str(error).split())}", style="red", markup=False, highlight=False)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
