"""Run a wandb sweep file without a server: ``python sweep.py sweeps/<method>.yaml [--count N] [--dry-run]``.

The file is the one that ``wandb sweep`` takes. Each trial is a process of its own, started as wandb's agent starts it,
and writes to ``runs/sweeps/<file>/<trial>/000``. A trial is named after its parameters, so a sweep that was stopped
and is started again skips the finished trials and continues the unfinished ones; to begin anew, delete the folder.
``method: bayes`` and ``early_terminate`` need wandb's server; ``--method random`` draws a bayes file's parameters
at random.
"""

import argparse
import hashlib
import itertools
import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from cli import checkout, sweep_file
from cli.run_folder import numbered

Parameters = dict[str, Any]
ROOT = Path(__file__).resolve().parent


def flatten(parameters: Parameters, prefix: str = "") -> Parameters:
    """Nested ``parameters:`` as dotted names, each with its distribution."""
    flat: Parameters = {}
    for name, spec in parameters.items():
        if "parameters" in spec:
            flat |= flatten(spec["parameters"], f"{prefix}{name}.")
        else:
            flat[prefix + name] = spec
    return flat


def kind_of(spec: Parameters) -> str:
    """The distribution that wandb takes where the file does not name one."""
    if "distribution" in spec:
        return spec["distribution"]
    if "value" in spec:
        return "constant"
    if "values" in spec:
        return "categorical"
    if "min" in spec and "max" in spec:
        return "int_uniform" if isinstance(spec["min"], int) and isinstance(spec["max"], int) else "uniform"
    return "normal" if "mu" in spec else "unknown"


def draw(spec: Parameters, rng: random.Random) -> Any:
    """One value of a parameter.

    Raises:
        ValueError: if wandb knows no such distribution.
    """
    kind = kind_of(spec)
    low, high, mu, sigma = spec.get("min", 0), spec.get("max", 1), spec.get("mu", 0), spec.get("sigma", 1)
    if kind == "constant":
        return spec["value"]
    if kind.startswith("categorical"):
        return rng.choices(spec["values"], spec.get("probabilities"))[0]
    if kind == "int_uniform":
        return rng.randint(low, high)
    draws = {
        "uniform": lambda: rng.uniform(low, high),
        "log_uniform": lambda: math.exp(rng.uniform(low, high)),
        "log_uniform_values": lambda: math.exp(rng.uniform(math.log(low), math.log(high))),
        "inv_log_uniform": lambda: math.exp(-rng.uniform(low, high)),
        "inv_log_uniform_values": lambda: 1 / math.exp(rng.uniform(-math.log(high), -math.log(low))),
        "normal": lambda: rng.gauss(mu, sigma),
        "log_normal": lambda: rng.lognormvariate(mu, sigma),
        "beta": lambda: rng.betavariate(spec.get("a", 1), spec.get("b", 1)),
    }
    if kind.removeprefix("q_") not in draws:
        raise ValueError(f"unknown distribution {kind!r}; known: {', '.join(sorted(draws))}, with q_ or categorical")
    value = draws[kind.removeprefix("q_")]()
    quantum = spec.get("q", 1)
    return round(value / quantum) * quantum if kind.startswith("q_") else value


def trials(sweep: Parameters, method: str, count: int | None, seed: int) -> Iterator[Parameters]:
    """The parameters of each trial: a grid's in order, random ones without end unless ``count`` says so.

    Raises:
        ValueError: for a method or a grid that cannot be run here.
    """
    specs = flatten(sweep["parameters"])
    if method == "grid":
        if endless := [name for name, spec in specs.items() if kind_of(spec) not in ("constant", "categorical")]:
            raise ValueError(f"a grid needs value or values, which {', '.join(endless)} has not")
        choices = [spec.get("values", [spec.get("value")]) for spec in specs.values()]
        every = (dict(zip(specs, values, strict=True)) for values in itertools.product(*choices))
        yield from itertools.islice(every, count)
    elif method == "random":
        rng = random.Random(seed)
        for _ in range(count or sweep.get("run_cap") or 10):
            yield {name: draw(spec, rng) for name, spec in specs.items()}
    else:
        raise ValueError(f"method {method} needs wandb's server (wandb sweep, wandb agent); --method random runs here")


def command_of(sweep: Parameters, parameters: Parameters, json_file: Path) -> list[str]:
    """The words that wandb's agent would run."""
    flags = [f"--{name}={value}" for name, value in parameters.items()]
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [str(ROOT / sweep.get("program", "train.py"))],
        "${args}": flags,
        "${args_no_equals}": [word for flag in flags for word in flag.split("=", 1)],
        "${args_json}": [json.dumps(parameters)],
        "${args_json_file}": [str(json_file)],
    }
    words = sweep.get("command", ["${env}", "${interpreter}", "${program}", "${args}"])
    return [word for chunk in words for word in macros.get(str(chunk), [str(chunk)])]


def score_of(folder: Path, metric: str | None) -> float | None:
    """The metric of a finished trial: its best where it is what the run monitored, else its last."""
    for file in (run / "result.json" for run in numbered(folder)):
        if file.exists() and (result := json.loads(file.read_text()).get("fit")):
            best = result["best_score"] if result["monitor"] == metric else None
            return best if best is not None else result["metrics"].get(metric, math.nan)
    return None


def execute(words: list[str], environment: dict[str, str]) -> int:
    """Run a trial's process to its end; its exit code."""
    process = subprocess.Popen(words, env=os.environ | environment)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the trial got it too and saves its checkpoint
        process.wait()
        raise


def run_trial(sweep: Parameters, parameters: Parameters, folder: Path) -> int:
    """Run one trial; its exit code. The wandb run id leads a trial that is started again back to its run folder."""
    folder.mkdir(parents=True, exist_ok=True)
    json_file = folder / "parameters.json"
    json_file.write_text(json.dumps(parameters, indent=2) + "\n")
    environment = {
        "WANDB_RUN_ID": f"{folder.parent.name}-{folder.name}",
        "WANDB_SWEEP_ID": folder.parent.name,
        "WANDB_MODE": os.environ.get("WANDB_MODE", "offline"),
    }
    return execute([*command_of(sweep, parameters, json_file.resolve()), f"--run.dir={folder}"], environment)


def print_table(rows: list[tuple[float | None, Parameters, Path]], metric: str | None, maximize: bool) -> None:
    table = Table("trial", metric or "metric", *(rows[0][1] if rows else []))
    worst = -math.inf if maximize else math.inf
    rows.sort(key=lambda row: worst if row[0] is None or math.isnan(row[0]) else row[0], reverse=maximize)
    for score, parameters, folder in rows:
        shown = "failed" if score is None else f"{score:.6g}"
        values = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in parameters.values())
        table.add_row(folder.name, shown, *values)
    Console().print(table)


def positive(text: str) -> int:
    """A number of trials."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
    return int(text)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("file", type=Path)
    parser.add_argument("--count", type=positive, help="trials at most; random draws 10 unless told")
    parser.add_argument("--method", choices=["grid", "random"], help="instead of the file's")
    parser.add_argument("--seed", type=int, default=0, help="of the random draws")
    parser.add_argument("--dry-run", action="store_true", help="print the commands only")
    options = parser.parse_args(args)
    try:
        checkout.require()
        sweep = yaml.safe_load(options.file.read_text())
        sweep_file.check(sweep)
        if not (method := options.method or sweep.get("method")):
            raise ValueError("it names no method: write method: grid or random, or give --method")
        planned = list(trials(sweep, method, options.count, options.seed))
    except (ValueError, TypeError, ArithmeticError, OSError, yaml.YAMLError) as error:  # the middle two from draws
        parser.exit(2, f"error: {options.file}: {' '.join(str(error).split())}\n")
    if "early_terminate" in sweep:
        print("early_terminate needs wandb's server: every trial runs to its end")
    metric = sweep.get("metric", {})
    rows = []
    for number, parameters in enumerate(planned, 1):
        name = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
        folder = Path("runs", "sweeps", options.file.stem, name)
        if options.dry_run:
            print(*command_of(sweep, parameters, Path(json.dumps(parameters))))
            continue
        if score_of(folder, metric.get("name")) is None:
            print(f"trial {number} of {len(planned)}: {name} {parameters}", flush=True)
            if code := run_trial(sweep, parameters, folder):
                print(f"trial {name} failed with exit code {code}", file=sys.stderr, flush=True)
        rows.append((score_of(folder, metric.get("name")), parameters, folder))
    if rows:
        print_table(rows, metric.get("name"), metric.get("goal") == "maximize")
    return int(any(score is None for score, _, _ in rows))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
