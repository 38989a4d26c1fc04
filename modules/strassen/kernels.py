"""Ternary matrices times real vectors on packed words: signs and additions, in vector registers.

A matrix [R, K] is stored as 32-bit words, fifteen weights in each, word after word down a column of words. A weight t
is the digit t + 1 at two bits of its word. Masked where it stands, the digit q from the right is (t + 1) 4^q, which is
made a float without rounding; the entry of the vector that goes with it is divided by 4^q, without rounding too. So
fifteen weights take one load, and each of them a mask, a conversion and an addition in one instruction with its factor
of 0, 1 or 2; the sum of the fifteen entries is subtracted beforehand. Rows are neighbours and go in step.

Look-up tables of sums, as T-MAC and bitnet.cpp have them, were here before: without shuffles of bytes, which numba does
not reach, a look-up for every byte of every row took longer, see README.md.
"""

import numpy as np
import torch
from torch import Tensor, nn

from modules.components.kernels import kernel
from modules.strassen.collapse import Collapsed, dense_product

GROUP = 15
"""Weights in a word; a sixteenth would be in the sign."""
MAX_COLUMNS = 4
"""Up to here columns are taken one by one; above, an ordinary matrix product is faster."""
SCALES = np.float32(0.25) ** np.arange(GROUP, dtype=np.float32)
"""What a digit's place multiplies it by, the other way round."""


class PackedMatrix:
    """A ternary matrix in the kernel's layout, 2.13 bits a weight.

    Args:
        matrix: int8 [R, K] of -1, 0, 1.
    """

    def __init__(self, matrix: Tensor) -> None:
        rows, self.columns = matrix.shape
        groups = -(-self.columns // GROUP)
        digits = np.ones((rows, groups * GROUP), np.int32)
        digits[:, : self.columns] += matrix.cpu().numpy()
        words = digits.reshape(rows, groups, GROUP) << 2 * np.arange(GROUP, dtype=np.int32)
        self.words = np.ascontiguousarray(words.sum(2, dtype=np.int32).T)

    def times(self, x: np.ndarray) -> np.ndarray:
        """float32 [K] -> [R]."""
        groups, rows = self.words.shape
        padded = np.zeros((groups, GROUP), np.float32)
        padded.ravel()[: self.columns] = x
        y = np.zeros(rows, np.float32)
        add_signed(self.words, padded, y)
        return y


@kernel(fastmath=True)
def add_signed(words, x, y):  # type: ignore[no-untyped-def]
    """y[i] += sum_g sum_q (digit q of words[g, i] - 1) * x[g, q]; x is used up.

    Written out, since the fifteen entries stay in registers only as variables.
    """
    for g in range(len(words)):
        column, offset = words[g], np.float32(0.0)
        for q in range(GROUP):
            offset -= x[g, q]
            x[g, q] *= SCALES[q]
        x0, x1, x2, x3, x4, x5, x6, x7 = x[g, 0], x[g, 1], x[g, 2], x[g, 3], x[g, 4], x[g, 5], x[g, 6], x[g, 7]
        x8, x9, x10, x11, x12, x13, x14 = x[g, 8], x[g, 9], x[g, 10], x[g, 11], x[g, 12], x[g, 13], x[g, 14]
        for i in range(len(y)):
            word = column[i]
            total = y[i] + offset
            total += np.float32(np.int32(word & 3)) * x0
            total += np.float32(np.int32(word & (3 << 2))) * x1
            total += np.float32(np.int32(word & (3 << 4))) * x2
            total += np.float32(np.int32(word & (3 << 6))) * x3
            total += np.float32(np.int32(word & (3 << 8))) * x4
            total += np.float32(np.int32(word & (3 << 10))) * x5
            total += np.float32(np.int32(word & (3 << 12))) * x6
            total += np.float32(np.int32(word & (3 << 14))) * x7
            total += np.float32(np.int32(word & (3 << 16))) * x8
            total += np.float32(np.int32(word & (3 << 18))) * x9
            total += np.float32(np.int32(word & (3 << 20))) * x10
            total += np.float32(np.int32(word & (3 << 22))) * x11
            total += np.float32(np.int32(word & (3 << 24))) * x12
            total += np.float32(np.int32(word & (3 << 26))) * x13
            total += np.float32(np.int32(word & (3 << 28))) * x14
            y[i] = total


class PackedProduct:
    """``Collapsed.product`` on packed words for few columns; many go through an ordinary product.

    A matrix is packed when it is first seen, and again after it was changed in place. It is kept, so that no other one
    can come to lie where it is.
    """

    def __init__(self) -> None:
        self.packed: dict[tuple[int, tuple[int, ...]], tuple[Tensor, int, PackedMatrix]] = {}

    def __call__(self, matrix: Tensor, columns: Tensor) -> Tensor:
        if columns.shape[1] > MAX_COLUMNS or columns.device.type != "cpu":
            return dense_product(matrix, columns)
        key = (matrix.data_ptr(), tuple(matrix.shape))
        kept, version, packed = self.packed.get(key, (None, 0, None))
        if packed is None or kept is None or kept.data_ptr() != key[0] or version != matrix._version:
            packed = PackedMatrix(matrix)
            self.packed[key] = (matrix, matrix._version, packed)
        values = columns.detach().float().numpy()
        done = [packed.times(values[:, c]) for c in range(values.shape[1])]
        return torch.from_numpy(np.stack(done, axis=1)).to(columns.dtype)


def use_packed_kernels(model: nn.Module) -> nn.Module:
    """Let all collapsed layers of ``model`` compute on packed words; returns it.

    Raises:
        ValueError: if there are none.
    """
    product = PackedProduct()
    collapsed = [layer for layer in model.modules() if isinstance(layer, Collapsed)]
    if not collapsed:
        raise ValueError(f"a {type(model).__name__} without collapsed layers has nothing to pack: collapse it first")
    for layer in collapsed:
        layer.product = product
    return model
