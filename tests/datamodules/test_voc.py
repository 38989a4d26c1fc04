"""The layout of PASCAL VOC: lists, joint transforms, padding, damaged files, what is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.images.segmentation import FILL, View, pad, random_crop
from datamodules.voc import VOC, read_list

TRAIN, VAL, EXTRA = ["2007_01", "2007_02"], ["2007_03", "2007_04", "2007_05"], ["2008_01", "2008_02"]
HEIGHT, WIDTH = 45, 60


def write_image(folder: Path, name: str, masks: tuple[str, ...]) -> None:
    """A grayscale photograph whose every pixel is ten times its label."""
    random = np.random.default_rng(sum(name.encode()))
    labels = np.kron(random.integers(0, 21, (3, 4)), np.ones((15, 15), int)).astype(np.uint8)
    Image.fromarray(10 * labels).convert("RGB").save(folder / "JPEGImages" / f"{name}.jpg", quality=100, subsampling=0)
    labels[:2] = 255
    for place in masks:
        image = Image.fromarray(labels, "P" if place == "SegmentationClass" else "L")
        if image.mode == "P":
            image.putpalette([k * 7 % 256 for k in range(768)])
        image.save(folder / place / f"{name}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for name in TRAIN + VAL:
        write_image(folder, name, ("SegmentationClass", "SegmentationClassAug"))
    for name in EXTRA:
        write_image(folder, name, ("SegmentationClassAug",))
    for name, names in (("train", TRAIN), ("val", VAL)):
        (folder / "ImageSets/Segmentation" / f"{name}.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def datamodule(root: Path, stage: str = "fit", **options: object) -> VOC:
    small = {"crop": (32, 40), "batch_size": 2, "num_workers": 0}
    data = VOC(root=str(root), **(small | options))  # type: ignore[arg-type]
    data.setup(stage)
    return data


def names(data: VOC) -> list[str]:
    assert data.train_set is not None
    return [item.name for item in data.train_set.items]


def test_the_augmented_list(root: Path) -> None:
    assert names(datamodule(root)) == sorted(TRAIN + EXTRA)  # all label maps but val
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "trainaug.txt").write_text("\n".join(EXTRA + TRAIN[:1]))
    assert names(datamodule(root)) == EXTRA + TRAIN[:1]
    official = datamodule(root, train_list="train")
    assert names(official) == TRAIN
    assert official.train_set.items[0].mask.parent.name == "SegmentationClass"  # type: ignore[union-attr]
    assert datamodule(root, val_list="train").val_set.items[0].name == TRAIN[0]  # type: ignore[union-attr]


def test_training_crops_keep_image_and_mask_together(root: Path) -> None:
    data = datamodule(root, scales=(1.0, 1.0))
    batches = list(data.train_dataloader())
    assert len(batches) == 2
    for batch in batches:
        assert batch["image"].shape == (2, 3, 32, 40) and batch["image"].dtype == torch.uint8
        assert batch["mask"].shape == (2, 32, 40) and batch["mask"].dtype == torch.int64
        kept = batch["mask"] != 255
        assert ((batch["image"][:, 0].int() - 10 * batch["mask"])[kept].abs() <= 3).all()
    dataset = data.train_set
    assert dataset is not None and torch.equal(dataset[1, 0]["image"], dataset[1, 0]["image"])
    assert len({dataset[epoch, 0]["image"].numpy().tobytes() for epoch in range(4)}) > 1
    again = list(datamodule(root, scales=(1.0, 1.0)).train_dataloader())
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(batches, again, strict=True))
    for change in ({"seed": 1}, {"scales": (0.5, 0.6)}):
        other = list(datamodule(root, **({"scales": (1.0, 1.0)} | change)).train_dataloader())
        assert not all(torch.equal(a["image"], b["image"]) for a, b in zip(batches, other, strict=True))


def test_views_use_scales_places_and_mirrors() -> None:
    labels = torch.randint(21, (6, 10), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    view = View((10 * labels).expand(3, -1, -1), labels)
    plain = [random_crop(view, (4, 4), (1.0, 1.0), (0, 1, k)) for k in range(300)]
    assert all(torch.equal(v.image[1], 10 * v.mask) for v in plain)
    assert len({tuple(v.mask.flatten().tolist()) for v in plain}) == 3 * 7 * 2
    upright = {tuple(labels[r : r + 4, c : c + 4].flatten().tolist()) for r in range(3) for c in range(7)}
    assert 110 < sum(tuple(v.mask.flatten().tolist()) in upright for v in plain) < 190
    small = [random_crop(view, (8, 8), (0.5, 1.5), (0, 1, k)) for k in range(100)]
    shapes = {(int((v.mask != 255).any(1).sum()), int((v.mask != 255).any(0).sum())) for v in small}
    assert {rows for rows, _ in shapes} == {3, 4, 5, 6, 7, 8} and {columns for _, columns in shapes} >= {5, 6, 7, 8}
    assert all({*v.mask.unique().tolist()} <= {*range(21), 255} for v in small)


def test_padding_is_the_mean_colour_and_255() -> None:
    view = View(torch.zeros(3, 5, 9, dtype=torch.uint8), torch.ones(5, 9, dtype=torch.uint8))
    padded = pad(view, 8, 16)
    assert padded.image.shape == (3, 8, 16) and padded.mask.shape == (8, 16)
    for channel, value in enumerate(FILL):
        assert (padded.image[channel, 5:] == value).all() and (padded.image[channel, :, 9:] == value).all()
    assert (padded.mask[5:] == 255).all() and (padded.mask[:, 9:] == 255).all() and (padded.mask[:5, :9] == 1).all()
    assert pad(view, 5, 3) is view


def test_whole_images_are_padded_to_multiples_of_8(root: Path) -> None:
    batches = list(datamodule(root, "validate").val_dataloader())
    assert [batch["name"] for batch in batches] == [[name] for name in VAL]
    assert datamodule(root, "validate").train_set is None
    for batch in batches:
        assert batch["image"].shape == (1, 3, 48, 64) and batch["mask"].shape == (1, 48, 64)
        assert (batch["mask"][:, 45:] == 255).all() and (batch["mask"][:, :, 60:] == 255).all()
        assert (batch["mask"][:, :2] == 255).all() and (batch["mask"][:, 2:45, :60] < 21).all()


def test_damaged_files_are_skipped_counted_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = root / "VOCdevkit/VOC2012"
    (folder / "SegmentationClass" / f"{VAL[0]}.png").unlink()
    image = folder / "JPEGImages" / f"{VAL[1]}.jpg"
    image.write_bytes(image.read_bytes()[:300])
    data = datamodule(root, "validate")
    assert [item.name for item in data.val_set.items] == [VAL[2]]  # type: ignore[union-attr]
    assert f"1 without label map ({VAL[0]})" in caplog.text and f"1 unreadable ({VAL[1]})" in caplog.text
    mask = folder / "SegmentationClassAug" / f"{EXTRA[0]}.png"
    labels = np.array(Image.open(mask))
    for wrong in (labels[:-1], np.full_like(labels, 21), np.stack([labels] * 3, -1)):
        Image.fromarray(wrong).save(mask)
        caplog.clear()
        trained = datamodule(root)
        drawn = [name for batch in trained.train_dataloader() for name in batch["name"]]
        assert EXTRA[0] not in drawn and len(drawn) == 4
        assert "with a label map of another size or type (1 so far)" in caplog.text
    mask.write_bytes(b"\x89PNG")
    assert len(list(datamodule(root).train_dataloader())) == 2
    for name in VAL:
        (folder / "JPEGImages" / f"{name}.jpg").unlink()
    with pytest.raises(ValueError, match="no usable image in the list val: "):
        datamodule(root, "validate")


def test_what_is_missing_is_named_with_the_remedy(root: Path, tmp_path: Path) -> None:
    folder = root / "VOCdevkit/VOC2012"
    with pytest.raises(FileNotFoundError, match=r"no folder .*elsewhere.*unpack VOCtrainval_11-May-2012\.tar"):
        datamodule(root, folder="elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no image list .*other\.txt"):
        datamodule(root, val_list="other")
    (folder / "SegmentationClassAug").rename(folder / "aside")
    with pytest.raises(FileNotFoundError, match=r"SegmentationClassAug: the 10,582 images need .*train_list train"):
        datamodule(root)
    assert len(names(datamodule(root, train_list="train"))) == 2
    (folder / "SegmentationClass").rename(folder / "aside2")
    with pytest.raises(FileNotFoundError, match=r"no folder .*SegmentationClass: Expected is"):
        datamodule(root)
    for text, message in (("", "is empty"), ("../../etc/passwd\n", "expected a name such as 2007_000032")):
        (tmp_path / "list.txt").write_text(text)
        with pytest.raises(ValueError, match=message):
            read_list(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (321, 321)}, r"crop must be multiples of 8, got \(321, 321\)"),
        ({"crop": (0, 8)}, "crop must be multiples of 8"),
        ({"scales": (0.0, 1.0)}, "scales must be positive and in order"),
        ({"scales": (1.5, 0.5)}, "scales must be positive and in order"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
    ],
)
def test_bad_arguments(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        datamodule(root, **options)
