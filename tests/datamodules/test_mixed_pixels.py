"""Generated hyperspectral pixels."""

import pytest
import torch

from datamodules.mixed_pixels import MixedPixels


def test_pixels_are_mixtures_of_the_pure_ones_and_noise() -> None:
    data = MixedPixels(4, 40, 300, noise_db=400.0, batch_size=128)
    data.setup("fit")
    batches = list(data.train_dataloader())
    points, abundances = (torch.cat([b[name] for b in batches]) for name in ("points", "abundances"))
    assert torch.equal(abundances[:4], torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(abundances.sum(1), torch.ones(300, dtype=torch.float64))
    torch.testing.assert_close(points, abundances @ points[:4])
    assert float(points.min()) > 0 and float(points.max()) < 1


def test_noise_has_its_strength() -> None:
    clean, _ = MixedPixels(3, 40, 500, noise_db=400.0).load()
    noisy, _ = MixedPixels(3, 40, 500, noise_db=20.0).load()
    assert float((noisy - clean).norm() / clean.norm()) == pytest.approx(0.1, rel=0.02)
    assert float(noisy.min()) >= 0


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="num_pixels must be at least 6, got 5"):
        MixedPixels(6, 10, 5)
    with pytest.raises(ValueError, match="concentration must be above 0"):
        MixedPixels(concentration=float("nan"))
    with pytest.raises(ValueError, match="noise_db"):
        MixedPixels(noise_db=float("nan"))
