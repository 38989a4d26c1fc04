"""Non-negative least squares for many right-hand sides: ours at once against scipy.optimize.nnls in a loop.

    python benchmarks/cone.py [--quick]

A dictionary of 1,000 random non-negative unit atoms in R^500; each right-hand side is a non-negative combination of
100 of them. scipy solves a sample of the right-hand sides, and its time is scaled up; that is said in the table.
Times are CPU seconds of this process on one thread. The last line is the ratio (--quick: 200 right-hand sides).
"""

import argparse
import os
import time

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls

from modules.cone_pursuit.nnls import nnls

DIM, NUM_ATOMS, SPARSITY = 500, 1000, 100


def problem(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Dictionary [d, n] and right-hand sides [number, d]."""
    random = np.random.default_rng(0)
    atoms = random.random((DIM, NUM_ATOMS))
    atoms /= np.linalg.norm(atoms, axis=0)
    codes = np.zeros((number, NUM_ATOMS))
    for code in codes:
        code[random.choice(NUM_ATOMS, SPARSITY, replace=False)] = random.random(SPARSITY)
    return atoms, codes @ atoms.T


def compare(number: int, sample: int) -> float:
    atoms, right = problem(number)
    start = time.process_time()
    ours = nnls(torch.from_numpy(atoms), torch.from_numpy(right)).coefficients.numpy()
    seconds = time.process_time() - start
    start = time.process_time()
    reference = np.stack([scipy_nnls(atoms, y)[0] for y in right[:sample]])
    loop_seconds = (time.process_time() - start) * number / sample
    difference = np.abs(ours[:sample] - reference).max()
    residual = np.linalg.norm(ours @ atoms.T - right, axis=1).max()
    print(
        f"{number:16} {seconds:9.3f} {loop_seconds:10.2f} (from {sample}) {loop_seconds / seconds:7.1f} "
        f"{difference:12.0e} {residual:10.0e}"
    )
    return loop_seconds / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute on two cores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(" right-hand sides    ours s    scipy s             ratio   difference   residual")
    ratio = 0.0
    for number in [200] if arguments.quick else [100, 1000]:
        ratio = compare(number, 20 if arguments.quick else 100)
    print(f"ratio cone {ratio:.2f}")


if __name__ == "__main__":
    main()
