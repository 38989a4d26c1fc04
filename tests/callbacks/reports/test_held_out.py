"""What all reports on held-out photographs do: who is refused, which photographs, where the picture goes."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from pytorch_lightning.loggers import WandbLogger

from callbacks.reports.codec_report import CodecReport
from callbacks.reports.held_out import HeldOutReport
from callbacks.reports.rate_distortion import RateDistortion


class Named(HeldOutReport):
    """Writes the names that it is given."""

    def report(self, pl_module: object, images: dict[str, np.ndarray]) -> Path:
        path = self.folder / "names.png"
        path.write_text(" ".join(images))
        return path


def test_the_first_photographs_are_reported_and_the_picture_goes_to_wandb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = SimpleNamespace(held_out_images=lambda: {name: np.zeros((2, 2, 3), np.uint8) for name in "abc"})
    loggers = [MagicMock(spec=WandbLogger), object()]
    trainer = SimpleNamespace(datamodule=data, loggers=loggers, global_step=7)
    Named(str(tmp_path / "deep" / "report"), num_images=2).on_fit_end(trainer, object())  # type: ignore[arg-type]
    path = tmp_path / "deep" / "report" / "names.png"
    assert path.read_text() == "a b" and str(path) in capsys.readouterr().out
    loggers[0].log_image.assert_called_once_with("names", [str(path)], 7)


def test_who_lacks_something_is_refused_for_fit_only() -> None:
    data = SimpleNamespace(held_out_images=dict)
    for kind, module, wanted in (
        (RateDistortion, SimpleNamespace(sample=0), r"RateDistortion needs a module with codec\(\) and data"),
        (CodecReport, SimpleNamespace(codec=0), r"CodecReport needs a module with codec\(\), sample\(\) and data"),
    ):
        with pytest.raises(ValueError, match=wanted):
            kind("x").setup(SimpleNamespace(datamodule=data), module, "fit")  # type: ignore[arg-type]
        kind("x").setup(SimpleNamespace(datamodule=data), module, "test")  # type: ignore[arg-type]
        both = SimpleNamespace(codec=0, sample=0)
        kind("x").setup(SimpleNamespace(datamodule=data), both, "fit")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"data with held_out_images\(\)"):
            kind("x").setup(SimpleNamespace(datamodule=object()), both, "fit")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_images must be at least 1, got 0"):
        Named("x", num_images=0)
