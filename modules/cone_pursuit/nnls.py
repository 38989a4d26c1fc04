"""Non-negative least squares: one right-hand side or many that share a dictionary.

``nnls`` works in float64 on the CPU, whatever the device and the precision of its input. The compiled active-set method
(active_set.py) solves one right-hand side after the other and checks the optimality conditions in the space of the
data; scipy, whose method squares no condition, solves what misses them. Where squares would leave the range of float64,
atoms and right-hand sides are first scaled by powers of two to norms about 1.

Letters: n atoms, d dimension, B right-hand sides.
"""

from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import nnls as scipy_nnls
from torch import Tensor

from modules.cone_pursuit.active_rounds import ROUNDS, solve_at
from modules.cone_pursuit.active_set import FEW, active_set

FLOAT64 = np.dtype(np.float64)
IS_COMPILED = not isinstance(solve_at, FunctionType)
"""Under NUMBA_DISABLE_JIT there are no addresses."""


class Solution(NamedTuple):
    """Both as the right-hand sides: tensors or arrays, [B, n], or [n] for one right-hand side [d]."""

    coefficients: Any
    """Non-negative."""
    gradient: Any
    """Of 0.5 |x - y|^2 in the coefficients: >= 0, and 0 where a coefficient is positive."""


def nnls(dictionary: Any, right: Any) -> Solution:
    """argmin over c >= 0 of |dictionary c - y|, for every row y of ``right``; not differentiable.

    Where atoms are so close that float64 does not determine c, x = dictionary c still meets the optimality conditions,
    up to the round-off of y and of the terms of x; then x may be off by 1e-7 |y|. This is checked, and scipy solves
    again what misses it; what scipy finds is not checked. There, over atoms near a subspace of several dimensions less,
    x may be off by more: see ``active_set``. Results are of the kind, precision and device of the input, integers give
    float64; a gradient beyond the range of its precision is infinite or 0.

    Args:
        dictionary: [d, n], a torch tensor or NumPy array.
        right: of the same kind, [B, d] or one right-hand side [d]; B may be 0.

    Raises:
        ValueError: for kinds, shapes, types and devices that do not fit, NaN or infinity, and coefficients that the
            precision cannot hold.
    """
    if found := _solve_plain(dictionary, right):
        return found
    atoms, targets = _as_arrays(dictionary, right)
    rows = targets[None] if targets.ndim == 1 else targets
    codes, gradient = _solve(atoms, rows) or _solve_scaled(atoms, rows)
    if targets.ndim == 1:
        codes, gradient = codes[0], gradient[0]
    return _like(right, codes, gradient)


def _solve_plain(dictionary: Any, right: Any) -> Solution | None:
    """For few right-hand sides in tensors that lie in memory as NumPy's arrays do, without making these.

    None for anything else, and where the kernel alone cannot solve them.
    """
    if not (IS_COMPILED and type(dictionary) is Tensor and type(right) is Tensor):
        return None
    shape, others = dictionary.shape, right.shape
    is_one = len(others) == 1
    number = others[0] if len(others) == 2 else 1
    if not (
        (len(shape) == 2 and len(others) in (1, 2) and 0 not in shape and others[-1] == shape[0])
        and (number <= FEW and dictionary.dtype is right.dtype is torch.float64 and dictionary.is_cpu and right.is_cpu)
        and (dictionary.layout is torch.strided and dictionary.is_contiguous() and not dictionary.is_neg())
        and (right.layout is torch.strided and right.is_contiguous() and not right.is_neg())
    ):
        return None
    codes, gradient = np.empty((number, shape[1])), np.empty((number, shape[1]))
    if not solve_at(dictionary.data_ptr(), right.data_ptr(), shape[0], codes, gradient):
        return None
    if is_one:
        codes, gradient = codes[0], gradient[0]
    return Solution(torch.from_numpy(codes), torch.from_numpy(gradient))


def _solve(atoms: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Coefficients and gradient, [B, n]; None where squares leave the range or a number is not finite."""
    found = active_set(atoms, right, torch.get_num_threads())
    if found is None:
        return None
    codes, gradient, missed = found
    for b in missed:
        codes[b] = _by_scipy(atoms, right[b], codes[b])
        gradient[b] = (atoms @ codes[b] - right[b]) @ atoms
    return codes, gradient


def _solve_scaled(atoms: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and gradient, [B, n], by way of atoms and right-hand sides of norms about 1.

    Raises:
        ValueError: for NaN or infinity, and coefficients beyond float64.
    """
    if not (np.isfinite(atoms).all() and np.isfinite(right).all()):
        raise ValueError("dictionary or right-hand sides hold NaN or infinity")
    sizes, lengths = _exponents(atoms.T), _exponents(right)[:, None]
    found = _solve(np.ldexp(atoms, -sizes), np.ldexp(right, -lengths))
    assert found is not None  # norms are 0 or in [0.7, 1.5]
    with np.errstate(over="ignore", under="ignore"):
        codes, gradient = np.ldexp(found[0], lengths - sizes), np.ldexp(found[1], lengths + sizes)
    if not np.isfinite(codes).all():
        raise ValueError("coefficients exceed the range of float64: scale the dictionary up")
    return codes, gradient


def _by_scipy(atoms: np.ndarray, y: np.ndarray, code: np.ndarray) -> np.ndarray:
    """[n]; ``code`` if round-off keeps scipy from an end within ten times the rounds of ``active_set``."""
    try:
        return scipy_nnls(atoms, y, maxiter=10 * ROUNDS * atoms.shape[1])[0]
    except RuntimeError:
        return code


def _as_arrays(dictionary: Any, right: Any) -> tuple[np.ndarray, np.ndarray]:
    """As float64 on the CPU, after all checks but those of the numbers; without a copy where they are so."""
    if isinstance(dictionary, np.ndarray) and isinstance(right, np.ndarray):
        atoms, targets = dictionary, right
    elif isinstance(dictionary, Tensor) and isinstance(right, Tensor):
        try:
            atoms, targets = dictionary.numpy(), right.numpy()
        except (RuntimeError, TypeError):  # gradients, other devices, what NumPy has not
            atoms, targets = _from_tensors(dictionary, right)
    else:
        names = f"{type(dictionary).__name__} and {type(right).__name__}"
        raise ValueError(f"dictionary and right-hand sides must be tensors or arrays, both of one kind, not {names}")
    shape, others, dtype = atoms.shape, targets.shape, atoms.dtype
    if len(shape) != 2 or len(others) not in (1, 2) or shape[0] != others[-1] or 0 in shape:
        raise ValueError(f"dictionary [d, n] and right-hand sides [B, d] or [d] do not fit: {[*shape]}, {[*others]}")
    if dtype != targets.dtype:
        raise ValueError(f"dictionary and right-hand sides must have one type: {dtype}, {targets.dtype}")
    if dtype.kind not in "fiub":
        raise ValueError(f"dictionary and right-hand sides must be real, not {dtype}")
    return np.asarray(atoms, FLOAT64), np.asarray(targets, FLOAT64)


def _from_tensors(*tensors: Tensor) -> list[np.ndarray]:
    """As float64, converted on the CPU, since not every device has it."""
    types = [f"{each.dtype} on {each.device}" for each in tensors]
    if types[0] != types[1]:
        raise ValueError(f"dictionary and right-hand sides must have one type and one device: {types[0]}, {types[1]}")
    if tensors[0].is_complex():
        raise ValueError(f"dictionary and right-hand sides must be real, not {tensors[0].dtype}")
    if not all(each.layout is torch.strided for each in tensors):
        raise ValueError("dictionary and right-hand sides must be dense: call to_dense() first")
    return [each.detach().cpu().resolve_neg().double().numpy() for each in tensors]


def _like(right: Any, codes: np.ndarray, gradient: np.ndarray) -> Solution:
    """Both of the kind and precision (float64 for integers) and on the device of ``right``.

    Raises:
        ValueError: for coefficients that the precision cannot hold.
    """
    if isinstance(right, np.ndarray):
        if right.dtype == FLOAT64 or right.dtype.kind != "f":
            return Solution(codes, gradient)
        with np.errstate(over="ignore", under="ignore"):
            found = Solution(codes.astype(right.dtype), gradient.astype(right.dtype))
        is_finite = np.isfinite(found.coefficients).all()
    else:
        found = Solution(torch.from_numpy(codes), torch.from_numpy(gradient))
        if right.dtype is torch.float64 and right.is_cpu:
            return found
        dtype = right.dtype if right.is_floating_point() else torch.float64
        found = Solution(*(each.to(dtype).to(right.device) for each in found))
        is_finite = found.coefficients.isfinite().all()
    if not is_finite:
        raise ValueError(f"coefficients exceed the range of {found.coefficients.dtype}: scale the dictionary up")
    return found


def _exponents(rows: np.ndarray) -> np.ndarray:
    """Integers e for which the rows times 2^-e have norms in [0.7, 1.5]; 0 for rows of zeros."""
    largest = np.frexp(np.abs(rows).max(1))[1]  # first, since squares may leave the range
    norms = np.linalg.norm(np.ldexp(rows, -largest[:, None]), axis=1)
    return largest + np.rint(np.log2(np.where(norms > 0, norms, 1.0))).astype(largest.dtype)
