"""Non-negative least squares: many right-hand sides that share one dictionary.

``nnls`` works in float64 on the CPU, whatever the device and the precision of its input. The compiled active-set method
(active_set.py) solves one right-hand side after the other. Then the optimality conditions are checked in the space of
the data, and scipy, whose method squares no condition, solves what misses them. A single right-hand side is scipy's at
once. Atoms and right-hand sides are first scaled by powers of two to norms about 1, so that no square leaves the range
of float64.

Letters: n atoms, d dimension, B right-hand sides.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls
from torch import Tensor

from modules.cone_pursuit.active_set import ROUNDS, TOLERANCE, active_set

NOISE = 16 * np.finfo(np.float64).eps
"""Round-off in the inner product of a unit vector and a difference of vectors whose norms add up to 1."""
SAFE_SQUARES = (1e-200, 1e200)
"""Squared norms that need no scaling."""


class Solution(NamedTuple):
    """Both as the right-hand sides: tensors or arrays, [B, n], or [n] for one right-hand side [d]."""

    coefficients: Any
    """Non-negative."""
    gradient: Any
    """Of 0.5 |x - y|^2 in the coefficients: >= 0, and 0 where a coefficient is positive."""


def nnls(dictionary: Any, right: Any) -> Solution:
    """argmin over c >= 0 of |dictionary c - y|, for every row y of ``right``; not differentiable.

    Where atoms are so close that float64 does not determine c, x = dictionary c still meets the optimality conditions,
    up to the round-off of y and of the terms of x; then x may be off by 1e-7 |y|. With two right-hand sides or more
    this is checked, and scipy solves again what misses it; what scipy finds, and it alone solves a single right-hand
    side, is not. There, over atoms near a subspace of several dimensions less, x may be off by more: see ``misses``.
    Results are of the kind, precision and device of the input, integers give float64; a gradient beyond the range of
    its precision is infinite or 0.

    Args:
        dictionary: [d, n], a torch tensor or NumPy array.
        right: of the same kind, [B, d] or one right-hand side [d]; B may be 0.

    Raises:
        ValueError: for kinds, shapes, types and devices that do not fit, NaN or infinity, and coefficients that the
            precision cannot hold.
    """
    _check(dictionary, right)
    atoms, targets = _to_numpy(dictionary), np.atleast_2d(_to_numpy(right))
    codes, gradient = _solve_one(atoms, targets) or _solve_scaled(atoms, targets)
    if right.ndim == 1:
        codes, gradient = codes[0], gradient[0]
    coefficients = _like(codes, right)
    if not np.isfinite(_to_numpy(coefficients)).all():
        raise ValueError(f"coefficients exceed the range of {coefficients.dtype}: scale the dictionary up")
    return Solution(coefficients, _like(gradient, right))


def _solve_one(atoms: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients and gradient of a single right-hand side as it is; None for several, or where squares leave the
    range, where a number is not finite, or where scipy does not end."""
    if len(targets) != 1:
        return None
    y = targets[0]
    if not (_squares_are_safe(atoms) and _squares_are_safe(targets.T)):
        return None
    code = _by_scipy(atoms, y)
    return None if code is None else (code[None], ((atoms @ code - y) @ atoms)[None])


def _squares_are_safe(columns: np.ndarray) -> bool:
    """Whether the squared norm of each column is well within range; zeros are."""
    squares, (low, high) = np.einsum("ij,ij->j", columns, columns), SAFE_SQUARES
    if squares.min() > low:
        return bool(squares.max() < high)
    small = ~(squares > low)
    return bool(squares[~small].max(initial=0.0) < high) and not columns[:, small].any()


def _solve_scaled(atoms: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and gradient, [B, n], by way of atoms and right-hand sides of norms about 1.

    Raises:
        ValueError: for NaN or infinity.
    """
    if not (np.isfinite(atoms).all() and np.isfinite(targets).all()):
        raise ValueError("dictionary or right-hand sides hold NaN or infinity")
    sizes, lengths = _exponents(atoms.T), _exponents(targets)
    atoms, targets = np.ldexp(atoms, -sizes), np.ldexp(targets, -lengths[:, None])
    codes = _solve(atoms, targets)
    gradient = (codes @ atoms.T - targets) @ atoms
    return np.ldexp(codes, lengths[:, None] - sizes), np.ldexp(gradient, lengths[:, None] + sizes)


def _solve(atoms: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Coefficients [B, n] for data of norms about 1."""
    if len(right) == 1 and (code := _by_scipy(atoms, right[0])) is not None:
        return code[None]
    codes = active_set(atoms, right, torch.get_num_threads())
    for b in np.flatnonzero(misses(atoms, right, codes)):
        if (code := _by_scipy(atoms, right[b])) is not None:
            codes[b] = code
    return codes


def _by_scipy(atoms: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """[n], or None if round-off keeps scipy from an end within ten times the rounds of ``active_set``."""
    try:
        return scipy_nnls(atoms, y, maxiter=10 * ROUNDS * atoms.shape[1])[0]
    except RuntimeError:
        return None


def misses(atoms: np.ndarray, right: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """bool [B]: which codes [B, n] miss the optimality conditions.

    These are <x - y, a> >= 0 for each atom of [d, n] and = 0 for the active ones, up to |a| (TOLERANCE |x - y| + NOISE
    |y|). A NaN misses them.
    """
    difference = codes @ atoms.T - right
    gradient = difference @ atoms
    slack = NOISE * np.linalg.norm(right, axis=1) + TOLERANCE * np.linalg.norm(difference, axis=1)
    excess = np.where(codes > 0, np.abs(gradient), -gradient) - slack[:, None] * np.linalg.norm(atoms, axis=0)
    return ~(excess.max(1) <= 0)


def _check(dictionary: Any, right: Any) -> None:
    kinds = {type(each) if isinstance(each, Tensor | np.ndarray) else None for each in (dictionary, right)}
    if len(kinds) > 1 or None in kinds:
        names = f"{type(dictionary).__name__} and {type(right).__name__}"
        raise ValueError(f"dictionary and right-hand sides must be tensors or arrays, both of one kind, not {names}")
    shapes = f"{[*dictionary.shape]}, {[*right.shape]}"
    if (
        dictionary.ndim != 2
        or right.ndim not in (1, 2)
        or dictionary.shape[0] != right.shape[-1]
        or 0 in dictionary.shape
    ):
        raise ValueError(f"dictionary [d, n] and right-hand sides [B, d] or [d] do not fit: {shapes}")
    types = [
        f"{each.dtype} on {each.device}" if isinstance(each, Tensor) else each.dtype for each in (dictionary, right)
    ]
    if types[0] != types[1]:
        raise ValueError(f"dictionary and right-hand sides must have one type and one device: {types[0]}, {types[1]}")
    is_complex = dictionary.is_complex() if isinstance(dictionary, Tensor) else dictionary.dtype.kind not in "fiub"
    if is_complex:
        raise ValueError(f"dictionary and right-hand sides must be real, not {dictionary.dtype}")


def _to_numpy(values: Any) -> np.ndarray:
    """As float64, converted on the CPU, since not every device has it."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, np.float64)


def _like(values: np.ndarray, like: Any) -> Any:
    """Of the kind and precision (float64 for integers) and on the device of ``like``."""
    if isinstance(like, Tensor):
        dtype = like.dtype if like.is_floating_point() else torch.float64
        return torch.from_numpy(values).to(dtype).to(like.device)
    with np.errstate(over="ignore", under="ignore"):
        return values.astype(like.dtype if like.dtype.kind == "f" else np.float64, copy=False)


def _exponents(rows: np.ndarray) -> np.ndarray:
    """Integers e for which the rows times 2^-e have norms in [0.7, 1.5]; 0 for rows of zeros."""
    largest = np.frexp(np.abs(rows).max(1))[1]  # first, since squares may leave the range
    norms = np.linalg.norm(np.ldexp(rows, -largest[:, None]), axis=1)
    return largest + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(largest.dtype)
