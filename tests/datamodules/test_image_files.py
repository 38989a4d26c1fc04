"""Whole images of any size."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from datamodules.image_files import ImageFiles
from tests.datamodules.conftest import WritePhoto


@pytest.fixture
def data(tmp_path: Path, write_photo: WritePhoto) -> ImageFiles:
    write_photo(tmp_path / "set" / "one.png", 1, 1)
    write_photo(tmp_path / "set" / "sub" / "gray.png", 7, 2, mode="L")
    write_photo(tmp_path / "set" / "wide.webp", 3, 301)
    write_photo(tmp_path / "set" / "alpha.png", mode="RGBA")
    write_photo(tmp_path / "set" / "cut.jpg", 99, 99, cut=0.5)
    return ImageFiles("set", root=str(tmp_path))


def test_batches(data: ImageFiles, caplog: pytest.LogCaptureFixture) -> None:
    data.setup("test")
    batches = list(data.test_dataloader())
    assert {batch["name"][0]: tuple(batch["image"].shape) for batch in batches} == {
        "one.png": (1, 3, 1, 1),
        "sub/gray.png": (1, 3, 7, 2),
        "wide.webp": (1, 3, 3, 301),
    }
    assert all(batch["image"].dtype == torch.uint8 for batch in batches)
    assert "1 not 8-bit RGB (alpha.png)" in caplog.text
    assert "1 unreadable (cut.jpg)" in caplog.text


class Names(LightningModule):
    def predict_step(self, batch: dict) -> str:
        return batch["name"][0]


def test_predict_with_a_trainer(data: ImageFiles, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    assert trainer.predict(Names(), data) == ["one.png", "sub/gray.png", "wide.webp"]


def test_missing_or_empty(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="kodak"):
        ImageFiles(root=str(tmp_path)).setup("test")
    (tmp_path / "kodak").mkdir()
    with pytest.raises(ValueError, match="no usable image"):
        ImageFiles(root=str(tmp_path)).setup("test")
