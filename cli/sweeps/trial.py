"""One trial of a sweep on disk: ``runs/sweeps/<file>/<trial>/``, called after its parameters.

::

    parameters.json    what the command reads
    trial.json         number, starts, and whether it was stopped early or failed
    output.txt         what it printed, where trials run side by side
    .lock              held by the trial's process; names it
    000/               the run's folder, as of any other run

Whatever else is asked of a trial follows from these files, so a sweep that is killed knows as much as before.
"""

import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cli.metrics_table import merged
from cli.run_folder import numbered
from cli.sweeps.distributions import Parameters

FINISHED, STOPPED, FAILED, UNFINISHED = "finished", "stopped", "failed", "unfinished"
"""States: to its end; by early termination; with an error of its own; not yet, or killed."""


def name_of(parameters: Parameters) -> str:
    """Eight hex digits that equal parameters share."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a file; an empty one if there is none or half of one, as a full disk leaves it."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(file: Path, content: dict[str, Any]) -> None:
    """At once and for good: a reader finds the old content or the new."""
    unfinished = file.with_suffix(".tmp")
    with unfinished.open("w") as stream:
        stream.write(json.dumps(content, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)


@dataclass
class Trial:
    parameters: Parameters
    base: Path
    """The sweep's folder."""
    point: dict[str, float] = field(default_factory=dict)
    """Where in [0, 1] each parameter was taken, if a search chose it."""
    number: int = 0
    """The order in which the sweep planned its trials, from 1."""

    @cached_property
    def name(self) -> str:
        return name_of(self.parameters)

    @property
    def folder(self) -> Path:
        return self.base / self.name

    @property
    def record(self) -> dict[str, Any]:
        return read_json(self.folder / "trial.json")

    @property
    def starts(self) -> int:
        """How many processes it has had."""
        return int(self.record.get("starts", 0))

    def note(self, **entries: Any) -> None:
        """Keep entries of the record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        first = {"number": self.number, "parameters": self.parameters, "point": self.point}
        write_json(self.folder / "trial.json", {**first, **self.record, **entries})

    @property
    def state(self) -> str:
        if self.result is not None:
            return FINISHED
        return self.record.get("state", UNFINISHED)

    @property
    def result(self) -> dict[str, Any] | None:
        """What the newest finished fit says of itself."""
        results = (read_json(run / "result.json").get("fit") for run in numbered(self.folder))
        return next((result for result in results if isinstance(result, dict)), None)

    def history(self, metric: str | None) -> list[float]:
        """The logged values of the metric until now, in the newest run folder."""
        newest = next(iter(numbered(self.folder)), None)
        if newest is None or metric is None:
            return []
        return [float(text) for row in merged(newest) if (text := row.get(metric))]

    def score(self, metric: str | None, maximize: bool) -> float | None:
        """The metric: of a finished run its best where it is what the run monitored, else its last; of one that was
        stopped early the best until then. None for a trial that did not get that far.
        """
        if (result := self.result) is not None:
            best = result.get("best_score") if result.get("monitor") == metric else None
            last = result.get("metrics", {}).get(metric)
            return next((float(value) for value in (best, last) if value is not None), math.nan)
        if self.state != STOPPED:
            return None
        values = [value for value in self.history(metric) if math.isfinite(value)]
        return (max(values) if maximize else min(values)) if values else math.nan


def recorded(base: Path) -> list[Trial]:
    """The trials that the sweep's folder holds, in the order of their planning."""
    records = [read_json(file) for file in base.glob("*/trial.json")]
    known = [record for record in records if isinstance(record.get("parameters"), dict)]
    trials = [Trial(r["parameters"], base, r.get("point") or {}, int(r.get("number", 0))) for r in known]
    return sorted(trials, key=lambda trial: (trial.number, trial.name))
