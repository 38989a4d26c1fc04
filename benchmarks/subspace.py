"""SSC-OMP and SSC-MP: ours for all points at once against a loop over points.

    python benchmarks/subspace.py [--quick | --large PRECISION]

The loop is the peer's way: five rounds of correlations, argmax and least squares for each point. Beyond LOOP_POINTS
points it codes an evenly spaced sample of them against all points, and its time is scaled up; that is said in the
table. Times are CPU seconds of this process on one thread; memory is what the call takes at its highest beyond what
was there before (Linux). The last line is the ratio of SSC-OMP at 5,000 points of dimension 500 (--quick: at 1,500).

``--large single`` or ``double`` clusters 70,000 points of dimension 500 by SSC-MP and does nothing else (some ten
minutes).
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch

from modules.subspace.metrics import clustering_error
from modules.subspace.solvers import ssc_mp, ssc_omp
from modules.subspace.spectral import affinity, spectral_clustering

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


def memory_mib(name: str) -> float:
    """VmRSS (now) or VmHWM (highest since the last reset) of this process, on Linux."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def measure(run: Callable[[], object]) -> tuple[object, float, float]:
    """(result, CPU seconds, memory in MiB that it took at its highest, beyond what was there before)."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, start = memory_mib("VmRSS"), time.process_time()
    result = run()
    return result, time.process_time() - start, memory_mib("VmHWM") - before


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


def large(is_single: bool) -> None:
    """Points to labels at a size whose Gram matrix would take 20 or 39 GB."""
    points = union(70000, 500)
    points = points.float() if is_single else points
    truth = np.repeat(np.arange(5), len(points) // 5)
    codes, coding, _ = measure(lambda: ssc_mp(points, ATOMS))
    print(f"coding      {coding:7.0f} s   {codes.nnz} non-zeros", flush=True)  # type: ignore[attr-defined]
    found, clustering, _ = measure(lambda: spectral_clustering(affinity(codes), 5))  # type: ignore[arg-type]
    error = clustering_error(found.labels, truth)  # type: ignore[attr-defined]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # since the process began
    print(f"clustering  {clustering:7.0f} s   error {error:.4f}\npeak memory of the process {peak:.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--quick", action="store_true", help="under a minute on two cores")
    kind.add_argument("--large", choices=("single", "double"), help="70,000 points of dimension 500 instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.large:
        return large(arguments.large == "single")
    for solve in (ssc_omp, ssc_mp):  # compiled, or read from disk, before anything is timed
        for dim in (9, 80):
            solve(union(100, dim), ATOMS)
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
    print(f"ratio subspace {chosen:.2f}")


if __name__ == "__main__":
    main()
