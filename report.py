"""One HTML page about runs: what differs between them, curves, results, tables and pictures; it needs no network.

    python report.py runs/l3c runs/ecg/narrow_cnn/003 --output report.html

Every folder at or below those named that ``train.py`` or ``sweep.py`` wrote counts, finished or not.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cli import page
from cli.finished_runs import CONFIG, Run, by_model, differences, read_runs
from modules.components.files.whole_files import write_whole

MAX_PLOTS = 40
MAX_OPEN = 20
"""Lines of a table of options that is shown unfolded."""
NOT_PLOTTED = ("lr-",)


def summary(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each run: where, how long, on what, and the number that its config watches."""
    rows = []
    for i, run in enumerate(runs):
        last = list(run.results.values())[-1] if run.results else {}
        fit = run.results.get("fit", last)
        monitor, score = fit.get("monitor"), fit.get("best_score")
        best = f"{monitor} {number(score)}" if monitor and score is not None else ""
        seconds = sum(float(result.get("seconds") or 0) for result in run.results.values())
        name = page.link(f"run{i}", run.name)
        commit = str(last.get("commit") or "")[:10] + ("+" if last.get("dirty") else "")
        done = ", ".join(run.results) or "not finished"
        rows.append([name, done, best, f"{seconds:.0f}", str(last.get("device", "")), commit])
    yield page.table(["run", "done", "best", "seconds", "device", "commit"], rows)


def comparison(runs: Sequence[Run]) -> Iterator[str]:
    """For each module with two runs or more, the options in which they differ."""
    groups = {model: group for model, group in by_model(runs).items() if len(group) > 1}
    if groups:
        yield page.heading(2, "What differs")
    for model, group in groups.items():
        found = [[name, *values] for name, values in differences(group)]
        title = f"{model}: {len(found)} options of {len(group)} runs"
        yield page.foldable(title, page.table(["option", *(run.name for run in group)], found), len(found) <= MAX_OPEN)


def curves(runs: Sequence[Run]) -> Iterator[str]:
    """A plot for each metric; validation and test first."""
    names = {name for run in runs for name in run.curves if not name.startswith(NOT_PLOTTED)}
    ordered = sorted(names, key=lambda name: (name.startswith("train/"), name))
    if not ordered:
        return
    colours = {run.name: f"C{i % 10}" for i, run in enumerate(runs)}
    yield page.heading(2, "Curves")
    yield '<div class="plots">'
    for name in ordered[:MAX_PLOTS]:
        yield page.plot(name, {run.name: run.curves[name] for run in runs if name in run.curves}, colours)
    yield "</div>"
    if len(ordered) > MAX_PLOTS:
        yield page.paragraph(f"and {len(ordered) - MAX_PLOTS} more in metrics.csv", "note")


def details(run: Run, anchor: str) -> Iterator[str]:
    yield page.heading(2, run.name, anchor)
    for subcommand, result in run.results.items():
        yield page.heading(3, subcommand)
        yield page.code(result.get("command", ""))
        metrics = result.get("metrics")
        if isinstance(metrics, dict) and metrics:
            yield page.table(["metric", "value"], [[str(name), number(value)] for name, value in metrics.items()])
    if not run.results:
        yield page.paragraph(f"The run has a {CONFIG} and no result yet.", "note")
    for table in run.tables:
        yield page.heading(3, table.name)
        yield page.table(table.header, table.rows)
        if table.num_rows > len(table.rows):
            yield page.paragraph(f"the first {len(table.rows)} of {table.num_rows} rows", "note")
    for path in run.pictures:
        yield page.picture_file(path, path.relative_to(run.folder).as_posix())
    for complaint in run.complaints:
        yield page.paragraph(f"could not be read: {complaint}", "note")


def number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def report(runs: Sequence[Run]) -> str:
    parts = [*summary(runs), *curves(runs), *comparison(runs)]
    for i, run in enumerate(runs):
        parts += details(run, f"run{i}")
    return page.page(f"{len(runs)} runs" if len(runs) > 1 else runs[0].name, parts)


def main(args: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for a mistake in the call."""
    parser = argparse.ArgumentParser(prog="report.py", description="One HTML page about runs.")
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders that hold some")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="default: %(default)s")
    arguments = parser.parse_args(args)
    try:
        runs = read_runs(arguments.folders)
        write_whole(arguments.output, report(runs).encode())
    except OSError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    size = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output}: {len(runs)} runs, {sum(len(run.pictures) for run in runs)} pictures, {size:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
