"""What run folders hold for a reader: configs that differ, metrics over steps, results. Products: run_products.py.

Folders may come from strangers: whatever does not parse is left out and said so, nothing is executed.
"""

import csv
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Sequence, ValuesView
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from cli.metrics_table import merged, rows_of

CONFIGS = tuple(f"config.{subcommand}.yaml" for subcommand in ("fit", "test", "validate", "predict"))
"""Which of them says what a run was, the first one that is there."""
RESULT = "result.json"
RANKED = ("trials.csv", "trials.png")
"""Table and plot that sweep.py leaves in a folder above runs."""
MACHINERY = ("csv", "wandb", "checkpoints")
"""Folders of a run that hold no product and no run."""
MAX_BYTES = 64 << 20
"""Of a file of text that is read."""
MAX_OPTIONS = 20_000
"""Of a config: YAML's aliases let a small file stand for a huge tree."""
MAX_DEPTH = 50
MAX_STEP = 1 << 53
MAX_VALUE = 1e100
"""Larger ones can't be drawn."""
Curve = list[tuple[int, float]]


class Run(NamedTuple):
    name: str
    """The path below what all runs have in common."""
    folder: Path
    config: dict[str, str]
    """Dotted name -> value, as JSON."""
    results: dict[str, dict[str, Any]]
    """Subcommand -> what result.json says of it."""
    curves: dict[str, Curve]
    complaints: list[str]
    """Files that could not be read, with the reason."""


def walk(folder: Path, skipped: Collection[str] = MACHINERY) -> Iterator[tuple[Path, list[str]]]:
    """(folder, sorted names of its files), itself and all below but for ``skipped``, hidden ones and links."""
    for path, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in skipped and not name.startswith("."))
        yield Path(path), sorted(files)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Every run folder at or below ``paths``, sorted, once each.

    Raises:
        FileNotFoundError: for a path that is no folder, or if there is no run at all.
    """
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {path}")
    signs = {*CONFIGS, RESULT}
    found = {folder.resolve() for path in paths for folder, files in walk(path) if signs.intersection(files)}
    if not found:
        raise FileNotFoundError(f"no run below {', '.join(map(str, paths))}: a run has a {CONFIGS[0]} or a {RESULT}")
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
    file = next((folder / name for name in CONFIGS if (folder / name).exists()), folder / CONFIGS[0])
    config = flat(read(file, parse_yaml, complaints))
    results = {key: value for key, value in read(folder / RESULT, parse_json, complaints).items() if value}
    return Run(name, folder, config, results, read_curves(folder, complaints), complaints)


def read(path: Path, parse: Any, complaints: list[str]) -> dict[str, Any]:
    """The mapping in a file; an empty one if there is none, or if it is damaged."""
    if not path.exists():
        return {}
    try:
        content = parse(require_text(path).read_text(encoding="utf-8"))
        require_tree(content)
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        complaints.append(f"{path.name}: {first_line(error)}")
        return {}
    if isinstance(content, dict):
        return content
    complaints.append(f"{path.name}: no mapping")
    return {}


def require_text(path: Path) -> Path:
    """The path; a ValueError for a link, which might show another person's file, and for a file too large to show."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("no plain file")
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size:,} bytes, {MAX_BYTES:,} at most")
    return path


def require_tree(content: Any) -> None:
    """Raise a ValueError for a tree too deep or too large to be walked."""
    number, level = 0, [content]
    for _ in range(MAX_DEPTH):
        nodes = (node.values() if isinstance(node, dict) else node for node in level)
        level = list(islice((entry for node in nodes if not is_leaf(node) for entry in node), MAX_OPTIONS + 1))
        if (number := number + len(level)) > MAX_OPTIONS:
            raise ValueError(f"more than {MAX_OPTIONS:,} entries")
        if not level:
            return
    raise ValueError(f"more than {MAX_DEPTH} levels")


def is_leaf(node: Any) -> bool:
    return not isinstance(node, (list, ValuesView))


def first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


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


def read_curves(folder: Path, complaints: list[str]) -> dict[str, Curve]:
    """Metric -> (step, value) where they can be drawn, in the order in which they count; also of a run that goes on."""
    curves: dict[str, Curve] = {}
    try:
        tables = [path for path in (folder / "metrics.csv", *folder.glob("csv/*/metrics.csv")) if path.exists()]
        rows = merged(folder) if all(map(require_text, tables)) else []
        for row in rows or rows_of(folder / "metrics.csv"):
            if (step := int(row["step"])) < MAX_STEP:
                for name, value in numbers(row):
                    curves.setdefault(name, []).append((step, value))
    except (OSError, ValueError, csv.Error) as error:
        complaints.append(f"metrics.csv: {first_line(error)}")
    return curves


def numbers(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        if not name or name in ("epoch", "step") or not text:
            continue
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value) and abs(value) < MAX_VALUE:
            yield name, value


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
    """Runs of the same LightningModule together, by its method and name: ``l3c: L3C``."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        path = run.config.get("model.class_path", "").strip('"').split(".")
        groups.setdefault(": ".join([*path[1:-1][:1], path[-1]]), []).append(run)
    return groups
