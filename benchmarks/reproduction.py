"""REPRODUCTION.md from benchmarks/results.yaml: each paper's numbers beside ours, so that the table cannot drift.

    python benchmarks/reproduction.py            writes REPRODUCTION.md
    python benchmarks/reproduction.py --check    exit code 1 if it is not what the file says

An entry has ``method``, ``what``, ``paper`` (null where it has no such number), ``ours``, ``data``, ``command``,
``seeds``, ``status``, and optionally ``note``; hardware and date stand once for each machine under ``machines``.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS, TABLE = ROOT / "benchmarks" / "results.yaml", ROOT / "REPRODUCTION.md"
STATUS = {
    "agrees": "our number is the paper's, up to what the seeds vary",
    "differs": "measured on the paper's terms, and another number",
    "small": "a smaller network, shorter training or other data: the number says that the method works, no more",
    "open": "not measured yet",
}
REQUIRED = {"method", "what", "paper", "ours", "data", "command", "seeds", "status", "machine"}
COLUMNS = ("what", "paper", "ours", "data", "seeds", "status", "machine")


def read(path: Path = RESULTS) -> dict[str, Any]:
    """The checked file.

    Raises:
        ValueError: for an entry with missing or unknown fields, status or machine.
    """
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    for i, entry in enumerate(content["results"]):
        missing, unknown = REQUIRED - entry.keys(), entry.keys() - REQUIRED - {"note"}
        if missing or unknown:
            raise ValueError(f"entry {i} ({entry.get('what')}): missing {sorted(missing)}, unknown {sorted(unknown)}")
        if entry["status"] not in STATUS:
            raise ValueError(f"entry {i}: status is one of {', '.join(STATUS)}, not {entry['status']!r}")
        if entry["machine"] not in content["machines"] and entry["status"] != "open":
            raise ValueError(f"entry {i}: no machine {entry['machine']!r} in the file")
    return content


def markdown(content: dict[str, Any]) -> str:
    lines = [
        "# Reproduction",
        "",
        "Written by `python benchmarks/reproduction.py` from `benchmarks/results.yaml`. Every number was measured by",
        "the command below it; the methods' READMEs tell more. Stand-ins for data sets are called so.",
        "",
        *(f"- *{name}*: {meaning}." for name, meaning in STATUS.items()),
        *(f"- Machine {name}: {meaning}." for name, meaning in content["machines"].items()),
    ]
    for method in dict.fromkeys(entry["method"] for entry in content["results"]):
        entries = [entry for entry in content["results"] if entry["method"] == method]
        lines += ["", f"## [{method}](modules/{method}/README.md)", ""]
        lines += [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        lines += [f"| {' | '.join(cell(entry[column]) for column in COLUMNS)} |" for entry in entries]
        lines += [""]
        commands = dict.fromkeys(entry["command"] for entry in entries if entry["command"])
        lines += [f"- `{command}`" for command in commands]
        lines += [f"- {entry['what']}: {entry['note']}" for entry in entries if entry.get("note")]
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|")


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 if the table is not up to date"
    )
    arguments = parser.parse_args(args)
    table = markdown(read())
    if not arguments.check:
        TABLE.write_text(table, encoding="utf-8")
        return 0
    if not TABLE.is_file() or TABLE.read_text(encoding="utf-8") != table:
        print("REPRODUCTION.md is not what benchmarks/results.yaml says: run python benchmarks/reproduction.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
