"""Run a wandb sweep file without a server: ``python sweep.py sweeps/<method>.yaml [--count N] [--workers N]``.

The file is the one that ``wandb sweep`` takes: grid, random and bayes, early termination by hyperband. Each trial is a
process of its own, started as wandb's agent starts it, and writes to ``runs/sweeps/<file>/<trial>/000``. A trial is
named after its parameters, so the same command, after whatever end, skips the finished trials and continues the
unfinished ones; to begin anew, delete the folder. ``python sweep.py table FOLDER`` ranks any runs. See docs/sweeps.md.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from cli import checkout, claim
from cli.finished_runs import RANKED
from cli.sweeps import plots, ranking, sweep_file
from cli.sweeps.distributions import Parameters
from cli.sweeps.hyperband import hyperband
from cli.sweeps.processes import command_of
from cli.sweeps.runner import Runner
from cli.sweeps.search import Search, limit_of, search_of
from cli.sweeps.trial import FAILED, UNFINISHED, Trial

USER_ERRORS = (ValueError, TypeError, ArithmeticError, OSError, yaml.YAMLError)
"""The middle two from draws."""


def positive(text: str) -> int:
    """A number of trials or workers."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


def show(found: ranking.Ranking, folder: Path) -> None:
    """Print the table, and leave it and the plot in the folder."""
    ranking.print_table(found)
    table, picture = (folder / name for name in RANKED)
    ranking.write_csv(found, table)
    is_drawn = plots.plot(found, picture)
    print("written:", f"{table}, {picture}" if is_drawn else table)


def table(args: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="sweep.py table", description="Rank runs by a metric.")
    parser.add_argument("folders", nargs="+", type=Path, help="runs, or folders that hold some")
    parser.add_argument("--metric", help="default: the one that the first run monitors")
    parser.add_argument("--goal", choices=["minimize", "maximize"], help="default: as that run's config says")
    parser.add_argument("--output", type=Path, help=f"folder for {' and '.join(RANKED)}; default: the first one")
    options = parser.parse_args(args)
    try:
        found = ranking.of_runs(options.folders, options.metric, options.goal)
        folder = options.output or options.folders[0]
        folder.mkdir(parents=True, exist_ok=True)
        show(found, folder)
    except USER_ERRORS as error:
        parser.exit(2, f"error: {' '.join(str(error).split())}\n")
    return 0


def print_commands(sweep: Parameters, search: Search, limit: int | None, folder: Path) -> None:
    """The commands of the trials, as they can be told before any has run."""
    trials: list[Trial] = []
    while (limit is None or len(trials) < limit) and (plan := search.propose(trials)):
        trials.append(Trial(plan[0], folder, plan[1]))
        print(*command_of(sweep, plan[0], Path(json.dumps(plan[0]))))


def main(args: Sequence[str] | None = None) -> int:
    """Exit code 0, 1 if a trial failed, or 2 for a mistake in the file or the call."""
    words = list(sys.argv[1:] if args is None else args)
    if words[:1] == ["table"]:
        return table(words[1:])
    about = "Run a wandb sweep file without a server; the same command goes on with an interrupted sweep."
    parser = argparse.ArgumentParser(description=about, epilog="sweep.py table FOLDER ... ranks any runs.")
    parser.add_argument("file", type=Path, help="such as sweeps/l3c.yaml")
    parser.add_argument("--count", type=positive, help="trials at most; random and bayes run 10 unless told")
    parser.add_argument("--workers", type=positive, default=1, help="trials side by side; default: %(default)s")
    parser.add_argument("--method", choices=sweep_file.METHODS, help="instead of the file's")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    options = parser.parse_args(words)
    folder = Path("runs", "sweeps", options.file.stem)
    try:
        checkout.require()
        sweep = sweep_file.load(options.file)
        if not (method := options.method or sweep.get("method")):
            raise ValueError("it names no method: write method: grid, random or bayes, or give --method")
        search, limit = search_of(sweep, method, options.seed), limit_of(sweep, method, options.count)
        if options.dry_run:
            print_commands(sweep, search, limit, folder)
            return 0
        runner = Runner(sweep, folder, search, limit, hyperband(sweep), options.workers)
        with claim.session():
            folder.mkdir(parents=True, exist_ok=True)
            claim.lock(folder)
            trials = runner.run()
    except USER_ERRORS as error:
        parser.exit(2, f"error: {options.file}: {' '.join(str(error).split())}\n")
    metric = sweep.get("metric", {})
    show(ranking.of_trials(trials, metric.get("name"), metric.get("goal") == "maximize"), folder)
    return int(any(trial.state in (FAILED, UNFINISHED) for trial in trials))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
