"""Random crops: reproducible, inside the image, and robust against bad files."""

import logging
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from datamodules.images.crops import NamedImages, RandomCrops, centre_crop, random_crop
from datamodules.images.reading import SkippedImageError

RAMP = torch.arange(6 * 9, dtype=torch.uint8).view(1, 6, 9).expand(3, 6, 9)


def test_random_crops_cover_all_positions_and_both_orientations() -> None:
    corners = set()
    for index in range(400):
        crop = random_crop(RAMP, 4, (0, 0, index))
        assert crop.shape == (3, 4, 4)
        step = int(crop[0, 0, 1]) - int(crop[0, 0, 0])
        assert step in (1, -1)
        corners.add((int(crop[0, 0].min()), step))
    assert len(corners) == 2 * 3 * 6


def test_a_crop_depends_on_seed_epoch_and_index_alone() -> None:
    crops = RandomCrops([RAMP], 2, 30, seed=1)
    again = RandomCrops([RAMP], 2, 30, seed=1)
    images = torch.stack([crops[(3, i)]["image"] for i in range(30)])
    assert torch.equal(images, torch.stack([again[(3, i)]["image"] for i in reversed(range(30))]).flip(0))
    assert not torch.equal(images, torch.stack([crops[(4, i)]["image"] for i in range(30)]))
    other_seed = RandomCrops([RAMP], 2, 30, seed=2)
    assert not torch.equal(images, torch.stack([other_seed[(3, i)]["image"] for i in range(30)]))
    assert torch.equal(crops[5]["image"], crops[(0, 5)]["image"])


def test_crops_are_copies() -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    RandomCrops([image], 4)[0]["image"].fill_(1)
    centre_crop(image, 4).fill_(1)
    assert not image.any()


def test_centre_crop() -> None:
    assert centre_crop(RAMP, 2)[0].tolist() == [[21, 22], [30, 31]]
    with pytest.raises(SkippedImageError):
        centre_crop(RAMP, 7)


@pytest.fixture
def paths(tmp_path: Path, write_photo) -> list[Path]:
    """Ten files; 3 and 4 are cut short, which their headers do not tell."""
    return [write_photo(tmp_path / f"{i}.png", 64, 64, cut=0.6 if i in (3, 4) else 1.0) for i in range(10)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_files_are_replaced_alike_everywhere(paths: list[Path], num_workers: int) -> None:
    loaded = RandomCrops(paths, 32)
    loaded.load(torch.device("cpu"))
    lazy = RandomCrops(paths, 32)
    batches = DataLoader(lazy, 5, num_workers=num_workers)
    images = torch.cat([batch["image"] for batch in batches])
    assert torch.equal(images, torch.stack([loaded[i]["image"] for i in range(10)]))
    assert lazy.unreadable.tolist() == loaded.unreadable.tolist() == [i in (3, 4) for i in range(10)]


def test_unreadable_files_are_named_once(paths: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    crops = RandomCrops(paths, 32, crops_per_image=3)
    with caplog.at_level(logging.WARNING):
        for index in range(len(crops)):
            crops[index]
    assert len(caplog.records) == 2
    assert "3.png: unreadable" in caplog.text


def test_nothing_readable(paths: list[Path]) -> None:
    with pytest.raises(ValueError, match="none of the 2 photographs"):
        RandomCrops(paths[3:5], 32)[0]


def test_named_images(paths: list[Path]) -> None:
    batch = next(iter(DataLoader(NamedImages([paths[0], RAMP], ["a", "b"]))))
    assert batch["name"] == ["a"]
    assert batch["image"].shape == (1, 3, 64, 64)
