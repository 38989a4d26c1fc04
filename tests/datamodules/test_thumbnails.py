"""CelebA, LSUN and folders of images: layouts, thumbnails, splits, and files that cannot be used."""

import io
import logging
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from datamodules.images.thumbnails import Source, header, load, open_cache, thumbnail
from datamodules.thumbnails import CelebA, ImageFolder, LSUNBedroom, ThumbnailData, read_partition


def picture(seed: int, height: int = 80, width: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("size", [(80, 70), (70, 81), (64, 64), (64, 67), (20, 33), (218, 178)])
def test_thumbnails_are_torchvisions(size: tuple[int, int]) -> None:
    image = picture(0, *size)
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Resize(64), torchvision.transforms.CenterCrop(64)]
    )
    assert np.array_equal(thumbnail(np.asarray(image), 64), np.asarray(transform(image)))


@pytest.mark.parametrize("rows", [0, 7, 3_033_042, 10**12])
def test_headers_are_numpys_whatever_the_length(rows: int) -> None:
    assert len(header(rows, 64)) == 128
    file = io.BytesIO(header(rows, 64))
    assert np.lib.format.read_magic(file) == (1, 0)
    assert np.lib.format.read_array_header_1_0(file) == ((rows, 64, 64, 3), False, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 9), ("val", 5)):
        for number in range(count):
            path = tmp_path / "set" / split / f"n{number % 2}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number).save(path)
    return tmp_path


def images_of(data: ThumbnailData, split: str) -> np.ndarray:
    return data.sets[split].images


def expected(folder: Path) -> np.ndarray:
    paths = sorted(folder.rglob("*.png"), key=lambda path: path.relative_to(folder).as_posix())
    return np.stack([thumbnail(np.asarray(Image.open(path)), 64) for path in paths])


def test_a_folder_of_images(folder: Path) -> None:
    data = ImageFolder("set", root=str(folder), batch_size=4, val_batch_size=3)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert np.array_equal(images_of(data, "train"), expected(folder / "set" / "train"))
    for split in ("val", "test"):
        assert np.array_equal(images_of(data, split), expected(folder / "set" / "val"))
    batches = list(data.train_dataloader())
    assert [len(batch["image"]) for batch in batches] == [4, 4]
    image, index = batches[0]["image"], batches[0]["index"]
    assert image.shape == (4, 3, 64, 64) and image.dtype == torch.uint8
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(image.permute(0, 2, 3, 1), images_of(data, "train")[index])
    evaluated = list(data.test_dataloader())
    assert [len(batch["image"]) for batch in evaluated] == [3, 2]
    assert torch.cat([batch["index"] for batch in evaluated]).tolist() == list(range(5))
    assert (folder / "set_cache" / "train64").is_dir()


def test_some_classes_of_a_folder(folder: Path) -> None:
    """Each choice has a cache of its own, whatever the order of the names."""
    for classes, part in ((["n1"], "n1"), (["n1", "n0"], "."), (["n0", "n1"], "."), (["n0"], "n0")):
        data = ImageFolder("set", classes=classes, root=str(folder))
        data.setup("fit")
        assert np.array_equal(images_of(data, "train"), expected(folder / "set" / "train" / part))
        assert np.array_equal(images_of(data, "val"), expected(folder / "set" / "val" / part))
    assert len(list((folder / "set_cache").glob("train64-*"))) == 3


@pytest.mark.parametrize("names", [["n0", "n7"], ["../train/n0"], [".."]])
def test_classes_that_are_not_there(folder: Path, names: list[str]) -> None:
    with pytest.raises(FileNotFoundError, match=r"train holds no class .*correct the names in classes"):
        ImageFolder("set", classes=names, root=str(folder)).setup("fit")
    with pytest.raises(ValueError, match="classes names no folder"):
        ImageFolder("set", classes=[], root=str(folder))


def test_its_own_test_images_sizes_and_limits(folder: Path) -> None:
    picture(50).save(folder / "set" / "test.png")
    (folder / "set" / "test").mkdir()
    picture(50).save(folder / "set" / "test" / "0.png")
    data = ImageFolder("set", root=str(folder), size=16, cache_dir=str(folder / "elsewhere"))
    data.setup("test")
    assert images_of(data, "test").shape == (1, 16, 16, 3)
    assert sorted(p.name for p in (folder / "elsewhere").iterdir()) == ["test16"]
    data = ImageFolder("set", root=str(folder), test_images=2)
    data.setup("validate")
    assert len(images_of(data, "val")) == 5
    (folder / "set" / "test" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"no usable image in the test split of .*set"):
        data.setup("test")
    for number in range(4):
        picture(number).save(folder / "set" / "test" / f"{number}.png")
    data.setup("test")
    assert len(images_of(data, "test")) == 2


def test_order_follows_from_the_seed(folder: Path) -> None:
    def order(seed: int) -> list[int]:
        data = ImageFolder("set", root=str(folder), batch_size=9, seed=seed)
        data.setup("fit")
        return next(iter(data.train_dataloader()))["index"].tolist()

    assert order(1) == order(1) != order(2)


def test_mapped_and_in_memory_are_the_same(folder: Path) -> None:
    arrays = []
    for in_memory in (True, False):
        data = ImageFolder("set", root=str(folder), in_memory=in_memory)
        data.setup("fit")
        arrays.append(images_of(data, "train"))
        assert isinstance(arrays[-1], np.memmap) != in_memory
        assert len(next(iter(data.val_dataloader()))["image"]) == 5
    assert np.array_equal(*arrays)


def test_files_that_cannot_be_used(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = folder / "set" / "train" / "n0"
    (train / "0.png").write_bytes((train / "0.png").read_bytes()[:200])
    picture(1).convert("L").save(train / "2.png")
    picture(1).convert("CMYK").save(train / "4.jpg")
    with caplog.at_level(logging.WARNING):
        data = ImageFolder("set", root=str(folder))
        data.setup("fit")
    assert "left out 1 unreadable (n0/0.png), 1 not 8-bit RGB (n0/4.jpg)" in caplog.text
    assert len(images_of(data, "train")) == 8
    gray = images_of(data, "train")[0]
    assert np.array_equal(gray[..., 0], gray[..., 1])


def test_a_cache_is_used_again_and_made_anew(folder: Path) -> None:
    made = []

    def pixels(name: str) -> np.ndarray:
        made.append(name)
        return np.full((20, 20, 3), int(name), np.uint8)

    cache = folder / "cache"
    first = open_cache(Source(["3", "4"], pixels, "a" * 16), cache, 8)
    assert first.images[:, 0, 0, 0].tolist() == [3, 4] and first.skipped == {}
    open_cache(Source(["3", "4"], pixels, "a" * 16), cache, 8)
    assert sorted(made) == ["3", "4"]
    data = cache / f"images-{'a' * 16}.npy"
    for damage in (lambda b: b[:-1], lambda b: b"x" + b[1:], lambda b: b[:50]):
        data.write_bytes(damage(data.read_bytes()))
        assert load(cache, "a" * 16, 8, in_memory=True) is None
        again = open_cache(Source(["3", "4"], pixels, "a" * 16), cache, 8)
        assert again.images[:, 7, 7, 2].tolist() == [3, 4]
    (cache / f"index-{'a' * 16}.json").write_text('{"images": 3, "skipped": {}}')
    assert load(cache, "a" * 16, 8, in_memory=True) is None
    open_cache(Source(["5"], pixels, "b" * 16), cache, 8)
    assert sorted(path.name[:7] for path in cache.iterdir()) == ["images-", "index-b"]
    (folder / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot write the cache .*set cache_dir to another folder"):
        open_cache(Source(["5"], pixels, "c" * 16), folder / "file", 8)


def test_missing_folders_and_wrong_arguments(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*absent/val\. Expected is .*PARSIMONY_DATA"):
        ImageFolder("absent", root=str(folder)).setup("validate")
    for name in ("size", "batch_size", "val_batch_size", "test_images"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            ImageFolder(root=str(folder), **{name: 0})


@pytest.fixture
def celeba(tmp_path: Path) -> Path:
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    parts = [0, 0, 2, 1, 0, 2]
    for number, _ in enumerate(parts):
        picture(number, 218, 178).save(folder / f"{number:06d}.jpg")
    lines = [f"{number:06d}.jpg {part}" for number, part in enumerate(parts)]
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text("\n".join(lines) + "\n\n")
    return tmp_path


def test_celeba(celeba: Path) -> None:
    data = CelebA(root=str(celeba))
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    assert [len(images_of(data, split)) for split in ("train", "val", "test")] == [3, 1, 2]
    path = celeba / "celeba" / "img_align_celeba" / "000005.jpg"
    assert np.array_equal(images_of(data, "test")[1], thumbnail(np.asarray(Image.open(path)), 64))


def test_celeba_incomplete(celeba: Path) -> None:
    (celeba / "celeba" / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 train images are not in .*first is 000004\.jpg"):
        CelebA(root=str(celeba)).setup("fit")
    table = celeba / "celeba" / "list_eval_partition.txt"
    for line in ("000001.jpg 3", "000001.jpg", "../x.jpg 0", "a b c"):
        table.write_text(f"000000.jpg 0\n{line}\n")
        with pytest.raises(ValueError, match=r"list_eval_partition\.txt, line 2: expected"):
            read_partition(table)
    table.unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*list_eval_partition\.txt\. Expected .*CelebA\.html"):
        CelebA(root=str(celeba)).setup("fit")


def test_lsun_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"no .*data\.mdb\. Expected .*bedroom_train_lmdb"):
        LSUNBedroom(root=str(tmp_path)).setup("fit")
    folder = tmp_path / "lsun" / "bedroom_train_lmdb"
    folder.mkdir(parents=True)
    (folder / "data.mdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match="need the package lmdb: pip install lmdb"):
        LSUNBedroom(root=str(tmp_path)).setup("fit")


@pytest.fixture
def lsun(tmp_path: Path) -> Path:
    lmdb = pytest.importorskip("lmdb")
    folder = tmp_path / "lsun" / "bedroom_train_lmdb"
    folder.mkdir(parents=True)
    environment = lmdb.open(str(folder), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for number in range(12):
            buffer = io.BytesIO()
            picture(number).save(buffer, "WEBP", lossless=True)
            content = buffer.getvalue() if number != 7 else buffer.getvalue()[:40]
            transaction.put(f"{number:040d}".encode(), content)
    environment.close()
    return tmp_path


def test_lsun(lsun: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = LSUNBedroom(root=str(lsun), held_out=4, seed=3)
    with caplog.at_level(logging.WARNING):
        data.setup("fit")
        data.setup("test")
    assert "1 unreadable (0000000000000000000000000000000000000007)" in caplog.text
    order = list(range(12))
    random.Random(3).shuffle(order)
    made = {number: thumbnail(np.asarray(picture(number)), 64) for number in order if number != 7}
    for split, numbers in (("test", order[:4]), ("train", order[4:])):
        assert np.array_equal(images_of(data, split), np.stack([made[n] for n in numbers if n != 7]))
    few = LSUNBedroom(root=str(lsun), held_out=4, seed=3, max_images=2, in_memory=False)
    few.setup("fit")
    assert np.array_equal(images_of(few, "train"), np.stack([made[n] for n in order[4:6] if n != 7]))
    with pytest.raises(ValueError, match="holds 12 images; held_out is 12"):
        LSUNBedroom(root=str(lsun), held_out=12).setup("fit")


def test_lsun_damaged(lsun: Path) -> None:
    (lsun / "lsun" / "bedroom_train_lmdb" / "data.mdb").write_bytes(b"\0" * 5000)
    with pytest.raises(ValueError, match="is damaged or no LMDB"):
        LSUNBedroom(root=str(lsun), held_out=4).setup("fit")
