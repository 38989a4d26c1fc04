"""Arrays of real numbers from .npy, .csv and .mat files.

    read_array    any shape, as it is stored: variable and axis
    read_matrix   float64 [N, D]
    read_labels   int64 [N]

Nothing is unpickled, no memory is taken on the word of a .npy header, and whatever is wrong with a file becomes a
ValueError that names it. The parsers underneath raise nearly anything on damaged bytes, hence ``except Exception``.
scipy, which reads the .mat files, trusts them more than strangers deserve: these are files that the user chose.
"""

import math
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy_format
from scipy.io import loadmat, whosmat
from scipy.sparse import issparse

REAL = "biuf"
NUMERIC = (
    *("double", "single", "sparse", "logical", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
)
"""MATLAB's classes of arrays of numbers."""


def read_array(path: Path, variable: str | None = None, axis: int = 0) -> np.ndarray:
    """The array as it is stored, of any shape with at least one entry; ``axis`` becomes the first one.

    Args:
        variable: of a .mat file; not needed where it holds one array of numbers. Sparse ones become dense.
        axis: along which the items lie.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another ending, a variable of a .npy or .csv file, a file that cannot be read or holds anything
            but real numbers, and an axis that it does not have.
    """
    readers = {".npy": read_npy, ".csv": read_csv, ".mat": lambda path: read_mat(path, variable)}
    if path.suffix not in readers:
        raise ValueError(f"{path} cannot be read: its name must end in {', '.join(readers)}")
    if variable is not None and path.suffix != ".mat":
        raise ValueError(f"{path} holds one array without a name: leave out the variable {variable} or set it to null")
    array = readers[path.suffix](path)
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"{path} has {array.ndim} axes; axis {axis} is none of them")
    return np.moveaxis(array, axis, 0)


def read_matrix(path: Path, variable: str | None = None) -> np.ndarray:
    """float64 [N, D] with N, D >= 1; errors as of ``read_array``, and for other numbers of axes."""
    matrix = read_array(path, variable)
    if matrix.ndim != 2:
        raise ValueError(f"{path} holds an array of shape {matrix.shape}, not a real matrix [N, D]")
    return np.require(matrix, np.float64, "W")


def read_labels(path: Path, number: int, variable: str | None = None) -> np.ndarray:
    """int64 [number] from a vector, a row or a column.

    Raises:
        FileNotFoundError, ValueError: as ``read_array``; also for another number of labels, fractions, and numbers of
            2^53 or more, which float64 confuses.
    """
    values = read_array(path, variable)
    if max(values.shape, default=1) != values.size:
        raise ValueError(f"{path} holds labels of shape {values.shape}, not one for each point")
    if values.size != number:
        raise ValueError(f"{path} holds {values.size} labels for {number} points")
    real = values.reshape(-1).astype(np.float64)
    if not (np.abs(real) < 2**53).all() or (real != np.round(real)).any():
        raise ValueError(f"{path} holds labels that are not whole numbers below 2^53")
    return values.reshape(-1).astype(np.int64)


def read_npy(path: Path) -> np.ndarray:
    """Of any shape with at least one entry.

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


def read_csv(path: Path, words: dict[str, float] | None = None) -> np.ndarray:
    """float64 [N, D]: numbers between commas, in UTF-8; a first line without any number is a header.

    Args:
        words: the numbers that stand for words, such as names of classes.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds anything else or no line of numbers.
    """
    require_file(path, "a .csv file of numbers")
    convert = (lambda word: number(word, words)) if words else None
    try:
        with path.open(encoding="utf-8-sig") as file:  # spreadsheets begin UTF-8 with a byte order mark
            num_header = int(is_header(file.readline()))
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "loadtxt: input contained no data")
            return np.loadtxt(
                path, delimiter=",", converters=convert, skiprows=num_header, ndmin=2, encoding="utf-8-sig"
            )
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


def number(word: str, words: dict[str, float]) -> float:
    word = word.strip()
    return words[word] if word in words else float(word)


def read_mat(path: Path, variable: str | None = None) -> np.ndarray:
    """A variable of a .mat file of MATLAB 4 to 7.2, of two or more axes; the only array of numbers if not named.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, of MATLAB 7.3, or lacks the variable, or if that is no real array.
    """
    require_file(path, f"a .mat file that holds {variable or 'an array'}")
    try:
        kinds = {name: kind for name, _, kind in whosmat(path)}
        name = only_array(kinds) if variable is None else variable
        if name not in kinds:
            raise ValueError(f"it has no {name}, only {', '.join(kinds) or 'nothing'}")
        array = loadmat(path, variable_names=[name], spmatrix=False)[name]
        if issparse(array):
            array.check_format(full_check=True)  # scipy would write to where wrong indices point
            array = array.toarray()
        require_real(array.dtype, array.shape)
        return array
    except NotImplementedError:
        raise ValueError(
            f"{path} cannot be read: it is of MATLAB 7.3 (HDF5); write it again by save(..., '-v7')"
        ) from None
    except Exception as error:
        raise ValueError(f"{path} cannot be read as a MATLAB file of arrays: {error}") from None


def only_array(kinds: dict[str, str]) -> str:
    """The name of the only array of numbers among variables of these MATLAB classes."""
    arrays = [name for name, kind in kinds.items() if kind in NUMERIC]
    if len(arrays) != 1:
        raise ValueError(f"it holds {', '.join(kinds) or 'nothing'}: name the variable")
    return arrays[0]


def require_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: expected is {expected}")


def require_real(dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if dtype.kind not in REAL or min(shape, default=1) < 1:
        raise ValueError(f"it holds {dtype} of shape {shape}, not a real array with an entry or more")
