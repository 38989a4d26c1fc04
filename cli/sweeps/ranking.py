"""Trials or runs as a ranked table: printed, as CSV, and as a plot of the metric against each parameter."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table

from cli.finished_runs import Run, differences, read_runs
from cli.sweeps.distributions import Parameters
from cli.sweeps.trial import FINISHED, UNFINISHED, Trial, read_json

COLUMN, MOST_COLUMNS = 16, 6
"""Characters that a column of the printed table wants; so many are printed whatever the terminal's width."""


class Row(NamedTuple):
    name: str
    state: str
    score: float | None
    """None for a trial that did not get that far; NaN for one that did not measure the metric."""
    parameters: Parameters

    @property
    def is_ranked(self) -> bool:
        return self.score is not None and math.isfinite(self.score)


class Ranking(NamedTuple):
    rows: list[Row]
    """Best first; then those without a number."""
    metric: str
    maximize: bool

    @property
    def varied(self) -> list[str]:
        """Parameters that differ between rows."""
        names = dict.fromkeys(name for row in self.rows for name in row.parameters)
        values = {name: {json.dumps(row.parameters.get(name), sort_keys=True) for row in self.rows} for name in names}
        return [name for name in names if len(values[name]) > 1]


def ranked(rows: Sequence[Row], metric: str | None, maximize: bool) -> Ranking:
    def cost(row: Row) -> tuple[bool, float]:
        return not row.is_ranked, (-row.score if maximize else row.score) if row.is_ranked else 0.0  # type: ignore[operator,return-value]

    return Ranking(sorted(rows, key=cost), metric or "metric", maximize)


def of_trials(trials: Sequence[Trial], metric: str | None, maximize: bool) -> Ranking:
    rows = [Row(trial.name, trial.state, trial.score(metric, maximize), trial.parameters) for trial in trials]
    return ranked(rows, metric, maximize)


def of_runs(folders: Sequence[Path], metric: str | None, goal: str | None) -> Ranking:
    """Any runs, with the options in which their configs differ.

    Args:
        metric: None for the one that the first run monitors.
        goal: minimize, maximize or None for what that run's config says.

    Raises:
        FileNotFoundError: for a path that is no folder, or if there is no run.
        ValueError: if no metric is named and none is monitored, or no run has it.
    """
    runs = read_runs(folders)
    metric = metric or next((name for run in runs if (name := monitored(run))), None)
    if metric is None:
        raise ValueError(f"none of these runs monitors a metric: name one with --metric, of {measured(runs)}")
    modes = [run.config.get("run.mode", "").strip('"') for run in runs if monitored(run) == metric]
    maximize = goal == "maximize" if goal else modes[:1] == ["max"]
    found = dict(differences(runs))
    rows = []
    for i, run in enumerate(runs):
        parameters = {name: parsed(values[i]) for name, values in found.items()}
        rows.append(Row(run.name, state_of(run), value_of(run, metric, maximize), parameters))
    if not any(row.is_ranked for row in rows):
        raise ValueError(f"no run has the metric {metric}; they have {measured(runs)}")
    return ranked(rows, metric, maximize)


def measured(runs: Sequence[Run]) -> str:
    return ", ".join(sorted({name for run in runs for name in run.curves})) or "none"


def monitored(run: Run) -> str | None:
    return run.results.get("fit", {}).get("monitor") or parsed(run.config.get("run.monitor", "null"))


def state_of(run: Run) -> str:
    """Of a sweep's run, as the sweep left it."""
    return FINISHED if "fit" in run.results else read_json(run.folder.parent / "trial.json").get("state", UNFINISHED)


def parsed(text: str) -> Any:
    return json.loads(text) if text else None


def value_of(run: Run, metric: str, maximize: bool) -> float | None:
    """The best of what the run monitors, else what it measured last."""
    fit = run.results.get("fit", {})
    if fit.get("monitor") == metric and isinstance(fit.get("best_score"), int | float):
        return fit["best_score"]
    if isinstance(value := fit.get("metrics", {}).get(metric), int | float):
        return value
    values = [value for _, value in run.curves.get(metric, [])]
    return (max(values) if maximize else min(values)) if values else None


def short(name: str) -> str:
    """A dotted option without the parts that every experiment has: network.width, optimizer.lr, data.batch_size."""
    return ".".join(name.removeprefix("model.init_args.").split(".init_args."))


def in_short(name: str, value: str) -> str:
    """A class without the path of its module."""
    return value.rpartition(".")[2] if name.endswith("class_path") else value


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def fitting(ranking: Ranking, width: int) -> list[str]:
    """As many of the varied parameters as a terminal can show: those that most rows have, the trainer's last."""
    room = max(MOST_COLUMNS, width // COLUMN - 3)
    missing = {name: sum(row.parameters.get(name) is None for row in ranking.rows) for name in ranking.varied}
    kept = sorted(missing, key=lambda name: (missing[name], name.startswith("trainer.")))[:room]
    return [name for name in missing if name in kept]


def print_table(ranking: Ranking) -> None:
    console = Console()
    names = fitting(ranking, console.width)
    table = Table("", *(Column(name, overflow="fold") for name in ("trial", ranking.metric, *map(short, names))))
    for place, row in enumerate(ranking.rows, 1):
        score = "" if row.score is None else f"{row.score:.6g}"
        note = "" if row.state == FINISHED else row.state
        values = (in_short(name, shown(row.parameters.get(name))) for name in names)
        table.add_row(str(place) if row.is_ranked else "", row.name, " ".join(filter(None, (score, note))), *values)
    console.print(table)
    num_ranked = sum(row.is_ranked for row in ranking.rows)
    better = "larger" if ranking.maximize else "smaller"
    print(f"{num_ranked} of {len(ranking.rows)} have {ranking.metric}, the {better} the better")
    if num_more := len(ranking.varied) - len(names):
        print(f"{num_more} more options in which they differ are in the table on disk")


def write_csv(ranking: Ranking, file: Path) -> None:
    names = list(dict.fromkeys(name for row in ranking.rows for name in row.parameters))
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["trial", "state", ranking.metric, *names])
        for row in ranking.rows:
            values = (row.parameters.get(name) for name in names)
            texts = (value if isinstance(value, str) else json.dumps(value) for value in values)
            writer.writerow([row.name, row.state, "" if row.score is None else row.score, *texts])
    unfinished.replace(file)
