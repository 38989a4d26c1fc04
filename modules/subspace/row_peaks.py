"""Where each row of a matrix is largest in magnitude, compiled for the CPU: one pass, nothing stored in between.

Floating-point numbers without their sign order like the integers of the same bits, and integers have a maximum that
compilers know how to vectorise.
"""

import numpy as np
import torch
from torch import Tensor

from modules.components.kernels import kernel

CHUNK = 512
"""Entries that stay in the first-level cache while the largest of them is looked for."""


def as_integers(values: np.ndarray) -> np.ndarray:
    """The same memory as signed integers of the same size."""
    return values.view(f"i{values.itemsize}")


def sign_free_mask(dtype: np.dtype) -> np.signedinteger:
    """All bits but the sign's."""
    integer = np.dtype(f"i{dtype.itemsize}")
    return integer.type(np.iinfo(integer).max)


@kernel()
def _search(bits, mask, columns, tops):
    number = bits.shape[1]
    for row in range(len(bits)):
        top, where = mask - mask, 0
        for start in range(0, number, CHUNK):
            part, peak = bits[row, start : start + CHUNK], mask - mask
            for i in range(len(part)):
                peak = max(peak, part[i] & mask)
            if peak > top:
                top, where = peak, start
        while bits[row, where] & mask != top:
            where += 1
        columns[row], tops[row] = where, top


def first_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """Column int64 [B] of each row's entry of largest magnitude, the first one of equals, and whether it is not zero.

    ``values`` [B, N] are float32 or float64 without NaN, on the CPU.
    """
    array = values.contiguous().numpy()
    bits = as_integers(array)
    columns, tops = np.empty(len(bits), np.int64), np.empty(len(bits), bits.dtype)
    _search(bits, sign_free_mask(array.dtype), columns, tops)
    return torch.from_numpy(columns), torch.from_numpy(tops > 0)
