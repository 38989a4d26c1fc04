"""Non-negative least squares: ours against scipy.optimize.nnls in a loop.

    python benchmarks/cone.py [--quick] [--data FOLDER]

First a dictionary of 1,000 random non-negative unit atoms in R^500; each right-hand side is a non-negative combination
of 100 of them; noise, as a share of its norm, puts it outside of the cone. Then the dictionaries of the applications of
modules/cone_pursuit: problems of the synthetic experiment, factors of digits (NMF) and of a tensor, spectra of mixed
pixels and their shares, digits and, if FOLDER holds the file, faces as atoms. There single right-hand sides are timed,
too, up to ten of each dictionary: ours for NumPy arrays and for tensors, in turn with scipy for the same arrays, best
of 15 means over several calls. Of these the table gives the means and, as "worst", the smallest ratio of scipy's time
and ours for one of them; then the ratios for two and ten right-hand sides at once against scipy's loop.

Where scipy solves a sample of the right-hand sides and its time is scaled up, the table says so. Times are CPU seconds
of this process on one thread, after the kernel has been compiled. The last line is the ratio for targets inside of the
random cone.
"""

import argparse
import os
import time
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls
from torch import Tensor

from datamodules.cone_problems import ConeProblems
from datamodules.digits import Digits
from datamodules.labelled_images import read_images
from datamodules.loading.loaders import data_root
from datamodules.low_rank_tensors import LowRankTensor
from datamodules.mixed_pixels import MixedPixels
from modules.cone_pursuit.endmembers import extract
from modules.cone_pursuit.factors import compose, hals
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


def factors_of(array: Tensor, rank: int) -> list[Tensor]:
    """``rank`` non-negative terms by 100 sweeps of HALS from random factors, [n_m, rank] each."""
    random = torch.Generator().manual_seed(0)
    starts = [torch.rand(1, size, rank, generator=random).to(array) for size in array.shape]
    return [factor[0] for factor in hals(array[None], starts, 100)]


def of_applications(root: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Names, dictionaries [d, n] and right-hand sides [B, d]; faces only where their file is."""
    draw = ConeProblems().draws[0]
    yield "synthetic problem", draw["atoms"], draw["points"]
    digits, _ = Digits().load()
    yield "NMF of digits, rank 10", factors_of(digits, 10)[1], digits
    tensor, _ = LowRankTensor().load()
    terms = compose([side[None] for side in factors_of(tensor, 8)[1:]])[0].flatten(1)
    yield "tensor, rank 8", terms.T.contiguous(), tensor.flatten(1)
    pixels, _ = MixedPixels().load()
    spectra = pixels[extract(pixels, 6, "spa")].T.contiguous()
    yield "unmixing: spectra", spectra, pixels
    shares = nnls(spectra, pixels).coefficients
    yield "unmixing: shares", shares, pixels.T.contiguous()
    yield "coding: 300 digits", digits[:300].T.contiguous(), digits[300:]
    if (root / "extended_yale_b_32x32.mat").is_file():
        faces, _ = read_images("extended_yale_b_32x32", root)
        yield "coding: 100 faces", faces[::24][:100].T.contiguous(), faces[1::24]


def seconds_of(solve: Callable[[], Any], repeats: int, calls: int = 1) -> float:
    """CPU seconds of a call, the best of ``repeats`` means over so many ``calls``."""
    return min(timeit.repeat(solve, timer=time.process_time, number=calls, repeat=repeats)) / calls


def in_turn(solvers: list[Callable[[], Any]], calls: int) -> np.ndarray:
    """CPU seconds of a call of each, the best of 15 means over so many calls, in turn, under the same load."""
    times = [[seconds_of(solve, 1, calls) for solve in solvers] for _ in range(15)]
    return np.array(times).min(0)


def ways(dictionary: Tensor, right: Tensor) -> list[Callable[[], Any]]:
    """Ours on arrays, ours on tensors, and scipy on arrays, for one right-hand side or several."""
    atoms, targets = dictionary.numpy(), np.ascontiguousarray(right.numpy())
    ours = [partial(nnls, atoms, targets), partial(nnls, dictionary, torch.from_numpy(targets))]
    if right.ndim == 1:
        return [*ours, partial(scipy_nnls, atoms, targets)]
    return [*ours, lambda: [scipy_nnls(atoms, y) for y in targets]]


def compare_single(name: str, dictionary: Tensor, right: Tensor, calls: int) -> None:
    """Single right-hand sides, evenly taken from all, and the first two and ten at once."""
    some = right[:: max(1, len(right) // 10)][:10]
    times = np.stack([in_turn(ways(dictionary, y), calls) for y in some])
    ratios = [(times[:, 2:] / times[:, :2]).min(0)]
    for number in (2, 10):
        if number <= len(right):
            together = in_turn(ways(dictionary, right[:number]), max(1, calls // number))
            ratios.append(together[2] / together[:2])
    size = f"{dictionary.shape[0]} x {dictionary.shape[1]}"
    microseconds = " ".join(f"{1e6 * each:8.1f}" for each in times.mean(0))
    pairs = "  ".join(f"{arrays:5.2f} {tensors:5.2f}" for arrays, tensors in ratios)
    print(f"{name:24} {size:>10} {len(some):3}  {microseconds}  {pairs}", flush=True)


def compare_on(name: str, dictionary: Tensor, right: Tensor, sample: int) -> None:
    atoms, targets = dictionary.numpy(), right.numpy()
    sample = min(sample, len(targets))
    ours = seconds_of(lambda: nnls(atoms, targets), 3)
    loop = seconds_of(lambda: [scipy_nnls(atoms, y) for y in targets[:sample]], 1) * len(targets) / sample
    codes = nnls(atoms, targets[:sample]).coefficients
    reference = np.stack([scipy_nnls(atoms, y)[0] for y in targets[:sample]])
    size = f"{atoms.shape[0]} x {atoms.shape[1]}"
    print(
        f"{name:24} {size:>10} {len(targets):6} {1e3 * ours:10.2f} {1e3 * loop:10.1f} "
        f"(from {sample:4}) {loop / ours:7.1f} {np.abs((codes - reference) @ atoms.T).max():10.0e}"
    )


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
    parser.add_argument("--data", type=Path, default=data_root(None), help="folder of extended_yale_b_32x32.mat")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for number in (1, 4):  # compiles or loads the kernels
        for convert in (Tensor.numpy, Tensor.clone):
            nnls(convert(torch.eye(2, dtype=torch.float64)), convert(torch.ones(number, 2, dtype=torch.float64)))
    print(" right-hand sides  noise    ours s    scipy s              ratio   difference")
    if arguments.quick:
        ratio = compare(200, 20, 0.0)
    else:
        compare(100, 100, 0.0)
        compare(1000, 50, 0.01)
        ratio = compare(1000, 200, 0.0)
    applications = [*of_applications(arguments.data)]
    print(
        f"\n{'one right-hand side':24} {'d x n':>10} of   arrays  tensors scipy us  worst: a, t  two: a, t    ten: a, t"
    )
    for application in applications:
        compare_single(*application, calls=10 if arguments.quick else 30)
    print(f"\n{'dictionary':24} {'d x n':>10}  number    ours ms   scipy ms              ratio  difference")
    for application in applications:
        compare_on(*application, sample=50 if arguments.quick else 2000)
    print(f"ratio cone {ratio:.2f}")


if __name__ == "__main__":
    main()
