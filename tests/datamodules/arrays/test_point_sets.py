"""Image sets, unions of subspaces and cone problems."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from datamodules.cone_problems import draw_problem
from datamodules.labelled_images import ImageSubsets, LabelledImages
from datamodules.unions_of_subspaces import Setting, UnionGrid, UnionOfSubspaces, draw_bases, draw_union


def test_joint_bases_have_the_affinity_that_the_sheet_says() -> None:
    setting = Setting(60, (10, 10, 10), 4, 2.0, 0.0, True, False)
    bases = draw_bases(setting, np.random.default_rng(0))
    for k in range(3):
        np.testing.assert_allclose(bases[k].T @ bases[k], np.eye(10), atol=1e-12)
    assert np.linalg.norm(bases[0].T @ bases[1]) / np.sqrt(10) == pytest.approx(np.sqrt(4 / 10))


def test_points_of_a_union() -> None:
    clean, label = draw_union(Setting(50, (5, 8), 2, 3.0, 0.0, True, False), [1])
    assert torch.bincount(label).tolist() == [15, 24]
    torch.testing.assert_close(clean.norm(dim=1), torch.ones(39, dtype=torch.float64))
    assert torch.linalg.matrix_rank(clean[label == 0]) == 5
    noisy, _ = draw_union(Setting(2000, (5,), 0, 40.0, 1.0, True, False), [1])
    assert float(noisy.square().sum(1).mean()) == pytest.approx(2.0, rel=0.05)
    with pytest.raises(ValueError, match="need 14 dimensions, ambient is 12"):
        UnionOfSubspaces(ambient=12, dims=[7, 7], shared=0)


def test_a_draw_does_not_depend_on_the_rest_of_the_grid() -> None:
    small = UnionGrid(30, [4, 4], [2], [3.0], [0.5], repeats=2).draws
    large = UnionGrid(30, [4, 4], [1, 2], [2.0, 3.0], [0.5], repeats=2).draws
    wanted = next(large[i] for i in range(4, 8) if large[i]["setting"] == {"shared": 2, "density": 3.0, "noise": 0.5})
    assert torch.equal(small[1]["points"], wanted["points"])


def test_mat_files_and_subsets(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 1024), dtype=np.uint8)
    savemat(tmp_path / "extended_yale_b_32x32.mat", {"fea": pixels, "gnd": np.repeat(np.arange(1, 5), 10)[:, None]})
    data = LabelledImages(root=str(tmp_path), normalize=False)
    data.setup("fit")
    assert data.dataset is not None
    np.testing.assert_allclose(data.dataset.points.numpy(), pixels / 255)
    subsets = ImageSubsets(numbers=[2, 3], repeats=2, root=str(tmp_path))
    subsets.setup("fit")
    assert subsets.draws is not None
    assert [len(subsets.draws[i]["label"].unique()) for i in range(4)] == [2, 3, 2, 3]
    with pytest.raises(ValueError, match="5 are asked for"):
        ImageSubsets(numbers=[5], root=str(tmp_path)).setup("fit")
    with pytest.raises(FileNotFoundError, match=r"coil20\.mat"):
        LabelledImages("coil20", root=str(tmp_path)).setup("fit")
    (tmp_path / "coil20.mat").write_bytes(b"no matlab file")
    with pytest.raises(ValueError, match="cannot be read as a MATLAB file"):
        LabelledImages("coil20", root=str(tmp_path)).setup("fit")


def test_official_layout_of_extended_yale_b(tmp_path: Path) -> None:
    for subject in (1, 2):
        folder = tmp_path / "CroppedYale" / f"yaleB{subject:02d}"
        folder.mkdir(parents=True)
        for name in ("A+000E+00", "A+005E-10", "_Ambient"):
            Image.new("L", (168, 192), 50 * subject).save(folder / f"yaleB{subject:02d}_P00{name}.pgm")
    data = LabelledImages("extended_yale_b", normalize=False, root=str(tmp_path))
    data.setup("fit")
    assert data.dataset is not None
    assert data.dataset.points.shape == (4, 48 * 42)
    assert data.dataset.label.tolist() == [1, 1, 2, 2]
    np.testing.assert_allclose(data.dataset.points[0].numpy(), 50 / 255)


def test_cone_problem() -> None:
    atoms, y = draw_problem(50, 100, 10, 5.0, [1, 0])
    torch.testing.assert_close(atoms.norm(dim=0), torch.ones(100, dtype=torch.float64))
    assert 1 <= int((y < 0).sum()) <= 10
