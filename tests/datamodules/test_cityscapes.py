"""The layout of Cityscapes: joint transforms, ids, damaged files, every option."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from datamodules.cityscapes import Cityscapes
from datamodules.images.scenes import Scenes, find_scenes, random_view
from modules.components.cityscapes_labels import TRAIN_IDS, annotation_paths, label_ids, label_of_instance


def write_scene(root: Path, name: str, split: str = "train", height: int = 64, width: int = 96) -> Path:
    """A scene whose red channel is its label, green its instance number: what belongs together stays together."""
    rng = np.random.default_rng(sum(name.encode()))
    blocks = rng.integers(0, 34, (height // 16, width // 16))
    labels = np.kron(blocks, np.ones((16, 16), np.int64)).astype(np.uint8)
    number = np.kron(rng.integers(0, 5, blocks.shape), np.ones((16, 16), np.int64))
    instances = np.where(labels >= 24, labels.astype(int) * 1000 + number, labels).astype(np.uint16)
    pixels = np.stack([labels, number.astype(np.uint8), np.zeros_like(labels)], -1)
    image = root / "leftImg8bit" / split / "ulm" / f"{name}_leftImg8bit.png"
    paths = annotation_paths(image)
    image.parent.mkdir(parents=True, exist_ok=True)
    paths.labels.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image)
    Image.fromarray(labels).save(paths.labels)
    Image.fromarray(instances).save(paths.instances)
    return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(5):
        write_scene(tmp_path / "cityscapes", f"ulm_{i:06d}_000019")
        write_scene(tmp_path / "cityscapes", f"ulm_{i:06d}_000020", "val")
    return tmp_path


def datamodule(root: Path, stage: str = "fit", **options: object) -> Cityscapes:
    data = Cityscapes(root=str(root), size=options.pop("size", (64, 96)), **options)  # type: ignore[arg-type]
    data.setup(stage)
    return data


def test_batches_keep_image_and_maps_together(root: Path) -> None:
    data = datamodule(root, batch_size=2, crop=(32, 40))
    batches = list(data.train_dataloader())
    assert len(batches) == 2  # the short one is dropped
    for batch in batches:
        assert batch["image"].shape == (2, 3, 32, 40) and batch["image"].dtype == torch.uint8
        assert batch["mask"].shape == batch["instance"].shape == (2, 32, 40)
        assert batch["mask"].dtype == batch["instance"].dtype == torch.int64
        assert torch.equal(batch["image"][:, 0].long(), batch["mask"])
        number = torch.where(batch["mask"] >= 24, batch["instance"] - 1000 * batch["mask"], batch["image"][:, 1].long())
        assert torch.equal(number, batch["image"][:, 1].long())


def test_views_follow_from_their_key_and_use_both_flips_and_all_positions() -> None:
    maps = {"image": torch.arange(3 * 8 * 10).view(3, 8, 10), "mask": torch.arange(80).view(8, 10)}
    views = [random_view(maps, (4, 4), (0, 1, i)) for i in range(300)]
    assert all(torch.equal(v["image"][0], v["mask"]) for v in views)
    again = random_view(maps, (4, 4), (0, 1, 7))
    assert torch.equal(again["mask"], views[7]["mask"])
    assert len({tuple(v["mask"].flatten().tolist()) for v in views}) == 5 * 7 * 2
    mirrored = sum(bool(v["mask"][0, 0] > v["mask"][0, 1]) for v in views)
    assert 120 < mirrored < 180


def test_whole_scenes_are_evaluated_unmirrored_and_resized(root: Path) -> None:
    data = datamodule(root, size=(32, 48))
    batch = next(iter(data.val_dataloader()))
    assert batch["name"] == ["ulm_000000_000020"] and batch["image"].shape == (1, 3, 32, 48)
    full = next(iter(datamodule(root).val_dataloader()))
    labels = full["mask"].float()[:, None]
    nearest = functional.interpolate(labels, (32, 48), mode="nearest-exact")[:, 0].long()
    assert torch.equal(batch["mask"], nearest)
    means = functional.avg_pool2d(full["image"].float(), 2)[..., 4, 4]
    assert torch.equal(batch["image"][..., 4, 4].float(), means)
    assert [scene["name"][4:10] for scene in data.held_out_scenes(3)] == ["000000", "000002", "000004"]
    assert len(data.held_out_scenes(9)) == 5
    assert data.held_out_scenes(1)[0]["image"].shape == (32, 48, 3)


def test_the_cache_changes_nothing_and_seeds_do(root: Path) -> None:
    plain, cached, other = (datamodule(root, seed=s, cache=c) for s, c in ((0, "none"), (0, "memory"), (1, "none")))
    epochs = [[b["image"] for b in data.train_dataloader()] for data in (plain, cached, other)]
    assert all(map(torch.equal, epochs[0], epochs[1]))
    assert not all(map(torch.equal, epochs[0], epochs[2]))
    assert cached.sets["train"].loaded[0] is not None and plain.sets["train"].loaded[0] is None


def test_train_ids_and_unknown_labels(root: Path) -> None:
    image = root / "cityscapes/leftImg8bit/val/ulm/ulm_000000_000020_leftImg8bit.png"
    labels = np.array(Image.open(annotation_paths(image).labels))
    labels[:16, :16] = 255
    labels[16:32, :16] = 40
    Image.fromarray(labels).save(annotation_paths(image).labels)
    ids = next(iter(datamodule(root, "validate").val_dataloader()))["mask"][0]
    train_ids = next(iter(datamodule(root, "validate", labels="train_ids").val_dataloader()))["mask"][0]
    assert (ids[:32, :16] == 255).all() and (train_ids[:32, :16] == 255).all()
    assert torch.equal(train_ids, torch.from_numpy(TRAIN_IDS)[ids].long())
    assert TRAIN_IDS[7] == 0 and TRAIN_IDS[33] == 18 and TRAIN_IDS[29] == 255 and (TRAIN_IDS < 19).sum() == 19


def test_damaged_and_missing_files_are_skipped_counted_and_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, frame in (("train", 19), ("val", 20)):
        image = root / f"cityscapes/leftImg8bit/{split}/ulm/ulm_000001_{frame:06d}_leftImg8bit.png"
        image.write_bytes(image.read_bytes()[:60])
        paths = annotation_paths(image.with_name(image.name.replace("000001", "000002")))
        paths.instances.unlink()
    data = datamodule(root, cache="memory")
    assert len(data.sets["train"]) == len(data.sets["val"]) == 3
    assert "1 unreadable (ulm_000001_000019)" in caplog.text
    assert "1 without label or instance map (ulm_000002_000020)" in caplog.text
    caplog.clear()
    lazy = datamodule(root)
    names = [batch["name"][0] for _ in range(2) for batch in lazy.train_dataloader()]
    assert len(names) == 10 and {name[4:10] for name in names} == {"000000", "000003", "000004"}
    assert caplog.text.count("unreadable (1 so far)") + caplog.text.count("unreadable (2 so far)") == 1


def test_maps_of_another_size_or_type_are_not_taken(root: Path) -> None:
    scenes = find_scenes(root / "cityscapes", "val")
    Image.new("L", (48, 64)).save(scenes[0].truth.labels)
    Image.new("RGB", (96, 64)).save(scenes[1].truth.instances)
    skipped = Scenes(scenes, (64, 96)).drop_unusable(keep=False, quiet=True)
    assert skipped == {"with maps of another size or type": [scenes[0].name, scenes[1].name]}


def test_missing_folders_and_bad_arguments(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*unpack leftImg8bit_trainvaltest\.zip"):
        datamodule(root, folder="nowhere")
    (tmp_path / "cityscapes/leftImg8bit/test").mkdir()
    (tmp_path / "cityscapes/gtFine/test").mkdir()
    with pytest.raises(ValueError, match=r"no \*_leftImg8bit\.png"):
        datamodule(root, "test", test_split="test")
    for scene in find_scenes(root / "cityscapes", "val"):
        scene.truth.labels.unlink()
    with pytest.raises(ValueError, match="no usable scene"):
        datamodule(root, "validate")
    for options in (
        {"size": (64, 100)},
        {"size": (0, 16)},
        {"crop": (20, 32)},
        {"crop": (72, 32)},
        {"crop": (32, 104)},
        {"labels": "x"},
        {"cache": "disk"},
        {"batch_size": 0},
    ):
        with pytest.raises(ValueError, match=r"must be|are ids"):
            Cityscapes(**({"size": (64, 96)} | options))


def test_label_names_and_instances() -> None:
    assert label_ids(["person", "car"]) == [24, 26]
    with pytest.raises(ValueError, match="no label is called 'cra'; there are: unlabeled"):
        label_ids(["car", "cra"])
    ids = np.array([0, 7, 33, 34, 255, 999, 24000, 26013, 33999, 34000, 65535])
    assert label_of_instance(ids).tolist() == [0, 7, 33, 255, 255, 255, 24, 26, 33, 255, 255]
