"""Codes of points over a dictionary that is known: by a pursuit with few atoms, or exactly.

Letters: n atoms, d dimension, B points.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.components.files.arrays import read_matrix
from modules.cone_pursuit.nnls import nnls
from modules.cone_pursuit.objectives import LeastSquares
from modules.cone_pursuit.oracles import NEW, Dictionary
from modules.cone_pursuit.solvers import ALGORITHMS, Result, pursue

EXACT = "nnls"


def read_dictionary(path: Path, variable: str | None = None) -> Tensor:
    """float64 [d, n] of a .npy, .csv or .mat file with an atom in each column.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read or holds anything but a finite real matrix.
    """
    expected = "a dictionary is a matrix with an atom in each column"
    try:
        atoms = read_matrix(path, variable)
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"{error}; {expected}") from None
    if not np.isfinite(atoms).all():
        raise ValueError(f"{path} holds NaN or infinity; {expected} of finite numbers")
    return torch.from_numpy(atoms)


def check_algorithm(algorithm: str) -> None:
    if algorithm not in (*ALGORITHMS, EXACT):
        raise ValueError(f"unknown algorithm {algorithm}: choose one of {', '.join((*ALGORITHMS, EXACT))}")


def code(atoms: Tensor, points: Tensor, algorithm: str, max_iterations: int, max_atoms: int | None = None) -> Tensor:
    """Coefficients [B, n] >= 0 of points [B, d] over atoms [d, n]; arguments as of ``pursue``, or ``nnls``."""
    if algorithm == EXACT:
        return nnls(atoms, points).coefficients
    result = pursue(LeastSquares(points), Dictionary(atoms), points, algorithm, max_iterations, max_atoms=max_atoms)
    return by_key(result, atoms.shape[1])


def by_key(result: Result, num_atoms: int) -> Tensor:
    """Coefficients [B, n] in the dictionary's order."""
    used = (result.coefficients > 0) & (result.keys != NEW)
    dense = result.coefficients.new_zeros(len(result.coefficients), num_atoms)
    return dense.scatter_add_(1, result.keys * used, result.coefficients * used)
