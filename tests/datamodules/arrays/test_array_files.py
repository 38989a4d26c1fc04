"""Files of numbers that are damaged or no such files: a ValueError that names them, whatever it is."""

import io
from pathlib import Path

import numpy as np
import pytest

from datamodules.arrays.array_files import read_csv, read_npy, whole_numbers


@pytest.mark.parametrize("dtype", ["u1", "?", "<i8", ">f8", "<f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_is_what_numpy_reads(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    array = read_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(array, np.load(tmp_path / "a.npy"))
    assert array.dtype == values.dtype
    with (tmp_path / "b.npy").open("wb") as file:
        np.lib.format.write_array(file, values, version=(2, 0))
    np.testing.assert_array_equal(read_npy(tmp_path / "b.npy"), values)


def test_npy_that_cannot_be_used(tmp_path: Path) -> None:
    path, good = tmp_path / "a.npy", io.BytesIO()
    np.save(good, np.ones((4, 3)))
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f8", "fortran_order": False, "shape": (10**11, 100)})
    archive = io.BytesIO()
    np.savez(archive, a=np.ones(2))
    contents = [huge.getvalue() + bytes(80), archive.getvalue(), b"", b"1,2\n3,4\n", good.getvalue()[:-1]]
    for array in (
        np.array([1j]),
        np.array(["a"]),
        np.array([{}], dtype=object),
        np.zeros((0, 3)),
        np.zeros(2, "i4,f4"),
    ):
        other = io.BytesIO()
        np.save(other, array, allow_pickle=True)
        contents.append(other.getvalue())
    for content in [*contents, good.getvalue() + b"more"]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npy cannot be read as a \.npy array"):
            read_npy(path)
    path.write_bytes(huge.getvalue() + bytes(80))  # before memory is asked for
    with pytest.raises(ValueError, match=r"promises 80000000000000 bytes .* but 80 follow"):
        read_npy(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        read_npy(tmp_path / "absent.npy")


def test_damaged_npy_is_refused_or_read(tmp_path: Path) -> None:
    path, good, random = tmp_path / "a.npy", io.BytesIO(), np.random.default_rng(0)
    np.save(good, np.ones((4, 3)))
    refused = 0
    for _ in range(100):
        content = bytearray(good.getvalue())
        for position in random.integers(0, 70, 2):
            content[position] = random.integers(256)
        path.write_bytes(content)
        try:
            assert read_npy(path).dtype.kind in "biuf"
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "content", ["1,2\n3,4\n", "\ufeff1,2\n3,4\n", "x,y\n1,2\n3,4\n", "# x,1\n1,2\n\n3,4", "\ufeffx,y\n1,2\n3,4"]
)
def test_csv_with_and_without_a_header(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    np.testing.assert_array_equal(read_csv(tmp_path / "a.csv"), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    "content", [b"1,,3\n1,2,3\n", b"", b"x,y\n", b"x,y\n# 1\n", b"\xff\xfe1,2\n", b"1,2\n3\n", b"1j,2\n", b"1,2\nx,y\n"]
)
def test_csv_that_cannot_be_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv cannot be read as a matrix"):
        read_csv(tmp_path / "a.csv")


def test_labels_are_whole_numbers_in_a_row_or_column() -> None:
    path = Path("labels.npy")
    for values in (np.array([0.0, 2.0]), np.array([[0], [2]], np.uint8), np.array([[0, 2]], ">i4")):
        labels = whole_numbers(values, path)
        assert labels.tolist() == [0, 2] and labels.dtype == np.dtype(np.int64)
    for values in ([0.5, 1], [np.inf, 1], [np.nan, 1], [1e300, 1], [2.0**53, 0]):
        with pytest.raises(ValueError, match=r"labels\.npy .* not whole numbers"):
            whole_numbers(np.array(values), path)
    with pytest.raises(ValueError, match="not one for each point"):
        whole_numbers(np.zeros((2, 2)), path)
