"""Prove matrix multiplication algorithms in integers: ``python -m modules.strassen.verify FILE``.

Every algorithm of the file is put into Brent's equations and multiplies random integer matrices of blocks. One line
each; the exit code is 0 if all are exact, 1 if one is not and 2 if the file cannot be read.
"""

import argparse
import sys
from pathlib import Path

from modules.strassen.additions import count_additions, is_small, plain_additions
from modules.strassen.algorithm_file import read_algorithms
from modules.strassen.bilinear import Algorithm, is_exact, multiplies_blocks


def describe(algorithm: Algorithm, number: int) -> tuple[bool, str]:
    """Whether it is proven, and a line that says so."""
    n, m, p = algorithm.shape
    proven = is_exact(algorithm) and multiplies_blocks(algorithm)
    ternary = all(abs(part).max() <= 1 for part in algorithm[1:])
    line = f"{number}: {n}x{m} times {m}x{p} with {algorithm.rank} multiplications"
    if not proven:
        return False, f"{line}: NOT exact"
    if ternary:
        line += f" in -1, 0, 1, {sum(plain_additions(part) for part in algorithm[1:])} additions"
    if ternary and is_small(algorithm):
        line += f", {count_additions(algorithm)[1]} with shared sums"
    return True, f"{line}: exact"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prove matrix multiplication algorithms in integers.")
    parser.add_argument("file", type=Path, help="algorithms.json of a search")
    try:
        algorithms = read_algorithms(parser.parse_args(arguments).file)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    results = [describe(algorithm, number) for number, algorithm in enumerate(algorithms, 1)]
    for _, line in results:
        print(line)
    print(f"{sum(proven for proven, _ in results)} of {len(results)} are exact")
    return 0 if results and all(proven for proven, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
