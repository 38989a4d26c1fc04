"""Image sets whose files are damaged or hold something else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_array

from datamodules.labelled_images import LabelledImages, read_pgm

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 16), dtype=np.uint8)


def coil20(folder: Path, points: object, label: object) -> tuple[torch.Tensor, torch.Tensor]:
    savemat(folder / "coil20.mat", {"X": points, "Y": label}, do_compression=True)
    return LabelledImages("coil20", normalize=False, root=str(folder)).load()


def test_points_of_any_type_are_float64(tmp_path: Path) -> None:
    label = np.repeat([1.0, 2.0], 4)
    for points in (PIXELS, (PIXELS / 255).astype(np.float32), csc_array(PIXELS / 255)):
        read, classes = coil20(tmp_path, points, label)
        assert read.dtype == torch.float64 and classes.tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
        np.testing.assert_allclose(read.numpy(), PIXELS / 255, atol=1e-7)


def test_labels_that_are_none(tmp_path: Path) -> None:
    for label, message in ((np.arange(8) / 2, "not whole numbers"), (np.arange(7), "7 labels for 8 points")):
        with pytest.raises(ValueError, match=rf"coil20\.mat.*{message}"):
            coil20(tmp_path, PIXELS, label)


def test_damage_names_the_file(tmp_path: Path) -> None:
    coil20(tmp_path, PIXELS, np.arange(8))
    good = (tmp_path / "coil20.mat").read_bytes()
    for content in (good[:128], good[:-9], good[:150] + bytes(20) + good[170:]):
        (tmp_path / "coil20.mat").write_bytes(content)
        with pytest.raises(ValueError, match=r"coil20\.mat cannot be read"):
            LabelledImages("coil20", root=str(tmp_path)).load()
    for points in (np.zeros((2, 2, 8)), np.zeros((8, 2)) * 1j):
        with pytest.raises(ValueError, match=r"coil20\.mat.* not a "):
            coil20(tmp_path, points, np.arange(8))


def test_number_of_classes(tmp_path: Path) -> None:
    coil20(tmp_path, PIXELS, np.repeat([3, 5, 9, 12], 2))
    assert LabelledImages("coil20", classes=2, root=str(tmp_path)).load()[1].unique().tolist() == [3, 5]
    assert len(LabelledImages("coil20", classes=4, root=str(tmp_path)).load()[1]) == 8
    for classes in (0, -1):
        with pytest.raises(ValueError, match="classes must be at least 1"):
            LabelledImages("coil20", classes=classes)
    with pytest.raises(ValueError, match="has 4 classes; 5 are asked for"):
        LabelledImages("coil20", classes=5, root=str(tmp_path)).load()


def test_pgm_that_cannot_be_used(tmp_path: Path) -> None:
    path, random = tmp_path / "a.pgm", np.random.default_rng(2)
    Image.new("L", (168, 192), 51).save(path)
    np.testing.assert_allclose(read_pgm(path), np.full(2016, 0.2))
    good = path.read_bytes()
    header = b"P5\n168 192\n"
    others = [b"", header, good[:-9], b"P5\n1000000 1000000\n255\n12", header + b"65535\n" + bytes(2 * 168 * 192)]
    for content in others:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.pgm cannot be read"):
            read_pgm(path)
    for _ in range(40):
        damaged = bytearray(good)
        damaged[random.integers(0, 15)] = random.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_pgm(path).shape == (2016,)
        except ValueError as error:
            assert str(path) in str(error)
