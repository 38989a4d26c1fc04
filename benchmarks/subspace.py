"""SSC-OMP and SSC-MP: ours for all points at once against a loop over points.

    python benchmarks/subspace.py [--quick] [--large]

The loop is the peer's way: five rounds of correlations, argmax and least squares for each point. Beyond LOOP_POINTS
points it codes an evenly spaced sample of them against all points, and its time is scaled up; that is said in the
table. Times are CPU seconds of this process on one thread; memory is the growth of the peak. ``--large`` adds 70,000
points of dimension 500 by SSC-OMP without the loop (half an hour). The last line is the ratio of SSC-OMP at 5,000
points of dimension 500 (--quick: at 1,500).
"""

import argparse
import os
import resource
import time
from collections.abc import Callable

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch

from modules.subspace.solvers import ssc_mp, ssc_omp

ATOMS = 5
LOOP_POINTS = 5000


def union(number: int, dim: int) -> torch.Tensor:
    """Unit points of five random subspaces of dimension 6 with a little noise, so that atoms are told apart."""
    random = np.random.default_rng(0)
    parts = []
    for _ in range(5):
        basis = np.linalg.qr(random.standard_normal((dim, 6)))[0]
        parts.append(random.standard_normal((number // 5, 6)) @ basis.T)
    points = np.concatenate(parts) + 0.05 * random.standard_normal((number // 5 * 5, dim)) / np.sqrt(dim)
    return torch.from_numpy(points / np.linalg.norm(points, axis=1, keepdims=True))


def omp_loop(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Coefficients [len(rows), N] by one point at a time."""
    coefficients = np.zeros((len(rows), len(points)))
    for out, j in enumerate(rows):
        residual, support = points[j], []
        for _ in range(ATOMS):
            scores = np.abs(points @ residual)
            scores[[j, *support]] = -1
            support.append(int(scores.argmax()))
            solution = np.linalg.lstsq(points[support].T, points[j], rcond=None)[0]
            residual = points[j] - solution @ points[support]
        coefficients[out, support] = solution
    return coefficients


def mp_loop(points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    squares = (points**2).sum(1)
    coefficients = np.zeros((len(rows), len(points)))
    for out, j in enumerate(rows):
        residual = points[j].copy()
        for _ in range(ATOMS):
            scores = np.abs(points @ residual)
            scores[j] = -1
            i = int(scores.argmax())
            amount = points[i] @ residual / squares[i]
            coefficients[out, i] += amount
            residual -= amount * points[i]
    return coefficients


def measure(run: Callable[[], object]) -> tuple[object, float, float]:
    """(result, CPU seconds, growth of the peak memory in MiB)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    result = run()
    return (
        result,
        time.process_time() - start,
        (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    )


def compare(name: str, number: int, dim: int, sample: int) -> float:
    """Print one line of the table; the ratio of the loop's time to ours."""
    points = union(number, dim)
    number = len(points)
    ours, loop = {
        "omp": (lambda: ssc_omp(points, ATOMS), omp_loop),
        "mp": (lambda: ssc_mp(points, ATOMS), mp_loop),
    }[name]
    rows = np.arange(0, number, max(1, number // sample))
    codes, seconds, memory = measure(ours)
    reference, loop_seconds, _ = measure(lambda: loop(points.numpy(), rows))
    found = codes[rows].toarray()  # type: ignore[index]
    same = np.array_equal(found != 0, reference != 0)
    difference = np.abs(found - reference).max()
    loop_seconds *= number / len(rows)
    note = "" if len(rows) == number else f" (from {len(rows)} points)"
    print(
        f"{name:4} {number:7} {dim:5} {seconds:9.3f} {memory:9.0f} {loop_seconds:10.2f}{note:20} "
        f"{loop_seconds / seconds:7.1f}  {'same' if same else 'OTHER'} atoms, {difference:.0e}"
    )
    return loop_seconds / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute on two cores")
    parser.add_argument("--large", action="store_true", help="also 70,000 points of dimension 500")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("     points   dim    ours s  peak MiB     loop s                       ratio")
    sizes = [1500] if arguments.quick else [1500, 5000, 20000]
    chosen = 0.0
    for dim in (9, 500):
        for number in sizes:
            for name in ("omp", "mp"):
                sample = 300 if arguments.quick or number > LOOP_POINTS else number
                ratio = compare(name, number, dim, sample)
                if name == "omp" and dim == 500 and number == (1500 if arguments.quick else 5000):
                    chosen = ratio
    if arguments.large:
        points = union(70000, 500)
        codes, seconds, memory = measure(lambda: ssc_omp(points, ATOMS))
        print(f"omp  {len(points):7}   500 {seconds:9.0f} {memory:9.0f}   {codes.nnz} non-zeros")  # type: ignore[attr-defined]
    print(f"ratio subspace {chosen:.2f}")


if __name__ == "__main__":
    main()
