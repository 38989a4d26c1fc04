"""Arrays to be factorised, from files of the authors' form."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.sparse import csc_matrix

from datamodules.array_file import ArrayFile


def test_arrays_of_the_authors_form(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    savemat(tmp_path / "cbcl.mat", {"V": values, "other": np.zeros(2)})
    savemat(tmp_path / "reuters.mat", {"V": csc_matrix(values)})
    np.save(tmp_path / "knix.npy", np.arange(24).reshape(2, 3, 4).astype(np.int16))
    data = ArrayFile("cbcl.mat", "V", axis=1, root=str(tmp_path), batch_size=2)
    data.setup("fit")
    assert torch.equal(torch.cat([b["points"] for b in data.train_dataloader()]), torch.from_numpy(values.T.copy()))
    assert torch.equal(ArrayFile("reuters.mat", root=str(tmp_path)).load()[0], torch.from_numpy(values))
    tensor, _ = ArrayFile("knix.npy", axis=-1, scale="mean", root=str(tmp_path)).load()
    assert tensor.shape == (4, 2, 3) and float(tensor.mean()) == pytest.approx(1)
    assert float(tensor[1, 0, 2]) == pytest.approx(9 / 11.5)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    savemat(tmp_path / "names.mat", {"V": np.array(["a", "b"]), "zeros": np.zeros((2, 2))})
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0 and nothing more")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    root = str(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"absent\.mat: expected is .* that holds an array"):
        ArrayFile("absent.mat", root=root).load()
    for file, variable in (("names.mat", "missing"), ("broken.mat", "V"), ("objects.npy", None)):
        with pytest.raises(ValueError, match="cannot be read"):
            ArrayFile(file, variable, root=root).load()
    with pytest.raises(ValueError, match="not a real array"):
        ArrayFile("names.mat", "V", root=root).load()
    with pytest.raises(ValueError, match="axis 2 is none"):
        ArrayFile("names.mat", "zeros", axis=2, root=root).load()
    with pytest.raises(ValueError, match="is no scale"):
        ArrayFile("names.mat", "zeros", scale="mean", root=root).load()


@pytest.mark.parametrize("file", ["a.npy", "a.csv"])
def test_a_variable_is_only_for_mat_files(tmp_path: Path, file: str) -> None:
    np.save(tmp_path / "a.npy", np.eye(3))
    np.savetxt(tmp_path / "a.csv", np.eye(3), delimiter=",")
    with pytest.raises(ValueError, match=rf"{file} holds one array without a name: leave out the variable V"):
        ArrayFile(file, "V", root=str(tmp_path)).load()
    assert torch.equal(ArrayFile(file, root=str(tmp_path)).load()[0], torch.eye(3, dtype=torch.float64))


def test_foreign_and_empty_arrays(tmp_path: Path) -> None:
    matrix = csc_matrix(np.eye(20))
    matrix.indices[3] = 25
    savemat(tmp_path / "a.mat", {"V": matrix, "empty": np.zeros((0, 3))})
    np.savez(tmp_path / "archive.npz", a=np.zeros((2, 2)))
    (tmp_path / "archive.npz").rename(tmp_path / "a.npy")
    for file, variable in (("a.mat", "V"), ("a.mat", "empty"), ("a.npy", None)):
        with pytest.raises(ValueError, match=f"{file} cannot be read"):
            ArrayFile(file, variable, scale="max", root=str(tmp_path)).load()
    np.save(tmp_path / "big.npy", np.arange(6, dtype=">f4").reshape(2, 3))
    values = ArrayFile("big.npy", scale="max", root=str(tmp_path)).load()[0]
    torch.testing.assert_close(values, torch.arange(6, dtype=torch.float64).reshape(2, 3) / 5)


def test_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3,4\n5,6\n")
    points, label = ArrayFile("a.csv", axis=1, scale="max", root=str(tmp_path)).load()
    assert label is None
    torch.testing.assert_close(points, torch.tensor([[1, 3, 5], [2, 4, 6]], dtype=torch.float64) / 6)
    np.save(tmp_path / "vector.npy", np.ones(3))
    with pytest.raises(ValueError, match="two or more axes"):
        ArrayFile("vector.npy", root=str(tmp_path)).load()
