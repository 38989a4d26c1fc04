"""Non-negative least squares: ours against scipy.optimize.nnls in a loop.

    python benchmarks/cone.py [--quick] [--data FOLDER]

First a dictionary of 1,000 random non-negative unit atoms in R^500; each right-hand side is a non-negative combination
of 100 of them; noise, as a share of its norm, puts it outside of the cone. Then the dictionaries of the applications of
modules/cone_pursuit: problems of the synthetic experiment, factors of digits (NMF) and of a tensor, spectra of mixed
pixels and their shares, digits and, if FOLDER holds the file, faces as atoms. There a single right-hand side is timed,
too (ten calls, best of 20), for which ours is scipy's solution, checked and with the gradient.

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


def compare_on(name: str, dictionary: Tensor, right: Tensor, sample: int) -> None:
    atoms, targets = dictionary.numpy(), right.numpy()
    sample = min(sample, len(targets))
    one = [1e6 * seconds_of(partial(solve, atoms, targets[0]), 20, calls=10) for solve in (nnls, scipy_nnls)]
    ours = seconds_of(lambda: nnls(atoms, targets), 3)
    loop = seconds_of(lambda: [scipy_nnls(atoms, y) for y in targets[:sample]], 1) * len(targets) / sample
    codes = nnls(atoms, targets[:sample]).coefficients
    reference = np.stack([scipy_nnls(atoms, y)[0] for y in targets[:sample]])
    size = f"{atoms.shape[0]} x {atoms.shape[1]}"
    print(
        f"{name:24} {size:>10} {one[0]:8.0f} {one[1]:8.0f} {len(targets):6} {1e3 * ours:10.2f} {1e3 * loop:10.1f} "
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
    nnls(torch.eye(2, dtype=torch.float64), torch.ones(3, 2, dtype=torch.float64))  # compiles or loads the kernel
    print(" right-hand sides  noise    ours s    scipy s              ratio   difference")
    if arguments.quick:
        ratio = compare(200, 20, 0.0)
    else:
        compare(100, 100, 0.0)
        compare(1000, 50, 0.01)
        ratio = compare(1000, 1000, 0.0)
    print(
        f"\n{'dictionary':24} {'d x n':>10}  ours us scipy us  number"
        "    ours ms   scipy ms              ratio  difference"
    )
    for application in of_applications(arguments.data):
        compare_on(*application, sample=50 if arguments.quick else 2000)
    print(f"ratio cone {ratio:.2f}")


if __name__ == "__main__":
    main()
