"""Classify recordings: ``python -m modules.ecg.predict RECORD... --output FOLDER``.

The five networks of weights/ecg vote, or those of --checkpoint. RECORD is a WFDB record (its path with or without
.hea), a CSV file or a NumPy file of 2 s to 24 h at 1 Hz to 100 kHz. NumPy files need --units-per-mv, and so do CSV
files whose header names no unit. For each record FOLDER gets ``<name>.json`` (class, probabilities, windows, missing
and flat shares, warnings), ``<name>.csv`` (probabilities over time) and ``<name>.png``. A file that cannot be used is
one line on stderr; the exit code is then 1. What exists is overwritten only with --force, and an input never.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modules.ecg.inference import CLASSES, Classifier, Prediction, load_classifier, predict_recording
from modules.ecg.pictures import save_picture
from modules.ecg.recordings import Recording, implausible_range, open_recording

SHIPPED = Path(__file__).resolve().parents[2] / "weights" / "ecg"


def summarize(recording: Recording, prediction: Prediction) -> dict[str, Any]:
    """What the JSON file says of one recording."""
    seconds = np.array([window["seconds"] for window in prediction.windows])
    shares = {
        kind: float(np.average([window[kind] for window in prediction.windows], weights=seconds))
        for kind in ("missing", "flat")
    }
    warnings = [f"{share:.1%} of the signal is {kind}" for kind, share in shares.items() if share >= 0.001]
    if about_range := implausible_range(recording):
        warnings.append(about_range)
    known = prediction.probabilities
    return {
        "record": recording.name,
        "seconds": recording.seconds,
        "sampling_rate": recording.sampling_rate,
        "class": prediction.label,
        "probabilities": None if known is None else dict(zip(CLASSES, known.tolist(), strict=True)),
        **shares,
        "warnings": warnings,
        "windows": prediction.windows,
    }


def write_course(path: Path, prediction: Prediction) -> None:
    """A line per time step: its middle in seconds and the probability of each class, empty where there is none."""
    lines = ["seconds," + ",".join(CLASSES)]
    for time, row in zip(prediction.times, prediction.over_time, strict=True):
        lines.append(f"{time:.3f}," + ",".join("" if np.isnan(p) else f"{p:.5f}" for p in row))
    path.write_text("\n".join(lines) + "\n")


def targets_of(path: Path, options: argparse.Namespace) -> list[Path]:
    """The files that a record becomes: .json, .csv, .png."""
    suffixes = (".json", ".csv") if options.no_picture else (".json", ".csv", ".png")
    return [options.output / f"{path.stem}{suffix}" for suffix in suffixes]


def refusals(options: argparse.Namespace) -> Iterator[str]:
    """For each record why its results cannot be written; empty if they can."""
    inputs = [path for path in (*options.records, *options.checkpoint) if path.exists()]
    taken: set[Path] = set()
    for path in options.records:
        targets = targets_of(path, options)
        there = [target for target in targets if target.exists()]
        if overwritten := [target for target in there if any(target.samefile(path) for path in inputs)]:
            yield f"its result {overwritten[0]} would overwrite an input: choose another --output"
        elif targets[0] in taken:
            yield f"another input already becomes {targets[0]}: rename it or choose another --output"
        elif odd := [target for target in there if not target.is_file()]:
            yield f"{odd[0]} is there and not a regular file"
        elif there and not options.force:
            yield f"{there[0]} exists; --force overwrites it"
        else:
            taken.add(targets[0])
            yield ""


def require_folder(output: Path) -> None:
    """Raises ValueError if ``output`` is no folder that can be written to or made."""
    nearest = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"--output {output}: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--output {output}: the folder {nearest} is read-only")


def predict_file(path: Path, modules: list[Classifier], options: argparse.Namespace) -> str:
    """Classify one file and write its results; the line to print."""
    recording = open_recording(path, options.channel, options.sampling_rate, options.units_per_mv)
    prediction = predict_recording(modules, recording, options.window)
    summary = summarize(recording, prediction)
    options.output.mkdir(parents=True, exist_ok=True)
    for_summary, for_course, *for_picture = targets_of(path, options)
    for_summary.write_text(json.dumps(summary, indent=2) + "\n")
    write_course(for_course, prediction)
    for target in for_picture:
        save_picture(target, recording, prediction)
    known = summary["probabilities"]
    verdict = (
        "nothing that can be classified" if known is None else f"{prediction.label} ({known[prediction.label]:.3f})"
    )
    return ", ".join([f"{recording.name}: {verdict}", *summary["warnings"]])


def parse(args: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m modules.ecg.predict", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--checkpoint", nargs="+", type=Path, help="several vote (default: weights/ecg/*.pt)")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder of the results")
    parser.add_argument("--sampling-rate", type=float, help="of CSV and NumPy files, in Hz")
    parser.add_argument("--units-per-mv", type=float, help="of files that do not say so: 1 for mV, 1000 for uV")
    parser.add_argument("--channel", type=int, default=0, help="signal or column, from 0")
    parser.add_argument("--window", type=float, default=60.0, help="seconds classified at once")
    parser.add_argument("--no-picture", action="store_true")
    parser.add_argument("--force", action="store_true", help="overwrite existing results")
    options = parser.parse_args(args)
    for name in ("sampling_rate", "units_per_mv"):
        value = getattr(options, name)
        if value is not None and not 0 < value < 1e6:
            parser.error(f"--{name.replace('_', '-')} must be positive, got {value:g}")
    options.checkpoint = options.checkpoint or sorted(SHIPPED.glob("*.pt"))
    if not options.checkpoint:
        parser.error(f"there are no networks in {SHIPPED}: give --checkpoint")
    if options.channel < 0:
        parser.error(f"--channel counts from 0, got {options.channel}")
    if not 2 <= options.window <= 600:
        parser.error(f"--window must be between 2 and 600 seconds, got {options.window:g}")
    return options


def main(args: list[str] | None = None) -> int:
    options = parse(args)
    try:
        require_folder(options.output)
        reasons = list(refusals(options))
        modules = [load_classifier(path) for path in options.checkpoint]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = 0
    for path, reason in zip(options.records, reasons, strict=True):
        try:
            if reason:
                raise ValueError(f"{path}: {reason}")
            print(predict_file(path, modules, options), flush=True)
        except (OSError, ValueError) as error:
            failed += 1
            print(f"error: {error}", file=sys.stderr, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
