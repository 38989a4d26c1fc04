from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.reports.codec_report import CodecReport, draw_samples


class Sampler:
    """Stands for a module: two samples, black and white."""

    def sample(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.zeros_like(image), torch.full_like(image, 255)])


def test_a_module_without_a_codec_is_refused_for_fit_only():
    trainer = SimpleNamespace(datamodule=object())
    with pytest.raises(ValueError, match=r"codec\(\)"):
        CodecReport("report").setup(trainer, object(), "fit")
    CodecReport("report").setup(trainer, object(), "test")


def test_the_picture_shows_the_photograph_and_every_sample(tmp_path):
    gray = np.full((24, 32, 3), 128, np.uint8)
    path = draw_samples(Sampler(), {"a": gray, "b": gray}, tmp_path / "samples.png")
    values = set(np.unique(np.array(Image.open(path).convert("L"))))
    assert {0, 128, 255} <= values
