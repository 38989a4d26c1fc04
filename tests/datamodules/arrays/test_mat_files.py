"""MATLAB files against scipy's reader, and files that would end scipy's process or fill its memory."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from datamodules.arrays import mat_files
from datamodules.arrays.mat_files import read_mat

ARRAYS = {
    "V": np.random.default_rng(0).random((5, 4)),
    "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "byte": np.array([[7]], np.uint8),
    "single": np.ones((1, 3), np.float32),
    "flags": np.array([[True, False]]),
}


def few_numbers(random: np.random.Generator) -> csc_array:
    return csc_array(random.random((30, 20)) * (random.random((30, 20)) < 0.2))


def element(kind: int, content: bytes) -> bytes:
    return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_are_those_that_scipy_reads(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "a.mat"
    sparse = few_numbers(np.random.default_rng(1))
    others = {"words": np.array(["a", "b"]), "cell": np.array([{}, 1], dtype=object), "mask": sparse > 0.5}
    savemat(path, ARRAYS | others | {"sparse": sparse}, do_compression=compressed)
    for name, array in zip(ARRAYS, read_mat(path, list(ARRAYS)), strict=True):
        np.testing.assert_array_equal(array, loadmat(path)[name])
        assert array.shape == np.atleast_2d(ARRAYS[name]).shape and array.dtype == ARRAYS[name].dtype
    np.testing.assert_array_equal(read_mat(path, ["sparse"])[0], sparse.toarray())
    mask = read_mat(path, ["mask"])[0]
    assert mask.dtype == bool and np.array_equal(mask, sparse.toarray() > 0.5)
    for name, message in {"words": "is text", "cell": "is a cell array", "none": "no none, only V, cube"}.items():
        with pytest.raises(ValueError, match=rf"a\.mat cannot be read.*{message}"):
            read_mat(path, [name])


def test_big_endian_files_and_objects_without_dimensions(tmp_path: Path) -> None:
    text = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    opaque = element(14, element(6, struct.pack(">II", 17, 0)) + element(1, b"table") + element(1, b"MCOS"))
    head = (
        element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 1)) + struct.pack(">HH4s", 1, 1, b"V")
    )
    matrix = element(14, head + element(9, struct.pack(">dd", 1.5, -2)))
    for content in (matrix, element(15, zlib.compress(matrix))[: 8 + len(zlib.compress(matrix))]):
        (tmp_path / "a.mat").write_bytes(text + opaque + content)
        np.testing.assert_array_equal(read_mat(tmp_path / "a.mat", ["V"])[0], [[1.5], [-2]])


def test_logical_values_that_matlab_calls_double(tmp_path: Path) -> None:
    text = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    head = element(6, struct.pack(">II", 0x205, 1)) + element(5, struct.pack(">ii", 2, 2)) + element(1, b"V")
    indices = element(5, struct.pack(">i", 1)) + element(5, struct.pack(">iii", 0, 1, 1))
    matrix = element(14, head + indices + element(9, b"\1"))
    (tmp_path / "a.mat").write_bytes(text + matrix)
    assert read_mat(tmp_path / "a.mat", ["V"])[0].tolist() == [[False, False], [True, False]]
    (tmp_path / "a.mat").write_bytes(text + matrix + matrix)
    with pytest.raises(ValueError, match="it holds V twice"):
        read_mat(tmp_path / "a.mat", ["V"])


@pytest.mark.parametrize("change", [{3: 25}, {3: 2**30}, {3: -1}], ids=str)
def test_rows_outside_of_a_sparse_matrix(tmp_path: Path, change: dict[int, int]) -> None:
    matrix = csc_array(np.eye(20))
    for position, value in change.items():
        matrix.indices[position] = value
    savemat(tmp_path / "a.mat", {"V": matrix})
    with pytest.raises(ValueError, match="lie outside of its shape"):
        read_mat(tmp_path / "a.mat", ["V"])


@pytest.mark.parametrize("change", [{5: 2**30}, {5: 2**30, 20: 0}, {5: -7}, {20: 10**6}, {0: 3}], ids=str)
def test_columns_outside_of_a_sparse_matrix(tmp_path: Path, change: dict[int, int]) -> None:
    savemat(tmp_path / "a.mat", {"V": csc_array(np.eye(20))})
    starts = np.arange(21, dtype=np.int32)
    before = starts.tobytes()
    for position, value in change.items():
        starts[position] = value
    content = (tmp_path / "a.mat").read_bytes()
    assert content.count(before) == 1
    (tmp_path / "a.mat").write_bytes(content.replace(before, starts.tobytes()))
    with pytest.raises(ValueError, match="lie outside of its shape"):
        read_mat(tmp_path / "a.mat", ["V"])


def test_files_that_grow_are_refused_before_they_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat_files, "MAX_BYTES", 2**18)
    savemat(tmp_path / "wide.mat", {"V": csc_array((10**6, 10**6))})
    with pytest.raises(ValueError, match="takes more than 262144 bytes"):
        read_mat(tmp_path / "wide.mat", ["V"])
    head = b"MATLAB 5.0".ljust(124) + struct.pack(">H", 0x0100) + b"MI"
    parts = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 2, 1)) + element(1, b"V")
    stream = zlib.compress(element(14, parts + element(9, bytes(2**25))), 9)
    (tmp_path / "bomb.mat").write_bytes(head + struct.pack(">II", 15, len(stream)) + stream)
    tracemalloc.start()
    with pytest.raises(ValueError, match="expands to more than 262144 bytes"):
        read_mat(tmp_path / "bomb.mat", ["V"])
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_damage_is_refused_or_harmless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among them are the single bytes, types of elements, that end the process in scipy. No compressed one passes."""
    monkeypatch.setattr(mat_files, "MAX_BYTES", 2**22)
    path, random = tmp_path / "a.mat", np.random.default_rng(0)
    sparse = few_numbers(random)
    for compressed in (False, True):
        savemat(path, {"V": sparse}, do_compression=compressed)
        good = path.read_bytes()
        for number in range(120):
            content = bytearray(good)
            position = random.integers(128, 400 if number % 2 else len(good))
            content[position] ^= int(random.integers(1, 256))
            path.write_bytes(content[: random.integers(len(good))] if number % 10 == 0 else content)
            try:
                assert read_mat(path, ["V"])[0].ndim == 2 and not compressed
            except ValueError as error:
                assert str(path) in str(error)
    savemat(path, {"V": np.ones((2, 2))}, format="4")
    with pytest.raises(ValueError, match="another version or format"):
        read_mat(path, ["V"])
