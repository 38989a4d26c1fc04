"""Open Images' layout and any folder of photographs."""

import os
import tarfile
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from datamodules.open_images import OpenImages
from tests.datamodules.conftest import WritePhoto

ROOT = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path: Path, write_photo: WritePhoto) -> Path:
    """Two training folders, as the archives unpack, with files that must be left out."""
    for i in range(6):
        write_photo(tmp_path / "train" / f"train_{i % 2}" / f"{i:02d}.{('png', 'webp', 'jpg')[i % 3]}")
        write_photo(tmp_path / "validation" / f"v{i}.png")
    write_photo(tmp_path / "train" / "small.png", height=31)
    write_photo(tmp_path / "train" / "gray.png", mode="L")
    write_photo(tmp_path / "train" / "cmyk.jpg", mode="CMYK")
    write_photo(tmp_path / "train" / "zz_cut.png", 64, 64, cut=0.5)
    write_photo(tmp_path / "test" / "gray.png", 5, 3, mode="L")
    write_photo(tmp_path / "test" / "tiny.png", 1, 1)
    write_photo(tmp_path / "test" / "cut.png", 64, 64, cut=0.5)
    return tmp_path


def first_epoch(root: Path, **options: object) -> torch.Tensor:
    data = OpenImages(root=str(root), crop_size=32, batch_size=4, crops_per_image=3, **options)  # type: ignore[arg-type]
    data.setup("fit")
    return torch.cat([batch["image"] for batch in data.train_dataloader()])


def test_training_batches(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = OpenImages(root=str(root), crop_size=32, batch_size=4, crops_per_image=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].dtype == torch.uint8
    assert len(data.train_dataloader()) == 3  # (6 good + 1 replaced) * 2 crops, the short batch dropped
    for text in ("1 smaller than the crop (small.png)", "2 not 8-bit RGB (cmyk.jpg, gray.png)", "zz_cut.png"):
        assert text in caplog.text
        assert caplog.text.count(text) == 1


@pytest.mark.parametrize(("cache", "num_workers"), [("none", 0), ("none", 2), ("memory", 2), ("device", 2)])
def test_all_caches_give_the_same_crops(root: Path, cache: str, num_workers: int) -> None:
    assert torch.equal(first_epoch(root, cache=cache, num_workers=num_workers), first_epoch(root))


def test_validation_takes_the_first_centre_crops(root: Path) -> None:
    data = OpenImages(root=str(root), crop_size=32, val_batches=2, val_batch_size=2)
    data.setup("validate")
    batches = list(data.val_dataloader())
    assert [batch["name"] for batch in batches] == [["v0.png", "v1.png"], ["v2.png", "v3.png"]]
    assert batches[0]["image"].shape == (2, 3, 32, 32)


def test_whole_test_images(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = OpenImages(root=str(root))
    data.setup("test")
    shapes = {batch["name"][0]: tuple(batch["image"].shape) for batch in data.test_dataloader()}
    assert shapes == {"gray.png": (1, 3, 5, 3), "tiny.png": (1, 3, 1, 1)}
    assert "1 unreadable (cut.png)" in caplog.text


def test_image_list(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "some.csv").write_text("ImageID,Subset\n00,train\n03,train\nabsent,train\n")
    data = OpenImages(root=str(root), crop_size=32, image_lists={"train": "some.csv"})
    data.setup("fit")
    assert data.train_set is not None
    assert len(data.train_set) == 2
    assert "1 of 3 listed images have no file" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_split": "trian"}, "no folder .*trian.*prepare_photos"),
        ({"image_lists": {"train": "absent.csv"}}, "absent.csv"),
    ],
)
def test_what_is_missing_is_named(root: Path, options: dict, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        OpenImages(root=str(root), **options).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": 500}, "no usable photograph"),
        ({"crop_size": 32, "cache_limit_gib": 1e-6}, "use cache: none"),
        ({"crop_size": 0}, "crop_size must be at least 1"),
        ({"cache": "disk"}, "none, memory or device"),
        ({"image_lists": {"fit": "a.csv"}}, "not fit"),
    ],
)
def test_values_that_cannot_work(root: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OpenImages(root=str(root), **options).setup("fit")


def test_only_unreadable_photographs(tmp_path: Path, write_photo: WritePhoto) -> None:
    write_photo(tmp_path / "train" / "a.png", 64, 64, cut=0.5)
    with pytest.raises(ValueError, match="all 1 are unreadable"):
        OpenImages(root=str(tmp_path), crop_size=32).setup("fit")


def test_root_from_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARSIMONY_DATA", str(root))
    data = OpenImages(crop_size=32)
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    data.setup("fit")
    assert dict(data.hparams)["root"] is None


def test_shared_photos(tmp_path: Path) -> None:
    """Real photographs: the first of each split in the shared archive."""
    shared = Path(os.environ.get("PARSIMONY_SHARED", ROOT.parent / "shared"))
    archive = shared / "data" / "photos.tar"
    if not archive.is_file():
        pytest.skip(f"no {archive}: set PARSIMONY_SHARED to the folder of the shared data")
    with tarfile.open(archive) as tar:
        for split in ("train", "validation"):
            photos = [member for member in tar.getmembers() if f"{split}/" in member.name and member.isfile()]
            tar.extractall(tmp_path, photos[:4], filter="data")
    data = OpenImages(root=str(tmp_path / "photos"), batch_size=4)
    data.setup("fit")
    assert next(iter(data.train_dataloader()))["image"].shape == (4, 3, 128, 128)
    assert next(iter(data.val_dataloader()))["image"].shape == (4, 3, 128, 128)
