"""Algorithms as a file of integers and as tables to read.

The file is JSON::

    {"format": "bilinear algorithms", "version": 1, "n": 2, "m": 2, "p": 2, "order": "column-major",
     "algorithms": [{"first": [[...]], "second": [[...]], "third": [[...]]}, ...]}

with W_a [r, n m], W_b [r, m p] and W_c [n p, r] as in modules/strassen/bilinear.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from modules.strassen.additions import Sharing, count_additions, share
from modules.strassen.bilinear import MAX_ENTRY, MAX_RANK, MAX_SIDE, Algorithm

FORMAT, VERSION = "bilinear algorithms", 1
MAX_BYTES = 1 << 28


def to_json(algorithms: list[Algorithm], shape: tuple[int, int, int]) -> str:
    """The file's text; ``algorithms`` may be empty and are all of ``shape``."""
    head = {"format": FORMAT, "version": VERSION, **dict(zip("nmp", shape, strict=True)), "order": "column-major"}
    names = ("first", "second", "third")
    lines = [json.dumps({k: part.tolist() for k, part in zip(names, a[1:], strict=True)}) for a in algorithms]
    return json.dumps(head)[:-1] + ', "algorithms": [\n' + ",\n".join(lines) + "\n]}\n"


def is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def read_matrix(value: Any, rows: int | None, columns: int | None, where: str) -> np.ndarray:
    """A matrix of integers; None leaves a side open."""
    is_table = isinstance(value, list) and bool(value) and all(isinstance(row, list) for row in value)
    if not is_table or len({len(row) for row in value}) != 1 or len(value) > MAX_RANK or len(value[0]) > MAX_RANK:
        raise ValueError(f"{where} is not a matrix of up to {MAX_RANK} rows and columns")
    if not all(is_integer(entry, -MAX_ENTRY, MAX_ENTRY) for row in value for entry in row):
        raise ValueError(f"{where} has an entry that is no integer of magnitude up to {MAX_ENTRY}")
    if len(value) != (rows or len(value)) or len(value[0]) != (columns or len(value[0])):
        raise ValueError(f"{where} is {len(value)} x {len(value[0])}, which does not fit n, m, p or the other matrices")
    return np.asarray(value, np.int64)


def read_algorithms(path: Path) -> list[Algorithm]:
    """All algorithms of a file, checked for their form, not for being exact.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged or of another kind, naming what is wrong.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ValueError(f"{path} is no file of {FORMAT}, version {VERSION}")
    shape = tuple(content.get(name) for name in "nmp")
    if content.get("order") != "column-major" or not all(is_integer(side, 1, MAX_SIDE) for side in shape):
        raise ValueError(f"{path}: n, m, p must be 1 to {MAX_SIDE} and the order column-major")
    if not isinstance(content.get("algorithms"), list):
        raise ValueError(f"{path} has no list of algorithms")
    return [read_algorithm(item, shape, f"{path}: algorithm {i}") for i, item in enumerate(content["algorithms"])]  # type: ignore[arg-type]


def read_algorithm(item: Any, shape: tuple[int, int, int], where: str) -> Algorithm:
    if not isinstance(item, dict):
        raise ValueError(f"{where} is no object with first, second and third")
    n, m, p = shape
    first = read_matrix(item.get("first"), None, n * m, f"{where}, first")
    second = read_matrix(item.get("second"), len(first), m * p, f"{where}, second")
    return Algorithm(shape, first, second, read_matrix(item.get("third"), n * p, len(first), f"{where}, third"))


def entry_names(letter: str, rows: int, columns: int) -> list[str]:
    return [f"{letter}{i + 1}{j + 1}" for j in range(columns) for i in range(rows)]


def spell(form: dict[int, int], names: list[str]) -> str:
    """Such as ``a11 - a12``."""
    text = " ".join(f"{'-' if sign < 0 else '+'} {names[variable]}" for variable, sign in sorted(form.items()))
    return text.removeprefix("+ ") or "0"


def name_sums(sharing: Sharing, names: list[str], letter: str) -> tuple[list[str], list[str]]:
    """Lines that define the shared sums, and the names of all variables with them."""
    names = [*names, *(f"{letter}{i + 1}" for i in range(len(sharing.pairs)))]
    pairs = [spell({x: 1, y: sign}, names) for x, y, sign in sharing.pairs]
    return [f"{names[sharing.inputs + i]} = {text}" for i, text in enumerate(pairs)], names


def to_table(algorithm: Algorithm) -> str:
    """An algorithm as equations with shared sums, under a line of its sizes and additions."""
    n, m, p = algorithm.shape
    plain, shared = count_additions(algorithm)
    lines = [f"{n}x{m} times {m}x{p}: {algorithm.rank} multiplications, {plain} additions, {shared} with shared sums"]
    sharings = [share(part) for part in algorithm[1:]]
    left, left_names = name_sums(sharings[0], entry_names("a", n, m), "s")
    right, right_names = name_sums(sharings[1], entry_names("b", m, p), "t")
    lines += [*left, *right]
    for q, (a, b) in enumerate(zip(sharings[0].forms, sharings[1].forms, strict=True), 1):
        lines.append(f"p{q} = ({spell(a, left_names)}) ({spell(b, right_names)})")
    sums, names = name_sums(sharings[2], [f"p{q + 1}" for q in range(algorithm.rank)], "u")
    outputs = zip(entry_names("c", n, p), sharings[2].forms, strict=True)
    return "\n".join([*lines, *sums, *(f"{name} = {spell(form, names)}" for name, form in outputs)]) + "\n"
