"""ImageFolder's layout: labels, random and central crops, damaged files, caches, mistakes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.imagenet import ImageNet
from datamodules.images.class_folders import CentralPart, RandomPart
from tests.datamodules.conftest import WritePhoto


@pytest.fixture
def root(tmp_path: Path, write_photo: WritePhoto) -> Path:
    for split, number in (("train", 6), ("val", 2)):
        for name in ("n02", "n01", "n03"):
            for i in range(number):
                write_photo(tmp_path / "imagenet" / split / name / f"{name}_{i}.JPEG".lower().replace("jpeg", "jpg"))
    write_photo(tmp_path / "imagenet" / "train" / "n02" / "gray.png", mode="L")
    write_photo(tmp_path / "imagenet" / "train" / "n03" / "a_cut.png", 64, 64, cut=0.5)
    write_photo(tmp_path / "imagenet" / "val" / "n01" / "cmyk.jpg", mode="CMYK")
    write_photo(tmp_path / "imagenet" / "val" / "n02" / "images" / "deep.png", 100, 20)
    return tmp_path


def data_of(root: Path, **options: object) -> ImageNet:
    settings = {"crop_size": 16, "batch_size": 5, "num_workers": 0, **options}
    data = ImageNet(root=str(root), **settings)  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_batches_and_labels(root: Path) -> None:
    data = data_of(root)
    batches = list(data.train_dataloader())
    assert [tuple(batch["image"].shape) for batch in batches] == [(5, 3, 16, 16)] * 4  # 20 files
    assert batches[0]["image"].dtype == torch.uint8 and batches[0]["label"].dtype == torch.int64
    labels = torch.cat([batch["label"] for batch in data.val_dataloader()])
    assert labels.tolist() == [0, 0, 1, 1, 1, 2, 2]  # by class name; the CMYK file is left out


def test_damaged_files_are_named_and_replaced(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = data_of(root)
    for _ in range(2):
        list(data.train_dataloader())
    assert caplog.text.count("a_cut.png: unreadable (1 so far)") == 1
    assert "1 not 8-bit RGB (cmyk.jpg)" in caplog.text
    place = next(i for i, path in enumerate(data.train_set.images) if "a_cut" in str(path))  # type: ignore[union-attr]
    assert int(data.train_set[place]["label"]) == 2  # type: ignore[index]


@pytest.mark.parametrize(("cache", "num_workers"), [("memory", 0), ("device", 2), ("none", 1)])
def test_all_caches_give_the_same_crops(root: Path, cache: str, num_workers: int) -> None:
    plain, other = data_of(root), data_of(root, cache=cache, num_workers=num_workers)
    for a, b in zip(plain.train_dataloader(), other.train_dataloader(), strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["label"], b["label"])


def test_draws_follow_from_seed_epoch_and_index(root: Path) -> None:
    data, other = data_of(root), data_of(root, seed=1)
    first, again, later = (data.train_set[(epoch, 3)]["image"] for epoch in (0, 0, 1))  # type: ignore[index]
    assert torch.equal(first, again) and not torch.equal(first, later)
    assert not torch.equal(first, other.train_set[(0, 3)]["image"])  # type: ignore[index]


def test_random_parts_are_as_large_and_as_wide_as_told() -> None:
    part, random = RandomPart(8, 0.25, 0), np.random.default_rng(0)
    boxes = [part.box(40, 60, random) for _ in range(300)]
    areas = [h * w / 2400 for _, _, h, w in boxes]
    shapes = [w / h for _, _, h, w in boxes]
    assert 0.23 < min(areas) < 0.3 and max(areas) > 0.8
    assert 0.7 < min(shapes) < 0.85 and 1.2 < max(shapes) < 1.4
    assert all(0 <= t <= 40 - h and 0 <= x <= 60 - w for t, x, h, w in boxes)
    assert part.box(10, 100, random)[2:] == (10, 13)  # no part of a quarter fits
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[:, :, 8:] = 200
    sides = {bool(RandomPart(16, 1.0, seed)(image, 0, 0)[0, 0, 0] > 100) for seed in range(12)}
    assert sides == {True, False}  # mirrored or not


def test_the_central_part() -> None:
    image = torch.arange(60, dtype=torch.uint8).view(1, 6, 10).expand(3, 6, 10)
    assert torch.equal(CentralPart(4, 6)(image, 0, 0), image[:, 1:5, 3:7])
    assert CentralPart(4, 12)(image, 0, 0).shape == (3, 4, 4)
    assert not torch.equal(CentralPart(4, 12)(image, 0, 0), image[:, 1:5, 3:7])


def test_shorter_side_has_a_usual_default() -> None:
    assert ImageNet().shorter_side == 256 and ImageNet(crop_size=64).shorter_side == 73
    assert ImageNet(crop_size=64, shorter_side=64).shorter_side == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 0}, "crop_size must be at least 1"),
        ({"batch_size": 0}, "batch_size"),
        ({"val_batch_size": 0}, "val_batch_size"),
        ({"crop_size": 64, "shorter_side": 63}, "shorter_side must be at least crop_size 64"),
        ({"smallest_part": 0.0}, "smallest_part"),
        ({"smallest_part": 1.1}, "smallest_part"),
        ({"cache": "disk"}, "cache must be"),
    ],
)
def test_bad_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageNet(**options)  # type: ignore[arg-type]


def test_what_is_missing_is_named(root: Path, write_photo: WritePhoto) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.val. Expected is"):
        data_of(root, folder="nowhere")
    with pytest.raises(ValueError, match="more than cache_limit_gib"):
        data_of(root, cache="memory", cache_limit_gib=1e-6)
    with pytest.raises(ValueError, match="holds no class folders"):
        data_of(root, val_split="train/n01")
    (root / "imagenet" / "val" / "n04").mkdir()
    with pytest.raises(ValueError, match="the class is empty"):
        data_of(root)
    write_photo(root / "imagenet" / "val" / "n04" / "x.png")
    with pytest.raises(ValueError, match="other classes, such as n04"):
        data_of(root)
