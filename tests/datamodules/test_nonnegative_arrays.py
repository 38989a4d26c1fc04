"""Arrays to be factorised, from files of the authors' form and generated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat
from scipy.sparse import csc_matrix

from datamodules.nonnegative_arrays import ArrayFile, Digits, LowRankTensor


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
    with pytest.raises(FileNotFoundError, match=r"absent\.mat: expected is .* that holds V"):
        ArrayFile("absent.mat", root=root).load()
    for file, variable in (("names.mat", "missing"), ("broken.mat", "V"), ("objects.npy", "V")):
        with pytest.raises(ValueError, match="cannot be read"):
            ArrayFile(file, variable, root=root).load()
    with pytest.raises(ValueError, match="not a real array"):
        ArrayFile("names.mat", root=root).load()
    with pytest.raises(ValueError, match="axis 2 is none"):
        ArrayFile("names.mat", "zeros", axis=2, root=root).load()
    with pytest.raises(ValueError, match="is no scale"):
        ArrayFile("names.mat", "zeros", scale="mean", root=root).load()


def test_foreign_and_empty_arrays(tmp_path: Path) -> None:
    matrix = csc_matrix(np.eye(20))
    matrix.indices[3] = 25
    savemat(tmp_path / "a.mat", {"V": matrix, "empty": np.zeros((0, 3))})
    np.savez(tmp_path / "archive.npz", a=np.zeros((2, 2)))
    (tmp_path / "archive.npz").rename(tmp_path / "a.npy")
    for file, variable in (("a.mat", "V"), ("a.mat", "empty"), ("a.npy", "V")):
        with pytest.raises(ValueError, match=f"{file} cannot be read"):
            ArrayFile(file, variable, scale="max", root=str(tmp_path)).load()
    np.save(tmp_path / "big.npy", np.arange(6, dtype=">f4").reshape(2, 3))
    values = ArrayFile("big.npy", scale="max", root=str(tmp_path)).load()[0]
    torch.testing.assert_close(values, torch.arange(6, dtype=torch.float64).reshape(2, 3) / 5)


def test_digits() -> None:
    points, label = Digits().load()
    assert points.shape == (1797, 64) and (float(points.min()), float(points.max())) == (0, 1)
    assert label.unique().tolist() == list(range(10))


def test_a_generated_tensor_has_its_rank_and_noise() -> None:
    clean, _ = LowRankTensor([9, 8, 7], rank=3, noise=0.0).load()
    assert torch.linalg.matrix_rank(clean.flatten(1)) == 3 and float(clean.min()) == 0
    noisy, _ = LowRankTensor([9, 8, 7], rank=3, noise=0.1).load()
    assert float((noisy - clean).norm() / clean.norm()) == pytest.approx(0.1)
    assert float(noisy.min()) >= 0
    with pytest.raises(ValueError, match="two or more sizes"):
        LowRankTensor([5])
    with pytest.raises(ValueError, match="noise >= 0"):
        LowRankTensor(noise=float("nan"))
