"""The jobs of one process of a command of codec.py, and what a person is told of its part."""

import argparse
from collections.abc import Callable
from pathlib import Path

from cli.file_jobs import Existing, Job, Names, Outcome, find_jobs, found_files
from cli.job_pool import console
from cli.parts import WHOLE, Part, chosen_part


def own_jobs(
    arguments: argparse.Namespace, names: Names, accepts: Callable[[Path], bool]
) -> tuple[list[Job], list[Outcome]]:
    """This process's part of the command's jobs, without those that are done."""
    part = chosen_part(arguments.part)
    existing = Existing(arguments.force, arguments.resume)
    found = find_jobs(arguments.files, arguments.output, names, accepts, existing, part)
    if found.kept:
        console.print(f"{found.kept} results are there already", markup=False, highlight=False)
    announce(part, len(found.jobs))
    return found.jobs, found.refused


def announce(part: Part, jobs: int) -> None:
    """Where there are several, which this one is."""
    if part != WHOLE:
        console.print(f"{part}: {jobs} files", markup=False, highlight=False)


def own_files(arguments: argparse.Namespace, accepts: Callable[[Path], bool]) -> tuple[list[Job], list[Outcome]]:
    """The same for a command that writes nothing; what is no file, the first part names."""
    pairs, refused = found_files(arguments.files, accepts)
    part = chosen_part(arguments.part)
    jobs = [Job(path, path) for number, (path, _) in enumerate(pairs) if part.takes(number)]
    announce(part, len(jobs))
    return jobs, refused if part.takes(0) else []
