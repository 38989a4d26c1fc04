"""A packed set where a folder was: the same batches from every datamodule, ranks, a resume, what is altered."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from datamodules.image_files import ImageFiles
from datamodules.imagenet import ImageNet
from datamodules.images.crops import RandomCrops
from datamodules.images.pack_images import pack_folder
from datamodules.images.remote import RemotePath
from datamodules.images.sharded_images import ShardedImages, fetch_ahead, find_images, scan_images, shard_sampler
from datamodules.open_images import OpenImages
from datamodules.thumbnails import CelebA, ImageFolder
from tests.datamodules.conftest import WritePhoto
from tests.datamodules.images.range_server import serving

SPLITS = {"train": 12, "validation": 5, "val": 5, "test": 3}


@pytest.fixture
def roots(tmp_path: Path, write_photo: WritePhoto) -> tuple[Path, Path]:
    """Three classes in four splits below <root>/imagenet, as files and packed."""
    for split, count in SPLITS.items():
        folder = tmp_path / "files" / "imagenet" / split
        for number in range(count):
            write_photo(folder / f"n{number % 3}" / f"{number}.{('png', 'jpg')[number % 2]}", 40 + number, 44)
        pack_folder(folder, tmp_path / "packed" / "imagenet" / split, 10_240, quiet=True)
    return tmp_path / "files", tmp_path / "packed"


def batches(data: pl.LightningDataModule, stage: str, kind: str) -> list[dict[str, Any]]:
    data.prepare_data()
    data.setup(stage)
    return list(getattr(data, f"{kind}_dataloader")())


def assert_equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other) > 0
    for a, b in zip(one, other, strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            assert torch.equal(value, b[key]) if isinstance(value, Tensor) else value == b[key]


MAKERS = {
    "open images": lambda root, **o: OpenImages(root=str(root / "imagenet"), crop_size=32, batch_size=4, **o),
    "imagenet": lambda root, **o: ImageNet(root=str(root), crop_size=24, batch_size=4, num_workers=0, **o),
    "thumbnails": lambda root, **o: ImageFolder("imagenet", root=str(root), size=16, batch_size=4, **o),
    "two classes": lambda root, **o: ImageFolder("imagenet", ["n2", "n0"], root=str(root), size=16, batch_size=4, **o),
    "whole images": lambda root, **o: ImageFiles("imagenet/test", root=str(root), **o),
}


@pytest.mark.parametrize(("stage", "kind"), [("fit", "train"), ("validate", "val"), ("test", "test")])
@pytest.mark.parametrize("name", MAKERS)
def test_the_same_batches_as_from_files(roots: tuple[Path, Path], name: str, stage: str, kind: str) -> None:
    if name == "whole images" and stage == "fit":
        return
    one, other = (batches(MAKERS[name](root), stage, kind) for root in roots)
    assert_equal(one, other)


@pytest.mark.parametrize("options", [{"num_workers": 2, "cache": "none"}, {"cache": "memory"}])
def test_workers_and_caches(roots: tuple[Path, Path], options: dict) -> None:
    expected = batches(MAKERS["open images"](roots[0], cache="none"), "fit", "train")
    assert_equal(expected, batches(MAKERS["open images"](roots[1], **options), "fit", "train"))


REMOTE = {
    "open images": lambda url, kept: OpenImages(root=f"{url}/imagenet", crop_size=32, batch_size=4, num_workers=2),
    "open images, kept": lambda url, kept: OpenImages(
        root=f"{url}/imagenet", crop_size=32, batch_size=4, num_workers=2, cache="none", shard_cache=kept
    ),
    "imagenet": lambda url, kept: ImageNet(root=url, crop_size=24, batch_size=4, num_workers=0),
    "imagenet, kept": lambda url, kept: ImageNet(root=url, crop_size=24, batch_size=4, num_workers=2, shard_cache=kept),
    "thumbnails": lambda url, kept: ImageFolder("imagenet", root=url, size=16, batch_size=4, cache_dir=kept),
    "two classes": lambda url, kept: ImageFolder(
        "imagenet", ["n2", "n0"], root=url, size=16, batch_size=4, cache_dir=kept
    ),
    "whole images": lambda url, kept: ImageFiles("imagenet/test", root=url),
}


@pytest.mark.parametrize("name", REMOTE)
def test_the_same_batches_behind_a_url(roots: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    with serving(roots[1]) as server:
        for stage, kind in [("fit", "train"), ("validate", "val"), ("test", "test")]:
            if name != "whole images" or stage != "fit":
                one = batches(MAKERS[name.removesuffix(", kept")](roots[0]), stage, kind)
                assert_equal(one, batches(REMOTE[name](server.url, str(tmp_path / "kept")), stage, kind))
        assert {asked[0] for asked in server.asked} > {"shards.json", "samples.npy", "names.txt"}
    assert bool(list(tmp_path.glob("kept/**/*"))) == ("kept" in name or "thumb" in name or "two" in name)


def test_a_batch_of_a_remote_set_is_asked_for_at_once(roots: tuple[Path, Path]) -> None:
    """And not image by image, which would wait for each."""
    with serving(roots[1]) as server:
        for name in ("open images", "imagenet"):
            data = REMOTE[f"{name}, kept"](server.url, None)
            data.setup("fit")
            images = data.train_set.images
            batch = data.train_set.__getitems__([(1, 3), (1, 5), 7])
            assert sorted(place.offset for place in images.shards.files.ahead) == sorted(
                images.column("offset")[[3, 5, 7]].tolist()
            )
            assert torch.equal(batch[1]["image"], data.train_set[1, 5]["image"])
            fetch_ahead(images[4:], [2])
            assert list(images.shards.files.ahead) == [images.shards._place(6)]
        crops = RandomCrops(find_images(RemotePath(server.url) / "imagenet" / "train"), 32, crops_per_image=2)
        assert torch.equal(crops.__getitems__([(0, 13)])[0]["image"], crops[0, 13]["image"])


def test_roots_that_hold_no_packed_set(roots: tuple[Path, Path], tmp_path: Path) -> None:
    with serving(roots[0]) as server:
        for name, maker in REMOTE.items():
            with pytest.raises(FileNotFoundError, match=rf"no folder {server.url}/imagenet/\w+[.:] "):
                data = maker(server.url, str(tmp_path / "kept"))
                data.setup("test" if name == "whole images" else "fit")
    with pytest.raises(ValueError, match=r"the thumbnails of memory://a need a folder of this machine: set cache_dir"):
        ImageFolder("imagenet", root="memory://a")
    for limit, kept, root in ((0.0, "x", "memory://a"), (1.0, "x", "folder")):
        with pytest.raises(ValueError, match="shard_cache"):
            OpenImages(root=root, shard_cache=kept, shard_cache_limit_gib=limit)
        with pytest.raises(ValueError, match="shard_cache"):
            ImageNet(root=root, shard_cache=kept, shard_cache_limit_gib=limit)


def test_celeba_takes_its_partition_from_the_list(tmp_path: Path, write_photo: WritePhoto) -> None:
    for name in ("files", "packed"):
        (tmp_path / name / "celeba").mkdir(parents=True)
        lines = [f"{number:06d}.png {number % 3}\n" for number in reversed(range(9))]
        (tmp_path / name / "celeba" / "list_eval_partition.txt").write_text("".join(lines))
    for number in range(9):
        write_photo(tmp_path / "files" / "celeba" / "img_align_celeba" / f"{number:06d}.png")
    packed = tmp_path / "packed" / "celeba" / "img_align_celeba"
    pack_folder(tmp_path / "files" / "celeba" / "img_align_celeba", packed, 1, quiet=True)
    one, other = (CelebA(root=str(tmp_path / name), size=16, batch_size=2) for name in ("files", "packed"))
    assert_equal(batches(one, "fit", "train"), batches(other, "fit", "train"))
    with serving(tmp_path / "packed") as server:
        far = CelebA(root=server.url, size=16, batch_size=2, cache_dir=str(tmp_path / "far"))
        assert_equal(batches(one, "fit", "train"), batches(far, "fit", "train"))
    (tmp_path / "packed" / "celeba" / "list_eval_partition.txt").write_text("absent.png 0\n")
    with pytest.raises(FileNotFoundError, match=r"1 of the 1 train images are not in .*first is absent\.png"):
        CelebA(root=str(tmp_path / "packed"), size=16, cache_dir=str(tmp_path / "other")).setup("fit")


def test_what_a_list_names_and_what_is_too_small(roots: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    for root in roots:
        (root / "imagenet" / "some.csv").write_text("\ufeffImageID\n3\n4\n11\nabsent\n")
    listed = {"image_lists": {"train": "some.csv"}, "cache": "none"}
    one, other = (batches(MAKERS["open images"](root, **listed), "fit", "train") for root in roots)
    assert_equal(one, other)
    assert caplog.text.count("1 of 4 listed images have no file") == 2
    with serving(roots[1]) as server:
        data = OpenImages(root=f"{server.url}/imagenet", crop_size=32, batch_size=4, **listed)
        assert_equal(one, batches(data, "fit", "train"))
    images = find_images(roots[1] / "imagenet" / "train")
    files = find_images(roots[0] / "imagenet" / "train")
    for side in (43, 44, 45):  # of widths of 44
        found, expected = (scan_images(these, min_side=side, quiet=True) for these in (images, files))
        assert found.num_bytes == expected.num_bytes and found.skipped == expected.skipped
        assert [image.name for image in found.paths] == [path.name for path in expected.paths]
    assert isinstance(images[1:3], ShardedImages) and [image.stem for image in images[1:3]] == ["3", "6"]


def test_grayscale_is_taken_where_files_would_be(tmp_path: Path, write_photo: WritePhoto) -> None:
    write_photo(tmp_path / "in" / "gray.png", mode="L")
    write_photo(tmp_path / "in" / "rgb.png")
    pack_folder(tmp_path / "in", tmp_path / "out", 1, quiet=True)
    for gray_to_rgb in (True, False):
        scans = [scan_images(find_images(tmp_path / p), gray_to_rgb=gray_to_rgb, quiet=True) for p in ("in", "out")]
        assert scans[0].skipped == scans[1].skipped and scans[0].num_bytes == scans[1].num_bytes
        assert len(scans[1].paths) == 1 + gray_to_rgb


def alter(folder: Path, name: str) -> None:
    images = find_images(folder)
    row = next(image.row for image in images if image.relative == name)  # type: ignore[union-attr]
    rows = images.shards.rows  # type: ignore[union-attr]
    shard = folder / images.shards.shards[rows["shard"][row]]  # type: ignore[union-attr]
    data = bytearray(shard.read_bytes())
    data[int(rows["offset"][row]) + 50] ^= 255
    shard.write_bytes(data)


def test_an_image_is_left_out_for_one_reason(roots: tuple[Path, Path]) -> None:
    folder = roots[1] / "imagenet" / "train"
    for name in ("n1/1.jpg", "n1/4.png"):
        alter(folder, name)
    scan = scan_images(find_images(folder), min_side=42, full=True, quiet=True)
    small = [f"{number}.{('png', 'jpg')[number % 2]}" for number in (0, 1)]
    assert scan.skipped == {"smaller than the crop": small, "altered since it was packed": ["4.png"]}
    assert len(scan.paths) == 9


def test_an_incomplete_set_is_not_taken_for_an_empty_folder(roots: tuple[Path, Path]) -> None:
    (roots[1] / "imagenet" / "train" / "shards.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds shards but no shards\.json"):
        find_images(roots[1] / "imagenet" / "train")


def test_an_altered_image_is_counted_and_training_goes_on(
    roots: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    alter(roots[1] / "imagenet" / "train", "n1/4.png")
    alter(roots[1] / "imagenet" / "val", "n1/4.png")
    data = MAKERS["imagenet"](roots[1])
    assert len(batches(data, "fit", "train")) == 3
    assert "n1/4.png: altered since it was packed (1 so far)" in caplog.text
    assert "1 altered since it was packed (4.png)" in caplog.text
    assert sum(len(batch["label"]) for batch in data.val_dataloader()) == 4


def test_shards_at_once(roots: tuple[Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    for name in ("imagenet", "open images"):
        plain, few = (MAKERS[name](roots[1], cache="none", shards_at_once=s) for s in (None, 2))
        one, other = (torch.cat([batch["image"] for batch in batches(d, "fit", "train")]) for d in (plain, few))
        assert one.shape == other.shape and not torch.equal(one, other)
        for root, options in ((roots[0], {"cache": "none"}), (roots[1], {"cache": "memory"})):
            data = MAKERS[name](root, shards_at_once=2, **options)
            data.setup("fit")
            with pytest.raises(ValueError, match="shards_at_once reads a packed set, with cache: none"):
                data.train_dataloader()


def test_the_order_of_shards_follows_from_the_seed(roots: tuple[Path, Path]) -> None:
    crops = RandomCrops(find_images(roots[1] / "imagenet" / "train"), 32)
    orders = [shard_sampler(crops, 2, seed, None).order().tolist() for seed in (1, 1, 2)]  # type: ignore[union-attr]
    assert orders[0] == orders[1] != orders[2] and shard_sampler(crops, None, 1, None) is None


def test_the_size_of_very_many_pixels(roots: tuple[Path, Path]) -> None:
    images = find_images(roots[1] / "imagenet" / "train")
    rows = images.shards.rows = np.array(images.shards.rows)  # type: ignore[union-attr]
    rows["height"] = rows["width"] = 1 << 20
    assert scan_images(images, quiet=True).num_bytes == 3 * 12 << 40


def test_packed_files_outside_of_class_folders(tmp_path: Path, write_photo: WritePhoto) -> None:
    for split in ("train", "val"):
        write_photo(tmp_path / "in" / split / "a.png")
        pack_folder(tmp_path / "in" / split, tmp_path / "imagenet" / split, 1, quiet=True)
    with pytest.raises(ValueError, match=r"1 images packed in .* are in no class folder"):
        ImageNet(root=str(tmp_path)).setup("fit")


class Seen(pl.LightningModule):
    """Writes the index of every image that its rank trains on."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.weight, self.file = nn.Parameter(torch.zeros(())), file

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        with Path(f"{self.file}.{self.global_rank}").open("a") as file:
            print(self.current_epoch, *batch["index"].tolist(), int(batch["image"].sum()), file=file)
        return self.weight**2

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class StopAt(pl.Callback):
    """Saves after batch ``count`` and leaves, as a killed run does after its last checkpoint."""

    def __init__(self, count: int, file: Path) -> None:
        self.count, self.file = count, file

    def on_train_batch_end(self, trainer: pl.Trainer, *args: object) -> None:
        if trainer.global_step == self.count:
            trainer.save_checkpoint(self.file)
            trainer.should_stop = True
            trainer.limit_val_batches = 0


def train_in_two_processes(folder: Path, root: str, kept: str | None) -> None:
    """Two epochs of three batches a rank, whole; and cut in the middle of the second, then resumed."""
    torch.set_num_threads(1)

    def fit(name: str, callbacks: list[pl.Callback], **options: Any) -> None:
        data = ImageNet(
            root=root, crop_size=16, batch_size=2, num_workers=2, shards_at_once=2, seed=3, shard_cache=kept
        )
        trainer = pl.Trainer(
            max_epochs=2,
            accelerator="cpu",
            devices=2,
            strategy="ddp_fork",
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
        trainer.fit(Seen(folder / name), data, **options)

    fit("whole", [])
    fit("cut", [StopAt(4, folder / "cut.ckpt")])
    fit("cut", [], ckpt_path=folder / "cut.ckpt", weights_only=True)


@pytest.mark.parametrize("kind", ["folder", "url", "url, kept"])
def test_two_processes_with_workers_resume_in_mid_epoch(roots: tuple[Path, Path], kind: str) -> None:
    with serving(roots[1]) as server:
        words = [sys.executable, __file__, str(roots[1]), str(roots[1]) if kind == "folder" else server.url]
        words += [str(roots[1] / "kept")] if kind == "url, kept" else []
        subprocess.run(words, check=True, timeout=250, stderr=subprocess.DEVNULL)
        assert bool(server.asked) == (kind != "folder")
    whole, cut = ([(roots[1] / f"{n}.{rank}").read_text() for rank in (0, 1)] for n in ("whole", "cut"))
    assert whole == cut
    rows = [np.array(line.split(), int) for text in whole for line in text.splitlines()]
    for epoch in (0, 1):
        assert sorted(index for row in rows if row[0] == epoch for index in row[1:-1]) == list(range(12))


if __name__ == "__main__":
    train_in_two_processes(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None)
