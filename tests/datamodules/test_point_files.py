"""Points and labels from files that a user names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from datamodules.point_files import PointFiles


def test_points_from_files(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", values.astype(np.float32))
    np.save(tmp_path / "labels.npy", np.array([0, 0, 1, 1]))
    np.savetxt(tmp_path / "b.csv", values, delimiter=",", header="x,y,z", comments="")
    np.savetxt(tmp_path / "c.csv", values, delimiter=",")
    savemat(tmp_path / "d.mat", {"fea": values, "gnd": np.array([[0, 0, 1, 1]])})
    for name in ("a.npy", "b.csv", "c.csv", "d.mat"):
        labels = {"label_variable": "gnd", "variable": "fea"} if name == "d.mat" else {"labels": "labels.npy"}
        data = PointFiles(name, **labels, root=str(tmp_path), batch_size=3)  # type: ignore[arg-type]
        data.setup("fit")
        batches = list(data.train_dataloader())
        assert torch.equal(torch.cat([b["points"] for b in batches]), torch.from_numpy(values))
        assert torch.cat([b["label"] for b in batches]).tolist() == [0, 0, 1, 1]
        assert torch.cat([b["index"] for b in batches]).tolist() == [0, 1, 2, 3]


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    np.save(tmp_path / "object.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "good.npy", np.zeros((2, 2)))
    (tmp_path / "text.csv").write_text("a,b\n1,x\n")
    for name, message in {"object.npy": "cannot be read", "cube.npy": "not a real matrix", "text.csv": "text"}.items():
        with pytest.raises(ValueError, match=message):
            PointFiles(name, root=str(tmp_path)).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"absent\.npy"):
        PointFiles("absent.npy", root=str(tmp_path)).setup("fit")
    np.save(tmp_path / "three.npy", np.zeros(3))
    with pytest.raises(ValueError, match="3 labels for 2 points"):
        PointFiles("good.npy", "three.npy", root=str(tmp_path)).setup("fit")
    (tmp_path / "empty.csv").write_text("x,y\n")
    np.save(tmp_path / "none.npy", np.zeros((0, 2)))
    for name in ("empty.csv", "none.npy", "good.txt"):
        with pytest.raises(ValueError, match=f"{name} cannot be read"):
            PointFiles(name, root=str(tmp_path)).setup("fit")


@pytest.mark.parametrize("options", [{"variable": "fea"}, {"label_variable": "gnd"}])
def test_a_variable_is_only_for_mat_files(tmp_path: Path, options: dict) -> None:
    np.save(tmp_path / "points.npy", np.eye(2))
    np.save(tmp_path / "labels.npy", np.arange(2))
    name = "points" if "variable" in options else "labels"
    with pytest.raises(
        ValueError, match=rf"{name}\.npy holds one array .*leave out the variable {next(iter(options.values()))}"
    ):
        PointFiles("points.npy", "labels.npy", root=str(tmp_path), **options).setup("fit")


def test_labels_that_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.zeros((2, 2)))
    labels = [[np.inf, 1], [1e300, 1], [0.5, 1], [1j, 1], ["a", "b"], []]
    for values in labels:
        np.save(tmp_path / "labels.npy", np.array(values))
        with pytest.raises(ValueError, match=r"labels\.npy"):
            PointFiles("good.npy", "labels.npy", root=str(tmp_path)).setup("fit")
    for content in (b"", b"PK\x03\x04", (tmp_path / "good.npy").read_bytes()[:-5]):
        (tmp_path / "labels.npy").write_bytes(content)
        with pytest.raises(ValueError, match=r"labels\.npy cannot be read"):
            PointFiles("good.npy", "labels.npy", root=str(tmp_path)).setup("fit")


def test_normalised_points_and_labels_of_another_file(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "a.csv", [[3.0, 4], [0, 0]], delimiter=",")
    savemat(tmp_path / "labels.mat", {"y": [[7], [8]], "z": [[9], [9]]})
    points, label = PointFiles("a.csv", "labels.mat", label_variable="y", normalize=True, root=str(tmp_path)).load()
    assert label is not None and label.tolist() == [7, 8]
    torch.testing.assert_close(points, torch.tensor([[0.6, 0.8], [0, 0]], dtype=torch.float64))
    assert PointFiles("a.csv", root=str(tmp_path)).load()[1] is None
