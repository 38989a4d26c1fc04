"""The data set that needs no files."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_image

from datamodules.embedded_photos import SCALE, EmbeddedPhotos, photo_regions, tiles
from datamodules.images.dead_leaves import dead_leaves, power_law_noise


def test_held_out_regions_are_other_pixels() -> None:
    training, held_out = photo_regions()
    photo = load_sample_image("china.jpg")
    left, right = training["china_left"], held_out["china_right"]
    assert left.shape == (256, 224, 3)
    assert right.shape == (256, 160, 3)
    assert round((left.shape[1] + right.shape[1]) / SCALE) == photo.shape[1]
    # Each part is the photograph at its own side of the cut.
    cut = photo.shape[1] - round(160 / SCALE)
    assert abs(left.mean() - photo[:, :cut].mean()) < 0.5
    assert abs(right.mean() - photo[:, cut:].mean()) < 0.5


def test_batches() -> None:
    data = EmbeddedPhotos(crop_size=32, batch_size=4, num_dead_leaves=4, crops_per_epoch=32)
    data.setup("fit")
    batches = list(data.train_dataloader())
    assert len(batches) == 8
    assert batches[0]["image"].shape == (4, 3, 32, 32)
    assert batches[0]["image"].dtype == torch.uint8
    validation = list(data.val_dataloader())
    names = [name for batch in validation for name in batch["name"]]
    assert len(names) == len(set(names)) == 2 * 2 * 8 * 5
    assert {name.rsplit("_", 1)[0] for name in names} == {"china_right", "flower_right", "dead_leaves"}


def test_held_out_images_are_the_test_set() -> None:
    data = EmbeddedPhotos()
    images = data.held_out_images()
    assert set(images) == {"china_right", "flower_right"}
    assert all(pixels.shape == (256, 160, 3) and pixels.dtype == np.uint8 for pixels in images.values())
    for batch in data.test_dataloader():
        assert np.array_equal(batch["image"][0].permute(1, 2, 0).numpy(), images[batch["name"][0]])


def test_seeds_differ_and_repeat() -> None:
    def leaves(seed: int) -> torch.Tensor:
        data = EmbeddedPhotos(num_dead_leaves=1, seed=seed)
        data.setup("fit")
        assert data.train_set is not None
        return data.train_set.images[0]  # type: ignore[return-value]

    assert torch.equal(leaves(1), leaves(1))
    assert not torch.equal(leaves(1), leaves(2))


@pytest.mark.parametrize("options", [{"crop_size": 161}, {"crop_size": 0}, {"batch_size": 0}, {"num_dead_leaves": -1}])
def test_values_that_cannot_work(options: dict) -> None:
    with pytest.raises(ValueError, match=r"must be|not negative"):
        EmbeddedPhotos(**options)


def test_tiles_do_not_overlap() -> None:
    pixels = np.arange(5 * 7 * 3).reshape(5, 7, 3)
    parts = tiles(pixels, 2)
    assert len(parts) == 2 * 3
    assert len(np.unique(np.concatenate([part.ravel() for part in parts]))) == 6 * 12


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (48, 48)])
def test_dead_leaves_of_any_size(size: tuple[int, int]) -> None:
    image = dead_leaves(*size, seed=4)
    assert image.shape == (*size, 3)
    assert np.array_equal(image, dead_leaves(*size, seed=4))


def test_dead_leaves_have_the_spectrum_of_photographs() -> None:
    """Amplitude falls about as 1 / frequency: the slope over the middle octaves lies between -0.8 and -1.8."""
    images = np.stack([dead_leaves(128, 128, seed).mean(axis=2) for seed in range(4)])
    amplitude = np.abs(np.fft.fft2(images - images.mean(axis=(1, 2), keepdims=True))).mean(axis=0)
    frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
    inside = (frequency > 0.03) & (frequency < 0.3)
    slope = np.polyfit(np.log(frequency[inside]), np.log(amplitude[inside]), 1)[0]
    assert -1.8 < slope < -0.8


def test_power_law_noise_is_normalised() -> None:
    noise = power_law_noise(64, 32, np.random.default_rng(0))
    assert noise.shape == (64, 32)
    assert abs(noise.mean()) < 1e-5
    assert abs(noise.std() - 1) < 1e-5
