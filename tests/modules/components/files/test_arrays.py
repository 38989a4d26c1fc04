"""Files of numbers that are damaged or no such files: a ValueError that names them, whatever it is."""

import io
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat
from scipy.sparse import csc_array, csc_matrix

from modules.components.files.arrays import read_array, read_csv, read_labels, read_mat, read_matrix, read_npy


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


def test_words_that_stand_for_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("1, yes\n2,no \n3,7\n", encoding="utf-8-sig")
    assert read_csv(path, {"yes": 1, "no": -1}).tolist() == [[1, 1], [2, -1], [3, 7]]
    with pytest.raises(ValueError, match=r"a\.csv cannot be read.*no"):
        read_csv(path, {"yes": 1})


def test_labels_are_whole_numbers_in_a_row_or_column(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    for values in (np.array([0.0, 2.0]), np.array([[0], [2]], np.uint8), np.array([[0, 2]], ">i4")):
        np.save(path, values)
        labels = read_labels(path, 2)
        assert labels.tolist() == [0, 2] and labels.dtype == np.dtype(np.int64)
    for values in ([0.5, 1], [np.inf, 1], [np.nan, 1], [1e300, 1], [2.0**53, 0], [-(2.0**53), 0]):
        np.save(path, np.array(values))
        with pytest.raises(ValueError, match=r"labels\.npy .* not whole numbers"):
            read_labels(path, 2)
    np.save(path, np.zeros((2, 2)))
    with pytest.raises(ValueError, match="not one for each point"):
        read_labels(path, 4)
    np.save(path, np.zeros(2))
    with pytest.raises(ValueError, match="2 labels for 3 points"):
        read_labels(path, 3)


def test_one_reader_for_three_endings(tmp_path: Path) -> None:
    values = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "a.npy", values)
    np.savetxt(tmp_path / "a.csv", values, delimiter=",")
    savemat(tmp_path / "a.mat", {"V": values, "name": "six"})
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_array(path), values)
        np.testing.assert_array_equal(read_array(path, axis=-1), values.T)
        assert read_matrix(path).dtype == np.float64
        for axis in (2, -3):
            with pytest.raises(ValueError, match=f"has 2 axes; axis {axis} is none"):
                read_array(path, axis=axis)
    (tmp_path / "a.txt").write_text("1 2")
    with pytest.raises(ValueError, match=r"a\.txt cannot be read: its name must end in \.npy, \.csv, \.mat"):
        read_array(tmp_path / "a.txt")
    np.save(tmp_path / "cube.npy", np.arange(24).reshape(2, 3, 4))
    assert read_array(tmp_path / "cube.npy", axis=1).shape == (3, 2, 4)
    with pytest.raises(ValueError, match="not a real matrix"):
        read_matrix(tmp_path / "cube.npy")


@pytest.mark.parametrize("compressed", [False, True])
def test_matlab_variables_keep_their_type(tmp_path: Path, compressed: bool) -> None:
    arrays = {
        "V": np.random.default_rng(0).random((5, 4)),
        "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        "byte": np.array([[7]], np.uint8),
        "single": np.ones((1, 3), np.float32),
    }
    sparse, path = csc_array(np.diag([1.0, 0, 3])), tmp_path / "a.mat"
    others = {"words": np.array(["a", "b"]), "cell": np.array([{}, 1], dtype=object), "complex": np.eye(2) * 1j}
    savemat(path, arrays | others | {"sparse": sparse, "none": np.zeros((0, 3))}, do_compression=compressed)
    for name, array in arrays.items():
        assert read_mat(path, name).dtype == array.dtype
        np.testing.assert_array_equal(read_mat(path, name), array)
    np.testing.assert_array_equal(read_mat(path, "sparse"), sparse.toarray())
    for name in (*others, "none"):
        with pytest.raises(ValueError, match=r"a\.mat cannot be read as a MATLAB file of arrays: .*not a real array"):
            read_mat(path, name)
    with pytest.raises(ValueError, match="it has no W, only V, cube"):
        read_mat(path, "W")
    with pytest.raises(ValueError, match=r"it holds V, cube.*name the variable"):
        read_mat(path)
    with pytest.raises(FileNotFoundError, match=r"absent\.mat: expected is a \.mat file that holds V"):
        read_mat(tmp_path / "absent.mat", "V")


def test_matlab_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400))
    with pytest.raises(ValueError, match=r"a\.mat cannot be read: it is of MATLAB 7\.3 \(HDF5\); .* '-v7'\)"):
        read_mat(path, "V")
    savemat(path, {"V": np.ones((30, 30))}, do_compression=True)
    good = path.read_bytes()
    for content in (b"", b"no matlab file", good[:100], good[:-20], good[:140] + bytes(8) + good[148:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.mat cannot be read as a MATLAB file of arrays: "):
            read_mat(path, "V")
    matrix = csc_matrix(np.eye(20))
    matrix.indices[3] = 25
    savemat(path, {"V": matrix})
    with pytest.raises(ValueError, match=r"a\.mat cannot be read"):
        read_mat(path)
    savemat(path, {"V": csc_array((10**6, 10**6))})
    with pytest.raises(ValueError, match=r"a\.mat cannot be read"):
        read_mat(path)
