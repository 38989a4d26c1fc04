"""Arrays of real numbers from .npy and .csv files that may be damaged or made to do harm.

Nothing is unpickled, no memory is taken on a header's word, and whatever is wrong with a file becomes a ValueError that
names it. The parsers underneath raise nearly anything on damaged bytes, hence ``except Exception``.
"""

import math
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format

REAL = "biuf"


def read_npy(path: Path) -> np.ndarray:
    """The array as it is stored, of any shape with at least one entry.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no .npy file of real numbers, or longer or shorter than its header says.
    """
    require_file(path, "a .npy array")
    try:
        with path.open("rb") as file:
            return parse_npy(file, path.stat().st_size)
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a .npy array: {error}") from None


def parse_npy(file: BinaryIO, size: int) -> np.ndarray:
    """The array of an open file of ``size`` bytes. Raises nearly anything."""
    version = npy_format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format version is {version}; arrays of numbers have 1.0 or 2.0")
    read_header = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(file)
    require_real(dtype, shape)
    claimed, held = math.prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != held:
        raise ValueError(f"its header promises {claimed} bytes of {dtype} {shape}, but {held} follow")
    return np.fromfile(file, dtype, math.prod(shape)).reshape(shape, order="F" if is_fortran else "C")


def read_csv(path: Path) -> np.ndarray:
    """float64 [N, D]: numbers between commas, in UTF-8; a first line without any number is a header.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds anything else or no line of numbers.
    """
    require_file(path, "a .csv file of numbers")
    try:
        with path.open(encoding="utf-8-sig") as file:  # spreadsheets begin UTF-8 with a byte order mark
            num_header = int(is_header(file.readline()))
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "loadtxt: input contained no data")
            return np.loadtxt(path, delimiter=",", ndmin=2, skiprows=num_header, encoding="utf-8-sig")
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a matrix: {error}") from None


def is_header(line: str) -> bool:
    """Is none of the words a number? A line of both is data that np.loadtxt refuses, not a point to be passed over."""
    return not any(is_number(word) for word in line.split("#")[0].split(","))


def is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def whole_numbers(values: np.ndarray, path: Path) -> np.ndarray:
    """int64 [N] of labels that ``path`` gave as a vector, a row or a column.

    Raises:
        ValueError: for another shape, fractions, and numbers of 2^53 or more, which float64 confuses.
    """
    if max(values.shape, default=1) != values.size:
        raise ValueError(f"{path} holds labels of shape {values.shape}, not one for each point")
    real = values.reshape(-1).astype(np.float64)
    if not (np.abs(real) < 2**53).all() or (real != np.round(real)).any():
        raise ValueError(f"{path} holds labels that are not whole numbers below 2^53")
    return values.reshape(-1).astype(np.int64)


def require_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected is {expected}")


def require_real(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind not in REAL or min(shape, default=1) < 1:
        raise ValueError(f"it holds {dtype} of shape {shape}, not a real array with an entry or more")
