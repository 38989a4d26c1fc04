"""CIFAR's official files and the folder of images, in their layouts."""

import hashlib
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from datamodules.cifar import CIFAR10, CIFAR10_CLASSES, CIFAR100, CIFAR10Folder

PER_FILE = 20


def write_official(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, np.ndarray]:
    """Files of 20 random images each, whose checksums torchvision is told; all images [N, 3, 32, 32] and labels."""
    kind = getattr(torchvision.datasets, name)
    key, classes = ("labels", 10) if name == "CIFAR10" else ("fine_labels", 100)
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)

    def write(file: str, content: object) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    everything = []
    for part in ("train_list", "test_list"):
        checksums = []
        for file, _ in getattr(kind, part):
            pixels = rng.integers(0, 256, (PER_FILE, 3072), np.uint8)
            labels = rng.integers(0, classes, PER_FILE).tolist()
            everything.append((pixels.reshape(-1, 3, 32, 32), labels))
            checksums.append([file, write(file, {"data": pixels, key: labels})])
        monkeypatch.setattr(kind, part, checksums)
    names = [f"class{i}" for i in range(classes)]
    checksum = write(kind.meta["filename"], {kind.meta["key"]: names})
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": checksum})
    return np.concatenate([e[0] for e in everything]), np.concatenate([e[1] for e in everything])


@pytest.mark.parametrize(("kind", "num_classes", "train"), [(CIFAR10, 10, 100), (CIFAR100, 100, 20)])
def test_official_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[CIFAR10], num_classes: int, train: int
) -> None:
    images, labels = write_official(tmp_path, kind.__name__, monkeypatch)
    data = kind(root=str(tmp_path), augment=False, batch_size=10)
    data.prepare_data()
    data.setup("fit")
    assert data.num_classes == num_classes
    assert np.array_equal(data.sets["train"].images.permute(0, 3, 1, 2), images[:train])
    assert np.array_equal(data.sets["train"].labels, labels[:train])
    tested = list(data.test_dataloader())
    assert np.array_equal(torch.cat([batch["image"] for batch in tested]), images[train:])
    assert np.array_equal(torch.cat([batch["label"] for batch in tested]), labels[train:])
    assert len(list(data.train_dataloader())) == train // 10


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_missing_official_files(tmp_path: Path, kind: type[CIFAR10]) -> None:
    data = kind(root=str(tmp_path))
    data.prepare_data()
    with pytest.raises(FileNotFoundError, match=r"no folder .*cs\.toronto\.edu.*download=true.*PARSIMONY_DATA"):
        data.setup("fit")


def test_damaged_official_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_official(tmp_path, "CIFAR10", monkeypatch)
    file = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"incomplete or damaged.*Remove the folder"):
        CIFAR10(root=str(tmp_path)).setup("test")


def test_a_download_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", (tmp_path / "nowhere.tar.gz").as_uri())
    with pytest.raises(ValueError, match=r"cannot download .*nowhere\.tar\.gz.*Expected is"):
        CIFAR10(root=str(tmp_path), download=True).prepare_data()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three training images and one test image a class, PNG."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 3), ("test", 1)):
        for name in CIFAR10_CLASSES:
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "set" / split / name / f"{number:04d}.png")
    return tmp_path / "set"


def folder_module(folder: Path, stage: str = "fit", **options: object) -> CIFAR10Folder:
    data = CIFAR10Folder(root=str(folder.parent), folder=folder.name, batch_size=5, **options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup(stage)
    return data


def test_a_folder_of_images(folder: Path) -> None:
    data = folder_module(folder, augment=False)
    for split in ("train", "test"):
        paths = sorted((folder / split).glob("*/*.png"))
        assert np.array_equal(data.sets[split].images, np.stack([np.asarray(Image.open(path)) for path in paths]))
        assert data.sets[split].labels.tolist() == [CIFAR10_CLASSES.index(path.parent.name) for path in paths]
    assert sorted(path.name for path in folder.with_name("set_cache").iterdir()) == ["test", "train"]
    assert len(list(data.train_dataloader())) == 6


def test_images_that_cannot_be_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = folder / "train" / "cat" / "0001.png"
    bad.write_bytes(bad.read_bytes()[:100])
    Image.new("RGB", (33, 32)).save(folder / "train" / "ship" / "0000.png")
    with caplog.at_level(logging.WARNING):
        data = folder_module(folder)
    assert "left out 1 unreadable (cat/0001.png), 1 not 32x32 (ship/0000.png)" in caplog.text
    assert len(data.sets["train"]) == 28
    with pytest.raises(ValueError, match=r"left out 1 unreadable \(cat/0001\.png\)"):
        folder_module(folder, strict=True)
    for path in (folder / "train" / "ship").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="train: no usable image of ship"):
        folder_module(folder)


def test_folders_that_are_not_the_ten_classes(folder: Path) -> None:
    (folder / "test" / "truck").rename(folder / "test" / "lorry")
    with pytest.raises(ValueError, match=r"test holds the folders airplane, .*lorry.*classes airplane"):
        folder_module(folder)
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent/train.*PARSIMONY_DATA"):
        folder_module(folder.with_name("absent"))
