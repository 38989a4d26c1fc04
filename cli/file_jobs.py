"""From the files and folders of a command line to jobs: which file becomes which, and what is refused at once."""

import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

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


def refusal(path: Path) -> str:
    """Why ``path`` cannot be read as a file; empty if it can."""
    if path == STANDARD or path.is_file():
        return ""
    return "not a regular file" if path.exists() else "no such file"


def found_files(
    sources: Sequence[Path], accepts: Callable[[Path], bool]
) -> tuple[list[tuple[Path, Path]], list[Outcome]]:
    """(path, path below the folder named) of every file named and every accepted file in a folder named, once each."""
    pairs: dict[tuple[Path, Path], None] = {}
    refused = []
    for source in sources:
        if not source.is_dir():
            pairs[source, Path(source.name)] = None
            continue
        inside = [(p, p.relative_to(source)) for p in sorted(source.rglob("*")) if p.is_file() and accepts(p)]
        pairs |= dict.fromkeys(inside)
        if not inside:
            refused.append(Outcome(source, error="no files for this command in the folder"))
    refused += [Outcome(path, error=reason) for path, _ in pairs if (reason := refusal(path))]
    return [(path, relative) for path, relative in pairs if not refusal(path)], refused


def one_target(sources: Sequence[Path], output: Path, names: Names) -> bool:
    """Whether ``output`` is the result itself, not a folder.

    Raises:
        ValueError: if it is neither, or stands for several results.
    """
    single = output == STANDARD or (output.suffix.lower() == names.suffix and not output.is_dir())
    if single and (len(sources) > 1 or sources[0].is_dir()):
        raise ValueError(f"--output {output} is one file, for one input; name a folder")
    if output == STANDARD and sys.stdout.isatty():
        raise ValueError("--output - would write bytes to the terminal; redirect it")
    if not single and STANDARD in sources:
        raise ValueError(f"standard input needs --output NAME{names.suffix} or --output -")
    if not single and (output.is_file() or output.suffix.lower() in names.replaced):
        raise ValueError(f"--output {output} is no folder, and a result is called NAME{names.suffix}")
    return single


def find_jobs(
    sources: Sequence[Path], output: Path, names: Names, accepts: Callable[[Path], bool], force: bool
) -> tuple[list[Job], list[Outcome]]:
    """Jobs for every file, and the outcomes refused at once.

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
    for job, error in zip(planned, target_errors(planned, force), strict=True):
        if error:
            refused.append(Outcome(job.source, error=error))
        else:
            jobs.append(job)
    return jobs, refused


def target_errors(jobs: Sequence[Job], force: bool) -> Iterator[str]:
    """For each job why its target cannot be written; empty if it can."""
    taken: set[Path] = set()
    for _, target in jobs:
        if target == STANDARD:
            yield ""
        elif len(target.name.encode(errors="surrogateescape")) > LONGEST_NAME:
            yield f"its result's name {target.name} would be longer than {LONGEST_NAME} bytes"
        elif target in taken:
            yield f"another input already becomes {target}"
        elif target.exists() and not target.is_file():
            yield f"{target} is there and not a regular file"
        elif target.exists() and not force:
            yield f"{target} exists; --force overwrites it"
        else:
            taken.add(target)
            yield ""


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
