"""Non-negative least squares for many right-hand sides that share one dictionary.

Letters: n atoms, d dimension, B right-hand sides.

Whatever the device and the precision, the work is done in float64 on the CPU: the compiled kernel of active_set.py
solves all right-hand sides with one Gram matrix, the optimality conditions are checked in the space of the data, and
the kernel of orthogonal.py solves those that miss them. Atoms and right-hand sides are first scaled by powers of two to
norms about 1, so that no square leaves the range of float64.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from modules.cone_pursuit import active_set, orthogonal


class Solution(NamedTuple):
    coefficients: Tensor  # [B, n], non-negative
    gradient: Tensor  # [B, n], of 0.5 |x - y|^2 in the coefficients: >= 0, and 0 where a coefficient is positive
    iterations: int


def nnls(dictionary: Tensor, right: Tensor, max_iterations: int | None = None, tolerance: float = 1e-11) -> Solution:
    """argmin over c >= 0 of |dictionary c - y|, for every row y of ``right``; not differentiable.

    Where atoms are so close that float64 does not determine c, x = dictionary c still meets the optimality conditions,
    up to the round-off of y and of the terms of x; then x may be off by 1e-7 |y|. An atom within 1e-13 of the span of
    the active ones is taken for a part of it. Results have the precision and the device of the input, integers give
    float64; a gradient beyond the range of its precision is infinite or 0.

    Args:
        dictionary: [d, n].
        right: [B, d], B may be 0.
        max_iterations: rounds in which atoms enter; until the conditions hold if not given.
        tolerance: the cosine of residual and atom counts as 0 up to this, and up to the round-off of y and x.

    Raises:
        ValueError: for shapes, types and devices that do not fit, NaN or infinity, numbers out of range, and
            coefficients that the precision cannot hold.
    """
    _check(dictionary, right, max_iterations, tolerance)
    atoms, targets = _to_numpy(dictionary), _to_numpy(right)
    sizes, lengths = _exponents(atoms.T), _exponents(targets)
    codes, gradient, iterations = _solve(
        np.ldexp(atoms, -sizes), np.ldexp(targets, -lengths[:, None]), max_iterations, tolerance
    )
    coefficients = _to_tensor(np.ldexp(codes, lengths[:, None] - sizes), right)
    if not bool(torch.isfinite(coefficients).all()):
        raise ValueError(f"coefficients exceed the range of {coefficients.dtype}: scale the dictionary up")
    return Solution(coefficients, _to_tensor(np.ldexp(gradient, lengths[:, None] + sizes), right), iterations)


def _solve(
    atoms: np.ndarray, right: np.ndarray, max_iterations: int | None, tolerance: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Coefficients [B, n], gradient [B, n] and the largest number of rounds, for data of norms about 1."""
    threads, most = torch.get_num_threads(), 3 * atoms.shape[1]
    codes, rounds = active_set.solve(atoms, right, max_iterations or most, tolerance, threads)
    gradient, is_unfinished = orthogonal.certify(atoms, right, codes, tolerance)
    if is_unfinished.any():
        left = np.full(len(right), most) if max_iterations is None else max_iterations - rounds
        rows, parts = is_unfinished, codes[is_unfinished]
        rounds[rows] += orthogonal.solve(atoms, right[rows], parts, left[rows], tolerance, threads)
        codes[rows] = parts
        gradient[rows] = orthogonal.certify(atoms, right[rows], parts, tolerance)[0]
    return codes, gradient, int(rounds.max(initial=0))


def _check(dictionary: Tensor, right: Tensor, max_iterations: int | None, tolerance: float) -> None:
    shapes = f"{[*dictionary.shape]}, {[*right.shape]}"
    if dictionary.ndim != 2 or right.ndim != 2 or dictionary.shape[0] != right.shape[1] or 0 in dictionary.shape:
        raise ValueError(f"dictionary [d, n] and right-hand sides [B, d] do not fit: {shapes}")
    if dictionary.dtype != right.dtype or dictionary.device != right.device:
        kinds = f"{dictionary.dtype} on {dictionary.device}, {right.dtype} on {right.device}"
        raise ValueError(f"dictionary and right-hand sides must have one type and one device: {kinds}")
    if dictionary.is_complex():
        raise ValueError(f"dictionary and right-hand sides must be real, not {dictionary.dtype}")
    if not bool(torch.isfinite(dictionary).all() and torch.isfinite(right).all()):
        raise ValueError("dictionary or right-hand sides hold NaN or infinity")
    if max_iterations is not None and max_iterations < 1:
        raise ValueError(f"max_iterations must be at least 1, or None for no limit: {max_iterations}")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance must be in [0, 1): {tolerance}")


def _to_numpy(tensor: Tensor) -> np.ndarray:
    """As float64, converted on the CPU, since not every device has it."""
    return tensor.detach().cpu().double().numpy()


def _to_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """In the precision (float64 for integers) and on the device of ``like``."""
    return torch.from_numpy(array).to(like.dtype if like.is_floating_point() else torch.float64).to(like.device)


def _exponents(rows: np.ndarray) -> np.ndarray:
    """Integers e for which the rows times 2^-e have norms in [0.7, 1.5]; 0 for rows of zeros."""
    largest = np.frexp(np.abs(rows).max(1))[1]  # first, since squares may leave the range
    norms = np.linalg.norm(np.ldexp(rows, -largest[:, None]), axis=1)
    return largest + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(largest.dtype)
