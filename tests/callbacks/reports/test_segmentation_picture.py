"""A picture with a row for each image: itself, its labels, what a module finds."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from pytorch_lightning.loggers import WandbLogger

from callbacks.reports import segmentation_picture
from callbacks.reports.scene_pictures import Shown, label_colours
from callbacks.reports.segmentation_picture import SegmentationPicture


class Threshold:
    """Stands for a module: bright pixels are class 1."""

    device = torch.device("cpu")

    def eval(self) -> None:
        pass

    def segment(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, 0] > 127).long()


def batch(count: int, seed: int, size: int) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (count, 3, size, size + 2), generator=random).to(torch.uint8)
    mask = torch.randint(2, (count, size, size + 2), generator=random)
    mask[:, 0] = 255
    return {"image": image, "mask": mask}


def run(folder: Path, **options: object) -> SimpleNamespace:
    batches = {"fit": [batch(2, seed, 6 + seed % 2) for seed in range(5)], "test": [batch(1, 2, 6)]}
    data = SimpleNamespace(val_dataloader=lambda: batches["fit"], test_dataloader=lambda: batches["test"])
    usual = {"is_global_zero": True, "fast_dev_run": False, "loggers": [MagicMock(spec=WandbLogger), object()]}
    return SimpleNamespace(datamodule=data, default_root_dir=folder, **(usual | options))


def test_rows_are_image_labels_and_what_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[Shown]] = []
    monkeypatch.setattr(segmentation_picture, "draw_rows", lambda rows, path: drawn.extend(rows))
    trainer = run(tmp_path)
    SegmentationPicture(num_images=3).on_fit_end(trainer, Threshold())  # type: ignore[arg-type]
    assert len(drawn) == 3
    batches = trainer.datamodule.val_dataloader()
    for row, number in zip(drawn, (0, 2, 4), strict=True):
        image, mask = (value[0] for value in batches[number].values())
        assert [shown.title for shown in row] == ["image", "labels", "found"]
        assert np.array_equal(row[0].pixels, image.permute(1, 2, 0).numpy())
        assert np.array_equal(row[1].pixels, label_colours(mask.numpy()))
        found = (image[0] > 127).long().where(mask != 255, 255)
        assert np.array_equal(row[2].pixels, label_colours(found.numpy())) and not row[2].pixels[0].any()
    trainer.loggers[0].log_image.assert_called_once_with("segmentation/fit", [str(tmp_path / "segmentation.fit.png")])


def test_a_picture_after_test_and_none_from_other_processes(tmp_path: Path) -> None:
    SegmentationPicture(num_images=2).on_test_end(run(tmp_path), Threshold())  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["segmentation.test.png"]
    for silent in ({"is_global_zero": False}, {"fast_dev_run": True}):
        SegmentationPicture().on_test_end(run(tmp_path / "none", **silent), Threshold())  # type: ignore[arg-type]
    assert not (tmp_path / "none").exists()


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        SegmentationPicture(0)
    with pytest.raises(ValueError, match=r"needs a module with segment\(image\), not object"):
        SegmentationPicture().setup(SimpleNamespace(), object(), "fit")  # type: ignore[arg-type]
