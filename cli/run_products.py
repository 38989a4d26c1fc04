"""Tables, texts and pictures that runs leave, as far as a page can show them; see finished_runs.py on strangers."""

import csv
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from cli.finished_runs import first_line, require_text, walk

MAX_PICTURE_BYTES = 8 << 20
MAX_FILES = 10_000
"""Of a folder that are looked at."""
MAX_PICTURES, MAX_TABLES = 24, 12
"""Of a run that are shown."""
TABLE_ROWS, TABLE_COLUMNS, TEXT_LINES = 40, 60, 200
KINDS = {".png": (b"\x89PNG\r\n\x1a\n", "png"), ".jpg": (b"\xff\xd8\xff", "jpeg")}
"""Pictures by their name: how they begin, and their kind."""


class Table(NamedTuple):
    name: str
    header: list[str]
    rows: list[list[str]]
    """At most TABLE_ROWS."""
    num_rows: int


class Text(NamedTuple):
    name: str
    lines: list[str]
    """At most TEXT_LINES."""
    num_lines: int


class Picture(NamedTuple):
    name: str
    path: Path
    kind: str
    """png or jpeg."""
    size: int
    """Bytes."""


class Products(NamedTuple):
    tables: list[Table]
    texts: list[Text]
    pictures: list[Picture]
    complaints: list[str]
    """Files that are not shown, with the reason."""


def read_products(folder: Path) -> Products:
    files = (path / name for path, names in walk(folder) for name in names if not name.startswith("."))
    found = Products([], [], [], [])
    for path in islice(files, MAX_FILES):
        read_product(path, path.relative_to(folder).as_posix(), found)
    if next(files, None):
        found.complaints.append(f"more than {MAX_FILES:,} files, the others were not looked at")
    for products, limit in ((found.pictures, MAX_PICTURES), (found.tables, MAX_TABLES), (found.texts, MAX_TABLES)):
        if len(products) > limit:
            kind = type(products[0]).__name__.lower()
            found.complaints.append(f"{len(products) - limit} more {kind}s, from {products[limit].name} on")  # type: ignore[attr-defined]
            del products[limit:]  # type: ignore[attr-defined]
    return found


def read_product(path: Path, name: str, found: Products) -> None:
    """Put what a file holds to the others."""
    try:
        if path.suffix == ".csv" and name != "metrics.csv":
            found.tables.append(read_table(path, name))
        elif path.suffix == ".txt":
            lines = require_text(path).read_text(encoding="utf-8").splitlines()
            found.texts.append(Text(name, lines[:TEXT_LINES], len(lines)))
        elif path.suffix in KINDS:
            found.pictures.append(read_picture(path, name))
    except (OSError, ValueError, csv.Error) as error:
        found.complaints.append(f"{name}: {first_line(error)}")


def read_table(path: Path, name: str) -> Table:
    with require_text(path).open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        header = next(rows, [])
        shown = [row[:TABLE_COLUMNS] for row in islice(rows, TABLE_ROWS)]
        return Table(name, header[:TABLE_COLUMNS], shown, len(shown) + sum(1 for _ in rows))


def read_picture(path: Path, name: str) -> Picture:
    beginning, kind = KINDS[path.suffix]
    if path.is_symlink() or not path.is_file():
        raise ValueError("no plain file")
    with path.open("rb") as file:
        if file.read(len(beginning)) != beginning:
            raise ValueError(f"no {kind}")
    if (size := path.stat().st_size) > MAX_PICTURE_BYTES:
        raise ValueError(f"{size:,} bytes, {MAX_PICTURE_BYTES:,} at most")
    return Picture(name, path, kind, size)
