"""The samples in a column of a CSV file, and what its header says of their unit."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np

from modules.ecg.units import agreed, unit_in

PROBED_LINES = 1000
"""Looked at in search of decimal commas."""
INTEGER, FRACTION = re.compile(r"[-+]?\d+"), re.compile(r"\d+([eE][-+]?\d+)?")
DECIMAL_COMMA = "its numbers seem to have decimal commas: write points instead"


def read_csv(path: Path, channel: int, limit: int, units_per_mv: float | None) -> tuple[np.ndarray, float]:
    """At most ``limit`` samples of a column, float32 [T] as the file has them, and their units per mV.

    Raises:
        UnicodeDecodeError: if the file is not in UTF-8.
        ValueError: for what is no column of numbers, numbers with decimal commas, and units that nothing or two say.
    """
    with path.open(encoding="utf-8-sig") as lines:  # spreadsheets begin UTF-8 with a byte order mark
        header, width, rest = split_header(lines, channel)
        first = list(islice(rest, min(limit, PROBED_LINES)))
        refuse_decimal_commas(first, width)
        units_per_mv = agreed(unit_in(header), units_per_mv)
        texts = texts_of(chain(first, islice(rest, limit - len(first))), channel)
        return np.fromiter((to_number(text) for text in texts), np.float32), units_per_mv


def split_header(lines: Iterator[str], channel: int) -> tuple[list[str], int, Iterator[str]]:
    """The column's words in the lines before the first sample, at most two, of which the second is a unit; their
    number of fields, 0 without a header; the rest.
    """
    header: list[str] = []
    width = 0
    for line in lines:
        text = column_of(line, channel)
        if len(header) == 2 or is_number(text) or (header and unit_in([text]) is None):
            return header, width, chain([line], lines)
        header.append(text)
        width = max(width, len(fields_of(line)))
    return header, width, iter(())


def refuse_decimal_commas(lines: Sequence[str], width: int) -> None:
    """Raises ValueError where commas stand inside numbers, or beside too few names: ``width`` is the header's."""
    if any(re.search(r"(^|[;\t]) *[-+]?\d+,\d+", line) for line in lines if ";" in line or "\t" in line):
        raise ValueError(DECIMAL_COMMA)
    rows = [fields_of(line) for line in lines if line.strip()]
    wider = [row for row in rows if len(row) > width]
    if width and any(INTEGER.fullmatch(row[width - 1]) and all(map(FRACTION.fullmatch, row[width:])) for row in wider):
        raise ValueError(DECIMAL_COMMA)
    if width and rows and len(wider) == len(rows):
        raise ValueError(f"its lines have more fields than its header, which has {width}: name every column")
    if all(INTEGER.fullmatch(field or "0") for row in rows for field in row):
        fractions = [field for row in rows for field in row[1::2]]
        if any(row[:1] == ["-0"] for row in rows) or any(len(field) > 1 and field[0] == "0" for field in fractions):
            raise ValueError(DECIMAL_COMMA)


def texts_of(lines: Iterable[str], channel: int) -> Iterator[str]:
    """The field of each line; an empty line is an empty field, unless only empty ones follow."""
    empty = 0
    for line in lines:
        if not line.strip():
            empty += 1
            continue
        yield from repeat("", empty)
        empty = 0
        yield column_of(line, channel)


def split_line(line: str) -> list[str]:
    return line.rstrip("\r\n").replace(";", ",").replace("\t", ",").split(",")


def fields_of(line: str) -> list[str]:
    """Without the empty ones at its end."""
    fields = [field.strip() for field in split_line(line)]
    while fields and not fields[-1]:
        fields.pop()
    return fields


def column_of(line: str, channel: int) -> str:
    fields = split_line(line)
    if channel >= len(fields):
        raise ValueError(f"column {channel} in a line of {len(fields)}: {line.strip()[:40]!r}")
    return fields[channel].strip()


def is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def to_number(text: str) -> float:
    if not is_number(text):
        raise ValueError(f"{text[:40]!r} is no number, choose another column with --channel (from 0)?")
    return float(text or "nan")
