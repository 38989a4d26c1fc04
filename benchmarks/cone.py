"""Non-negative least squares for many right-hand sides: ours at once against scipy.optimize.nnls in a loop.

    python benchmarks/cone.py [--quick]

A dictionary of 1,000 random non-negative unit atoms in R^500; each right-hand side is a non-negative combination of
100 of them; noise, as a share of its norm, puts it outside of the cone. Where scipy solves a sample of the right-hand
sides and its time is scaled up, the table says so. Times are CPU seconds of this process on one thread, after the
kernel has been compiled. The last line is the ratio for targets inside of the cone.
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


def problem(number: int, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Dictionary [d, n] and right-hand sides [number, d]; ``noise`` as a share of their norms."""
    random = np.random.default_rng(0)
    atoms = random.random((DIM, NUM_ATOMS))
    atoms /= np.linalg.norm(atoms, axis=0)
    codes = np.zeros((number, NUM_ATOMS))
    for code in codes:
        code[random.choice(NUM_ATOMS, SPARSITY, replace=False)] = random.random(SPARSITY)
    right = codes @ atoms.T
    size = np.linalg.norm(right, axis=1, keepdims=True) / np.sqrt(DIM)
    return atoms, right + noise * size * random.standard_normal(right.shape)


def compare(number: int, sample: int, noise: float) -> float:
    atoms, right = problem(number, noise)
    start = time.process_time()
    ours = nnls(torch.from_numpy(atoms), torch.from_numpy(right)).coefficients.numpy()
    seconds = time.process_time() - start
    start = time.process_time()
    reference = np.stack([scipy_nnls(atoms, y)[0] for y in right[:sample]])
    loop_seconds = (time.process_time() - start) * number / sample
    difference = np.abs(ours[:sample] - reference).max()
    print(
        f"{number:16} {noise:6.2f} {seconds:9.3f} {loop_seconds:10.2f} (from {sample:4}) {loop_seconds / seconds:7.1f} "
        f"{difference:12.0e}"
    )
    return loop_seconds / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute on two cores")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    nnls(torch.eye(2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64))  # compiles or loads the kernel
    print(" right-hand sides  noise    ours s    scipy s              ratio   difference")
    if arguments.quick:
        ratio = compare(200, 20, 0.0)
    else:
        compare(100, 100, 0.0)
        compare(1000, 50, 0.01)
        ratio = compare(1000, 1000, 0.0)
    print(f"ratio cone {ratio:.2f}")


if __name__ == "__main__":
    main()
