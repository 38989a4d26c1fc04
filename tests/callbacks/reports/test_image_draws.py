"""Pictures of draws: cells where they belong, files after fit and test."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.reports.image_draws import ImageDraws, contact_sheet


def test_cells_and_scale() -> None:
    rows = torch.randint(256, (2, 3, 3, 4, 5), dtype=torch.uint8)
    sheet = np.asarray(contact_sheet(rows, 2))
    assert sheet.shape == (2 * 2 * 4, 2 * 3 * 5, 3)
    for r in range(2):
        for k in range(3):
            cell = sheet[r * 8 : (r + 1) * 8 : 2, k * 10 : (k + 1) * 10 : 2]
            assert np.array_equal(cell, rows[r, k].permute(1, 2, 0))
    assert np.array_equal(sheet[::2, ::2], sheet[1::2, 1::2])


class Images(LightningDataModule):
    def val_dataloader(self) -> DataLoader:
        images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 2, 2) * 10
        return DataLoader([{"image": image} for image in images], batch_size=4)  # type: ignore[arg-type]

    train_dataloader = val_dataloader

    def test_dataloader(self) -> DataLoader:
        return DataLoader([{"image": torch.full((3, 2, 2), 200, dtype=torch.uint8)}], batch_size=4)  # type: ignore[arg-type]


class Adding(LightningModule):
    """Draw k of an image is the image plus k."""

    def draws(self, image: Tensor, count: int) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        return torch.stack([image + 1 + k for k in range(count)])

    def training_step(self, batch: Any, index: int) -> None:
        return None

    def validation_step(self, batch: Any, index: int) -> None:
        return None

    test_step = validation_step

    def configure_optimizers(self) -> None:
        return None


def run(folder: Path, callback: ImageDraws, module: LightningModule | None = None, **options: Any) -> None:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    plain = {"enable_model_summary": False, "default_root_dir": folder, "max_epochs": 1}
    trainer = Trainer(**(quiet | plain | options), callbacks=[callback])  # type: ignore[arg-type]
    trainer.fit(module or Adding(), datamodule=Images())
    trainer.test(module or Adding(), datamodule=Images(), verbose=False)


def test_pictures_after_fit_and_test(tmp_path: Path) -> None:
    run(tmp_path / "run", ImageDraws(num_images=3, num_draws=2))
    fitted = np.asarray(Image.open(tmp_path / "run" / "draws.fit.png"))
    assert fitted[::2, ::2, 0].tolist() == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    tested = np.asarray(Image.open(tmp_path / "run" / "draws.test.png"))
    assert tested[::2, ::2, 0].tolist() == [[200, 201, 202]]
    run(tmp_path / "dev", ImageDraws(), fast_dev_run=True)
    assert not (tmp_path / "dev").exists()


def test_what_it_cannot_do(tmp_path: Path) -> None:
    for options in ({"num_images": 0}, {"num_draws": 0}, {"scale": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            ImageDraws(**options)
    with pytest.raises(ValueError, match=r"needs a module with draws\(image, count\), not LightningModule"):
        ImageDraws().setup(Trainer(logger=False), LightningModule(), "fit")
