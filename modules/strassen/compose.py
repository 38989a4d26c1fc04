"""Two algorithms into one for larger matrices: ``python -m modules.strassen.compose FIRST SECOND FILE``.

FIRST multiplies matrices of blocks, n x m by m x p, and SECOND the blocks, n' x m' by m' x p': together n n' x m m' by
m m' x p p' with r r' multiplications (Strassen 1969, applied to itself). Of each file the algorithm with the fewest
additions is taken, after sharing sums where that is counted in seconds. What is written is exact, since both are and
since it is proven again; it is composed, not found by a search.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from modules.strassen.additions import count_additions, is_small, plain_additions
from modules.strassen.algorithm_file import read_algorithms, to_json
from modules.strassen.bilinear import MAX_ENTRY, MAX_RANK, MAX_SIDE, Algorithm, is_exact
from modules.strassen.verify import describe


def kronecker(outer: np.ndarray, inner: np.ndarray, shapes: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Rows of forms [r r', (rows rows') (columns columns')] of outer [r, rows columns] and inner [r', rows' columns'].

    Entries are counted column by column before and after: entry (i, j) of block (I, J) has the row I rows' + i and the
    column J columns' + j of the whole matrix.
    """
    (rows, columns), (small_rows, small_columns) = shapes
    blocks = outer.reshape(len(outer), 1, columns, 1, rows, 1)
    entries = inner.reshape(1, len(inner), 1, small_columns, 1, small_rows)
    return (blocks * entries).reshape(len(outer) * len(inner), -1)


def compose(outer: Algorithm, inner: Algorithm) -> Algorithm:
    """The algorithm that multiplies blocks by ``outer`` and each of the blocks' products by ``inner``.

    Raises:
        ValueError: if it has sides, products or entries beyond those of a file.
    """
    shape = tuple(a * b for a, b in zip(outer.shape, inner.shape, strict=True))
    largest = max(int(np.abs(a).max()) * int(np.abs(b).max()) for a, b in zip(outer[1:], inner[1:], strict=True))
    if max(shape) > MAX_SIDE or outer.rank * inner.rank > MAX_RANK or largest > MAX_ENTRY:
        raise ValueError(
            f"sides {shape}, {outer.rank * inner.rank} products, entries up to {largest}: a file of algorithms takes "
            f"sides up to {MAX_SIDE}, {MAX_RANK} products and entries up to {MAX_ENTRY}"
        )
    n, m, p = zip(outer.shape, inner.shape, strict=True)
    parts = ((outer.first, inner.first, n, m), (outer.second, inner.second, m, p), (outer.third.T, inner.third.T, n, p))
    first, second, third = (
        kronecker(a, b, ((rows[0], columns[0]), (rows[1], columns[1]))) for a, b, rows, columns in parts
    )
    return Algorithm(shape, first, second, third.T.copy())  # type: ignore[arg-type]


def best_of(file: Path) -> Algorithm:
    """The exact algorithm of a file with the fewest additions; large ones are compared as they are written.

    Raises:
        FileNotFoundError, ValueError: as ``read_algorithms``; the latter also if none is exact.
    """
    exact = [algorithm for algorithm in read_algorithms(file) if is_exact(algorithm)]
    if not exact:
        raise ValueError(f"{file} holds no exact algorithm")
    if all(is_small(algorithm) for algorithm in exact):
        return min(exact, key=lambda algorithm: count_additions(algorithm)[::-1])
    return min(exact, key=lambda algorithm: sum(plain_additions(part) for part in algorithm[1:]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Two matrix multiplication algorithms into one for larger matrices.")
    parser.add_argument("first", type=Path, help="algorithms.json of a search, for matrices of blocks")
    parser.add_argument("second", type=Path, help="the same, for the blocks; may be the same file")
    parser.add_argument("file", type=Path, help="to be written")
    given = parser.parse_args(arguments)
    try:
        composed = compose(best_of(given.first), best_of(given.second))
        if given.file.exists() and any(given.file.samefile(source) for source in (given.first, given.second)):
            raise ValueError(f"{given.file} is one of the files to be read: name another one to be written")
        proven, line = describe(composed, 1)
        assert proven, "the product of two exact algorithms is exact"
        given.file.write_text(to_json([composed], composed.shape))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.file}: {line.removeprefix('1: ')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
