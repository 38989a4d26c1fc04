"""What run folders hold for a reader: configs that differ, metrics over steps, results, tables and pictures.

Folders may come from strangers: whatever does not parse is left out and said so, nothing is executed.
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cli.metrics_table import rows_of

CONFIG = "config.fit.yaml"
MACHINERY = ("csv", "wandb", "checkpoints")
"""Folders of a run that hold no product."""
MAX_PICTURE_BYTES = 8 << 20
MAX_TABLE_BYTES = 4 << 20
TABLE_ROWS = 40
Curve = list[tuple[int, float]]


class Table(NamedTuple):
    name: str
    header: list[str]
    rows: list[list[str]]
    """At most TABLE_ROWS."""
    num_rows: int


class Run(NamedTuple):
    name: str
    """The path below what all runs have in common."""
    folder: Path
    config: dict[str, str]
    """Dotted name -> value, as YAML."""
    results: dict[str, dict[str, Any]]
    """Subcommand -> what result.json says of it."""
    curves: dict[str, Curve]
    tables: list[Table]
    pictures: list[Path]
    complaints: list[str]
    """Files that could not be read, with the reason."""


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Every run folder at or below ``paths``, sorted, once each.

    Raises:
        FileNotFoundError: for a path that is no folder, or if there is no run at all.
    """
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {path}")
    found = {file.parent.resolve() for path in paths for name in (CONFIG, "result.json") for file in path.rglob(name)}
    if not found:
        raise FileNotFoundError(f"no run below {', '.join(map(str, paths))}: a run has a {CONFIG} or a result.json")
    return sorted(found)


def read_runs(paths: Sequence[Path]) -> list[Run]:
    """Raises a FileNotFoundError as ``run_folders``."""
    folders = run_folders(paths)
    return [read_run(folder, name) for folder, name in zip(folders, short_names(folders), strict=True)]


def short_names(folders: Sequence[Path]) -> list[str]:
    """Paths without the parts that all begin with; of one folder its last three parts."""
    parts = [folder.parts for folder in folders]
    if len(folders) == 1:
        return ["/".join(parts[0][-3:])]
    common = 0
    while len({part[: common + 1] for part in parts}) == 1:
        common += 1
    return ["/".join(part[common:]) or part[-1] for part in parts]


def read_run(folder: Path, name: str) -> Run:
    complaints: list[str] = []
    config = flat(read(folder / CONFIG, parse_yaml, complaints))
    results = {key: value for key, value in read(folder / "result.json", parse_json, complaints).items() if value}
    products = sorted(path for path in folder.rglob("*") if path.is_file() and is_product(path.relative_to(folder)))
    pictures = [path for path in products if path.suffix == ".png" and path.stat().st_size <= MAX_PICTURE_BYTES]
    tables = [table for path in products if (table := read_table(path, folder, complaints)) is not None]
    return Run(name, folder, config, results, curves_of(folder), tables, pictures, complaints)


def is_product(path: Path) -> bool:
    return path.parts[0] not in MACHINERY and path.name != "metrics.csv" and not path.name.startswith(".")


def read(path: Path, parse: Any, complaints: list[str]) -> dict[str, Any]:
    """The mapping in a file; an empty one if there is none, or if it is damaged."""
    if not path.exists():
        return {}
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        complaints.append(f"{path.name}: {str(error).splitlines()[0]}")
        return {}
    if isinstance(content, dict):
        return content
    complaints.append(f"{path.name}: no mapping")
    return {}


def parse_yaml(text: str) -> Any:
    return yaml.load(text, yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader)


def parse_json(text: str) -> Any:
    """Subcommands with a mapping each; others do not count."""
    content = json.loads(text)
    if not isinstance(content, dict):
        return content
    return {str(name): value for name, value in content.items() if isinstance(value, dict)}


def flat(config: Any, prefix: str = "") -> dict[str, str]:
    """Dotted names of all values; members of lists by their position, classes by their last name."""
    if isinstance(config, dict):
        items: Iterable[tuple[str, Any]] = ((str(key), value) for key, value in config.items())
    elif isinstance(config, list) and any(isinstance(value, dict) for value in config):
        items = ((str(i), value) for i, value in enumerate(config))
    else:
        return {prefix.removesuffix("."): json.dumps(config, default=str)}
    found: dict[str, str] = {}
    for key, value in items:
        found |= flat(value, prefix if key == "init_args" else f"{prefix}{key}.")
    return found


def curves_of(folder: Path) -> dict[str, Curve]:
    """Metric -> (step, value), finite ones only, in the order of metrics.csv."""
    curves: dict[str, Curve] = {}
    for row in rows_of(folder / "metrics.csv"):
        for name, text in row.items():
            if name in ("epoch", "step") or not text:
                continue
            try:
                value = float(text)
            except ValueError:
                continue
            if math.isfinite(value):
                curves.setdefault(name, []).append((int(row["step"]), value))
    return curves


def read_table(path: Path, folder: Path, complaints: list[str]) -> Table | None:
    if path.suffix != ".csv" or path.stat().st_size > MAX_TABLE_BYTES:
        return None
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.reader(lines))
    except (OSError, ValueError, csv.Error) as error:
        complaints.append(f"{path.relative_to(folder)}: {error}")
        return None
    if not rows:
        return None
    return Table(path.relative_to(folder).as_posix(), rows[0], rows[1 : TABLE_ROWS + 1], len(rows) - 1)


def differences(runs: Sequence[Run]) -> Iterator[tuple[str, list[str]]]:
    """(option, its value in each run) of the options in which the runs differ; empty where a run lacks one.

    Names and paths of the runs' own folders do not count.
    """
    names = dict.fromkeys(name for run in runs for name in run.config if not name.startswith("run."))
    for name in names:
        values = [run.config.get(name, "") for run in runs]
        if len(set(values)) > 1 and not any("{number}" in value for value in values):
            yield name, values


def by_model(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs of the same LightningModule together, by its name."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.config.get("model.class_path", "").strip('"').rpartition(".")[2], []).append(run)
    return groups
