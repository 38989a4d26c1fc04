"""Cross-validation: ``python -m modules.ecg.cross_validate sweeps/ecg_folds.yaml``, or ``... RUN_FOLDER...``.

A sweep file is run first with the local runner, one fold after the other; finished folds are skipped and unfinished
ones continued. Folders of runs that were trained elsewhere (one fold per GPU or agent) are taken as they are. Then the
best checkpoint of every run is tested on its own test fold, unless it has been, and the scores are put together.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
METRIC = "test/f1"


def run(words: list[str]) -> int:
    """Run a program of the project to its end; its exit code. At Ctrl-C it has the time to save its checkpoint."""
    process = subprocess.Popen([sys.executable, *words])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


def run_sweep(file: Path) -> list[Path]:
    """Train all folds; the folders of the runs.

    Raises:
        ValueError: if a fold failed.
    """
    if code := run([str(ROOT / "sweep.py"), str(file)]):
        raise ValueError(f"sweep.py {file} ended with exit code {code}")
    return sorted(path.parent for path in Path("runs", "sweeps", file.stem).glob("*/*/result.json"))


def results_of(folder: Path) -> dict[str, Any]:
    file = folder / "result.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def fold_of(folder: Path) -> int:
    """The number of the run's test fold, from its saved config.

    Raises:
        FileNotFoundError: if this is no folder of a finished run.
    """
    file = folder / "config.fit.yaml"
    if not file.is_file() or "fit" not in results_of(folder):
        raise FileNotFoundError(f"{folder} holds no finished fit (config.fit.yaml and result.json)")
    return int(yaml.safe_load(file.read_text())["data"]["init_args"]["fold"])


def score_run(folder: Path) -> float:
    """The score of the run's best checkpoint on its test fold.

    Raises:
        ValueError: if the test failed.
    """
    if "test" not in results_of(folder):
        best = folder / "checkpoints" / "best.ckpt"
        words = [str(ROOT / "train.py"), "test", "--config", str(folder / "config.fit.yaml")]
        if code := run([*words, f"--run.dir={folder.parent}", f"--ckpt_path={best}"]):
            raise ValueError(f"the test of {folder} ended with exit code {code}")
    return results_of(folder)["test"]["metrics"][METRIC]


def summarize(scores: dict[int, float]) -> dict[str, Any]:
    """Scores by fold, their mean and sample standard deviation (None for a single fold)."""
    values = list(scores.values())
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return {"metric": METRIC, "folds": scores, "mean": statistics.fmean(values), "standard_deviation": deviation}


def print_summary(summary: dict[str, Any]) -> None:
    table = Table("fold", summary["metric"])
    for fold, score in summary["folds"].items():
        table.add_row(str(fold), f"{score:.4f}")
    deviation = summary["standard_deviation"]
    spread = "" if deviation is None else f" +- {deviation:.4f}"
    table.add_section()
    table.add_row(f"mean of {len(summary['folds'])}", f"{summary['mean']:.4f}{spread}")
    Console().print(table)


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m modules.ecg.cross_validate", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("sources", nargs="+", type=Path, help="one sweep file, or run folders such as runs/ecg/cnn/000")
    parser.add_argument("--output", type=Path, default=Path("cross_validation.json"))
    options = parser.parse_args(args)
    try:
        is_sweep = options.sources[0].suffix == ".yaml"
        folders = run_sweep(options.sources[0]) if is_sweep else options.sources
        by_fold = {fold_of(folder): folder for folder in folders}
        if len(by_fold) < len(folders):
            raise ValueError("two runs have the same test fold: give one run per fold")
        scores = {fold: score_run(folder) for fold, folder in sorted(by_fold.items())}
        if not scores:
            raise ValueError("no finished run")
    except (FileNotFoundError, ValueError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    summary = summarize(scores)
    options.output.write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on")
