"""From the files and folders of a command line to jobs: which file becomes which, and what is refused at once."""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cli.parts import WHOLE, Part
from modules.components.files.whole_files import remove_leftovers

STANDARD = Path("-")
"""Stands for standard input as a source, for standard output as a target."""
LONGEST_NAME = 255
"""Bytes of a file name, on every file system in use."""
MAX_BYTES = 1 << 31
"""Of a file that is read whole."""


class Job(NamedTuple):
    source: Path
    target: Path


class Outcome(NamedTuple):
    source: Path
    bytes_in: int = 0
    bytes_out: int = 0
    subpixels: int = 0
    error: str = ""
    notes: Sequence[str] = ()
    """What the result does not keep of the source."""


class Names(NamedTuple):
    """How results are called."""

    suffix: str
    """Of a result."""
    replaced: Collection[str]
    """Suffixes of sources that it takes the place of; to another name it is added."""

    def short(self, path: Path) -> Path:
        """a.png -> a.l3c; a.png.l3c -> a.png."""
        base = path.with_suffix("") if path.suffix.lower() in self.replaced else path
        return base if base.suffix.lower() == self.suffix else self.full(base)

    def full(self, path: Path) -> Path:
        """a.png -> a.png.l3c: the name of sources that differ in their suffix only."""
        return path.with_name(path.name + self.suffix)


def printable(text: object) -> str:
    """One line without control characters: file names and metadata may hold a terminal's escape sequences."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def named(text: str) -> Path:
    """The path of an argument; only "-" itself is standard input or output, "./-" is a file."""
    return on_disk(Path(text)) if text != str(STANDARD) else STANDARD


def on_disk(path: Path) -> Path:
    return path.absolute() if path == STANDARD else path


def refusal(path: Path) -> str:
    """Why ``path`` cannot be read as a file; empty if it can."""
    try:
        if path == STANDARD or path.is_file():
            return ""
        return "not a regular file" if path.exists() else "no such file"
    except OSError as error:  # a name that is too long, a folder that may not be searched
        return error.strerror or str(error)


def is_folder(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.is_dir()
    return False


def found_files(
    sources: Sequence[Path], accepts: Callable[[Path], bool]
) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """(path, path below the folder named) of every file named and every accepted file in a folder named, once each."""
    pairs: dict[tuple[Path, Path], None] = {}
    refused = []
    for source in sources:
        if not is_folder(source):
            pairs[source, Path(source.name)] = None
            continue
        found = [(on_disk(p), p.relative_to(source)) for p in sorted(source.rglob("*")) if not is_other(p)]
        inside = [(path, relative) for path, relative in found if accepts(path)]
        pairs |= dict.fromkeys(inside)
        if not inside:
            refused.append(Outcome(source, error="no files for this command in the folder"))
    reasons = {path: refusal(path) for path, _ in pairs}
    refused += [Outcome(path, error=reason) for path, reason in reasons.items() if reason]
    return [(path, relative) for path, relative in pairs if not reasons[path]], refused


def is_other(path: Path) -> bool:
    """Whether ``path`` is known to be no regular file; one that cannot be asked is named with the reason."""
    with contextlib.suppress(OSError):
        return not path.is_file()
    return False


def one_target(sources: Sequence[Path], output: Path, names: Names) -> bool:
    """Whether ``output`` is the result itself, not a folder.

    Raises:
        ValueError: if it is neither, or stands for several results.
    """
    single = output == STANDARD or (output.suffix.lower() == names.suffix and not is_folder(output))
    if single and (len(sources) > 1 or is_folder(sources[0])):
        raise ValueError(f"--output {output} is one file, for one input; name a folder")
    if output == STANDARD and sys.stdout.isatty():
        raise ValueError("--output - would write bytes to the terminal; redirect it")
    if not single and STANDARD in sources:
        raise ValueError(f"standard input needs --output NAME{names.suffix} or --output -")
    if not single and (output.is_file() or output.suffix.lower() in names.replaced):
        raise ValueError(f"--output {output} is no folder, and a result is called NAME{names.suffix}")
    return single


class Existing(NamedTuple):
    """What becomes of results that are there: refused, unless one of these says otherwise."""

    force: bool = False
    """They are made again and replaced."""
    resume: bool = False
    """They are kept, since they appeared whole; what a killed process left of another one is removed."""


class Found(NamedTuple):
    jobs: list[Job]
    refused: list[Outcome]
    kept: int
    """Jobs left out, since their results are there."""


def find_jobs(
    sources: Sequence[Path],
    output: Path,
    names: Names,
    accepts: Callable[[Path], bool],
    existing: Existing,
    part: Part = WHOLE,
) -> Found:
    """Jobs for every file of ``part``, and the outcomes refused at once; of no certain file by the first part only.

    The files are numbered before the results are looked at, which other parts are writing meanwhile.

    Raises:
        ValueError: for an ``output`` that does not fit the sources.
    """
    if one_target(sources, output, names):
        pairs, refused = found_files(sources, accepts)
        planned = [Job(path, output) for path, _ in pairs]
    else:
        pairs, refused = found_files(sources, accepts)
        times = Counter(names.short(relative) for _, relative in pairs)
        planned = [
            Job(path, output / (names.short(relative) if times[names.short(relative)] == 1 else names.full(relative)))
            for path, relative in pairs
        ]
    jobs: list[Job] = []
    kept = 0
    refused = refused if part.takes(0) else []
    for number, (job, error) in enumerate(zip(planned, target_errors(planned, existing), strict=True)):
        if not part.takes(number):
            continue
        if error:
            refused.append(Outcome(job.source, error=error))
        elif existing.resume and job.target != STANDARD and job.target.exists():
            kept += 1
        else:
            jobs.append(job)
    if existing.resume:
        for job in jobs:
            remove_leftovers(job.target)
    return Found(jobs, refused, kept)


def target_errors(jobs: Sequence[Job], existing: Existing) -> Iterator[str]:
    """For each job why its target cannot be written; empty if it can."""
    taken: set[Path] = set()
    for _, target in jobs:
        try:
            error = target_error(target, taken, existing)
        except OSError as reason:
            error = f"{target}: {reason.strerror or reason}"
        if not error:
            taken.add(target)
        yield error


def target_error(target: Path, taken: Collection[Path], existing: Existing) -> str:
    if target == STANDARD:
        return ""
    if len(target.name.encode(errors="surrogateescape")) > LONGEST_NAME:
        return f"its result's name {target.name} would be longer than {LONGEST_NAME} bytes"
    if target in taken:
        return f"another input already becomes {target}"
    if target.exists() and not target.is_file():
        return f"{target} is there and not a regular file"
    if target.exists() and not any(existing):
        return f"{target} exists; --force overwrites it, --resume keeps it"
    return ""


def read_whole(path: Path) -> bytes:
    """The bytes of a file or of standard input.

    Raises:
        ValueError: if there are more than ``MAX_BYTES``.
    """
    if path == STANDARD:
        data = sys.stdin.buffer.read(MAX_BYTES + 1)
    else:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES >> 30} GiB")
    return data
