"""Ternary matrices times real vectors on packed bytes, with look-up tables and no multiplication.

A matrix [R, K] is stored as in files, five weights in a byte (modules/strassen/packing.py), byte after byte down a
column of bytes. For every five entries of the vector the 243 sums that a byte can mean are made first, one addition
each; then a row adds one table entry for each of its bytes. T-MAC and bitnet.cpp do the same with other group sizes.
"""

import numpy as np
import torch
from torch import Tensor, nn

from modules.components.kernels import kernel
from modules.strassen.collapse import Collapsed, dense_product
from modules.strassen.packing import pack_ternary

GROUP, SUMS = 5, 243
CHUNK_ROWS = 2048
MAX_COLUMNS = 4
"""Up to here columns are taken one by one; above, an ordinary matrix product is faster."""


class PackedMatrix:
    """A ternary matrix in the kernel's layout, 1.6 bits a weight.

    Args:
        matrix: int8 [R, K] of -1, 0, 1.
    """

    def __init__(self, matrix: Tensor) -> None:
        rows, self.columns = matrix.shape
        groups = -(-self.columns // GROUP)
        padded = np.zeros((rows, groups * GROUP), np.int8)
        padded[:, : self.columns] = matrix.cpu().numpy()
        codes = np.frombuffer(pack_ternary(padded), np.uint8).reshape(rows, groups)
        self.codes = np.ascontiguousarray(codes.T)

    def times(self, x: np.ndarray) -> np.ndarray:
        """float32 [K] -> [R]."""
        groups, rows = self.codes.shape
        padded = np.zeros(groups * GROUP, np.float32)
        padded[: self.columns] = x
        tables, y = np.empty((groups, SUMS), np.float32), np.empty(rows, np.float32)
        fill_tables(padded, tables)
        add_entries(self.codes, tables, y)
        return y


@kernel()
def fill_tables(x, tables):  # type: ignore[no-untyped-def]
    """tables[g, code] = sum of the five entries of group g, each times its digit - 1."""
    for g in range(len(tables)):
        table, count = tables[g], 1
        table[0] = -(x[5 * g] + x[5 * g + 1] + x[5 * g + 2] + x[5 * g + 3] + x[5 * g + 4])
        for digit in range(5):
            value = x[5 * g + digit]
            for q in range(count):
                table[count + q] = table[q] + value
                table[2 * count + q] = table[count + q] + value
            count *= 3


@kernel(fastmath=True)
def add_entries(codes, tables, y):  # type: ignore[no-untyped-def]
    """y[i] = sum_g tables[g, codes[g, i]], two groups at a time, in chunks of rows."""
    groups, rows = codes.shape
    for low in range(0, rows, CHUNK_ROWS):
        part = y[low : low + CHUNK_ROWS]
        part[:] = 0.0
        for g in range(0, groups - 1, 2):
            table, other = tables[g], tables[g + 1]
            code, next_code = codes[g, low : low + CHUNK_ROWS], codes[g + 1, low : low + CHUNK_ROWS]
            for i in range(len(part)):
                part[i] += table[code[i]] + other[next_code[i]]
        if groups % 2:
            table, code = tables[groups - 1], codes[groups - 1, low : low + CHUNK_ROWS]
            for i in range(len(part)):
                part[i] += table[code[i]]


class PackedProduct:
    """``Collapsed.product`` on packed bytes for few columns; many go through an ordinary product.

    Matrices are packed when they are first seen; they must not change afterwards.
    """

    def __init__(self) -> None:
        self.packed: dict[tuple[int, tuple[int, ...]], PackedMatrix] = {}

    def __call__(self, matrix: Tensor, columns: Tensor) -> Tensor:
        if columns.shape[1] > MAX_COLUMNS or columns.device.type != "cpu":
            return dense_product(matrix, columns)
        key = (matrix.data_ptr(), tuple(matrix.shape))
        if key not in self.packed:
            self.packed[key] = PackedMatrix(matrix)
        values = columns.detach().float().numpy()
        done = [self.packed[key].times(values[:, c]) for c in range(values.shape[1])]
        return torch.from_numpy(np.stack(done, axis=1)).to(columns.dtype)


def use_packed_kernels(model: nn.Module) -> nn.Module:
    """Let all collapsed layers of ``model`` compute on packed bytes; returns it."""
    product = PackedProduct()
    for layer in model.modules():
        if isinstance(layer, Collapsed):
            layer.product = product
    return model
