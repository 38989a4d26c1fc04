"""One HTML page about runs: results, what differs between them, curves, tables and pictures; it needs no network.

    python report.py runs/l3c runs/ecg/narrow_cnn/003 --output report.html

Every folder at or below those named that ``train.py`` or ``sweep.py`` wrote counts, finished or not.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cli import page
from cli.finished_runs import MAX_VALUE, RANKED, Run, by_model, differences, read_run, run_folders, short_names
from cli.run_products import Picture, Products, Table, read_product, read_products
from modules.components.files.whole_files import write_whole

MAX_RUNS = 200
"""The newest are shown."""
MAX_PLOTS = 24
"""Of the runs of one module."""
MAX_OPEN, MAX_OPTIONS = 20, 200
"""Lines of a table of options that is shown unfolded, and that are shown at all, of metrics too."""
MAX_BYTES = 64 << 20
"""Of all pictures together."""
BOOKKEEPING = ("lr-", "generation", "epoch_in_generation")
"""Beginnings of logged names that are no metrics."""


class Bytes:
    """What may still be put on the page."""

    def __init__(self) -> None:
        self.left = MAX_BYTES

    def take(self, size: int) -> bool:
        """Whether it still fits."""
        self.left -= size if (fits := size <= self.left) else 0
        return fits


def summary(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each run: where, how long, on what, and the number that its config watches."""
    rows = []
    for run in runs:
        last = list(run.results.values())[-1] if run.results else {}
        fit = run.results.get("fit", last)
        monitor, score = fit.get("monitor"), fit.get("best_score")
        best = f"{monitor} {number(score)}" if monitor and score is not None else ""
        seconds = sum(result["seconds"] for result in run.results.values() if is_number(result.get("seconds")))
        commit = str(last.get("commit") or "")[:10] + ("+" if last.get("dirty") else "")
        done = ", ".join([*(run.results or ["not finished"]), *(["damaged files"] if run.complaints else [])])
        time = f"{seconds:.0f}" if run.results else ""
        rows.append([page.link(run.name, run.name), best, done, time, str(last.get("device") or ""), commit])
    yield page.table(["run", "best", "done", "seconds", "device", "commit"], rows)


def comparison(runs: Sequence[Run]) -> Iterator[str]:
    """The options in which runs of one module differ."""
    found = [[name, *values] for name, values in differences(runs)]
    if len(runs) > 1:
        table = page.table(["option", *(run.name for run in runs)], found[:MAX_OPTIONS])
        yield page.foldable(f"What differs: {len(found)} options", table, len(found) <= MAX_OPEN)
    if len(found) > MAX_OPTIONS:
        yield page.paragraph(f"the first {MAX_OPTIONS} of {len(found)}", "note")


def curves(runs: Sequence[Run]) -> Iterator[str]:
    """A plot for each metric that has a course; validation and test first."""
    names = {name for run in runs for name, curve in run.curves.items() if len(curve) > 1}
    ordered = [name for name in sorted(names, key=training_last) if not name.startswith(BOOKKEEPING)]
    if not ordered:
        return
    colours = page.colours([run.name for run in runs if run.curves])
    if len(colours) > 1:
        yield page.legend(colours)
    yield '<div class="plots">'
    for name in ordered[:MAX_PLOTS]:
        yield page.plot(name, {run.name: run.curves[name] for run in runs if name in run.curves}, colours)
    yield "</div>"
    if len(ordered) > MAX_PLOTS:
        yield page.paragraph(f"and {len(ordered) - MAX_PLOTS} more in metrics.csv", "note")


def training_last(name: str) -> tuple[bool, str]:
    """Key that sorts names of metrics."""
    return name.startswith("train/"), name


def metrics(runs: Sequence[Run]) -> Iterator[str]:
    """What each subcommand measured at its end, runs side by side; empty where a run lacks it."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for run in runs:
        for subcommand, result in run.results.items():
            measured = result.get("metrics")
            for name, value in measured.items() if isinstance(measured, dict) else ():
                if not str(name).startswith(BOOKKEEPING):
                    found.setdefault((subcommand, str(name)), {})[run.name] = number(value)
    ordered = sorted(found, key=lambda key: (key[0], training_last(key[1])))
    rows = [
        [name, subcommand, *(found[subcommand, name].get(run.name, "") for run in runs)] for subcommand, name in ordered
    ]
    if rows:
        title = "Metrics" if len(rows) <= MAX_OPTIONS else f"Metrics: the first {MAX_OPTIONS} of {len(rows)}"
        table = page.table(["metric", "by", *(run.name for run in runs)], rows[:MAX_OPTIONS])
        yield page.foldable(title, table, True)


def details(run: Run, space: Bytes) -> Iterator[str]:
    """What a run says and leaves, but for its metrics."""
    yield page.heading(3, run.name, run.name)
    for subcommand, result in run.results.items():
        yield page.paragraph(subcommand, "label")
        yield page.code(str(result.get("command") or "")[:2000])
    if not run.results:
        yield page.paragraph("The run has no result yet.", "note")
    found = read_products(run.folder)
    yield from products(found, space)
    for complaint in [*run.complaints, *found.complaints]:
        yield page.paragraph(f"not shown: {complaint}", "note")


def products(found: Products, space: Bytes) -> Iterator[str]:
    if found.pictures:
        yield '<div class="pictures">'
        yield from (shown_picture(picture, space) for picture in found.pictures)
        yield "</div>"
    for table in found.tables:
        yield shown_table(table)
    for text in found.texts:
        is_whole = text.num_lines == len(text.lines)
        title = text.name if is_whole else f"{text.name}: the first {len(text.lines)} of {text.num_lines} lines"
        yield page.foldable(title, page.lines(text.lines), True)


def shown_picture(picture: Picture, space: Bytes) -> str:
    if space.take(picture.size):
        return page.picture(picture.path.read_bytes(), picture.kind, picture.name)
    return page.paragraph(
        f"not shown: {picture.name}: the page holds {MAX_BYTES >> 20} MiB of pictures already", "note"
    )


def shown_table(table: Table) -> str:
    """Unfolded, unless it is so long that only its beginning is shown."""
    is_whole = table.num_rows == len(table.rows)
    title = table.name if is_whole else f"{table.name}: the first {len(table.rows)} of {table.num_rows} rows"
    return page.foldable(title, page.table(table.header, table.rows), is_whole)


def sweeps(runs: Sequence[Run], space: Bytes) -> Iterator[str]:
    """The table and the plot that sweep.py left above the runs, a run two levels above a trial's."""
    above = dict.fromkeys(folder for run in runs for folder in list(run.folder.parents)[:2])
    for folder in above:
        found = Products([], [], [], [])
        for path in (folder / name for name in RANKED):
            if path.exists():
                read_product(path, path.name, found)
        if found.tables or found.pictures:
            yield page.heading(2, f"Sweep {folder.name}")
            yield from products(found, space)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < MAX_VALUE


def number(value: object) -> str:
    return f"{value:.6g}" if is_number(value) else str(value)


def report(runs: Sequence[Run], num_older: int = 0) -> str:
    space = Bytes()
    parts = list(summary(runs))
    if num_older:
        parts.append(page.paragraph(f"and {num_older} older runs; name their folders to see them", "note"))
    parts += sweeps(runs, space)
    for model, group in by_model(runs).items():
        parts.append(page.heading(2, f"{model or 'no config'}, {len(group)} runs" if len(group) > 1 else model))
        parts += [*comparison(group), *metrics(group), *curves(group)]
        parts += [part for run in group for part in details(run, space)]
    return page.page(f"{len(runs)} runs" if len(runs) > 1 else runs[0].name, parts)


def newest(folders: Sequence[Path]) -> list[Path]:
    """At most MAX_RUNS of them, in their order."""
    ages = sorted(folders, key=lambda folder: folder.stat().st_mtime_ns)[-MAX_RUNS:]
    return [folder for folder in folders if folder in set(ages)]


def main(args: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for a mistake in the call."""
    parser = argparse.ArgumentParser(prog="report.py", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders that hold some")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="default: %(default)s")
    arguments = parser.parse_args(args)
    try:
        folders = run_folders(arguments.folders)
        names = dict(zip(folders, short_names(folders), strict=True))
        runs = [read_run(folder, names[folder]) for folder in newest(folders)]
        write_whole(arguments.output, report(runs, len(folders) - len(runs)).encode())
    except OSError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    size = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {len(runs)} of {len(folders)} runs, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
