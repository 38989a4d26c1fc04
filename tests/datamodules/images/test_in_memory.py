"""Batches out of memory: what they hold, what they follow from, and which images are held out."""

from typing import Literal

import numpy as np
import pytest
import torch

from datamodules.images.flip_crop import draw_codes, flip_crop
from datamodules.images.in_memory import ImagesInMemory, SmallImages

TRAIN, TEST, CLASSES = 60, 15, 5


class Textures(SmallImages):
    """Noise of 12x12 pixels whose first channel is the number of the image; test images count from 100."""

    num_classes = CLASSES

    def read(self, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
        count, first = (TRAIN, 0) if split == "train" else (TEST, 100)
        images = np.random.default_rng(first).integers(0, 256, (count, 12, 12, 3), np.uint8)
        images[..., 0] = (first + np.arange(count))[:, None, None]
        return images, np.arange(count) % CLASSES


def module(stage: str = "fit", **options: object) -> Textures:
    data = Textures(**{"batch_size": 8, "val_batch_size": 4, **options})  # type: ignore[arg-type]
    data.setup(stage)
    return data


def numbers(loader: object) -> list[int]:
    return [int(n) for batch in loader for n in batch["image"][:, 0, 0, 0]]  # type: ignore[attr-defined]


def epoch(data: Textures, number: int, skip: int = 0) -> list[torch.Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    loader.load_state_dict({"epoch": number, "batches": skip})
    return [batch["image"] for batch in loader]


def test_a_training_batch() -> None:
    data = module(seed=6)
    loader = data.train_dataloader()
    loader.sampler.set_epoch(4)  # type: ignore[attr-defined]
    seen = []
    for batch in loader:
        image, label = batch["image"], batch["label"]
        assert image.shape == (8, 3, 12, 12) and image.dtype == torch.uint8 and label.dtype == torch.int64
        assert image.is_contiguous(memory_format=torch.channels_last)
        number = image[:, 0, 5, 5].long()
        assert torch.equal(label, number % CLASSES) and torch.equal(batch["index"], number)
        codes = draw_codes(6, 4, number.numpy(), 4)
        expected = flip_crop(torch.from_numpy(data.read("train")[0]), number.numpy(), codes, 4)
        assert torch.equal(image, expected.permute(0, 3, 1, 2))
        seen += number.tolist()
    assert len(seen) == len(set(seen)) == 56


def test_without_augmentation() -> None:
    data = module(augment=False)
    images = torch.from_numpy(data.read("train")[0]).permute(0, 3, 1, 2)
    for batch in data.train_dataloader():
        assert torch.equal(batch["image"], images[batch["image"][:, 0, 0, 0].long()])


@pytest.mark.parametrize("options", [{"num_workers": 2}, {"cache": "memory"}, {"cache": "device"}])
def test_batches_do_not_depend_on_workers_or_cache(options: dict) -> None:
    state = torch.get_rng_state()
    plain, other = (torch.cat(epoch(module(**o), 3)) for o in ({}, options))
    assert torch.equal(plain.cpu(), other.cpu())
    assert torch.equal(state, torch.get_rng_state())


def test_epochs_and_seeds_differ_and_an_epoch_goes_on_where_it_stopped() -> None:
    first = epoch(module(), 1)
    assert not torch.equal(torch.cat(first), torch.cat(epoch(module(), 2)))
    assert not torch.equal(torch.cat(first), torch.cat(epoch(module(seed=1), 1)))
    rest = epoch(module(), 1, skip=4)
    assert len(rest) == 3 and all(torch.equal(a, b) for a, b in zip(rest, first[4:], strict=True))


def test_the_test_images_are_validated_by_default() -> None:
    data = module()
    assert numbers(data.val_dataloader()) == numbers(data.test_dataloader()) == list(range(100, 100 + TEST))
    assert len(data.sets["train"]) == TRAIN


@pytest.mark.parametrize("stage", ["fit", "validate"])
def test_held_out_images(stage: str) -> None:
    data = module(stage, validation_images=10, seed=3)
    held_out = numbers(data.val_dataloader())
    assert sorted(set(held_out)) == held_out and len(held_out) == 10
    assert np.bincount(np.array(held_out) % CLASSES).tolist() == [2] * CLASSES
    train = data.sets["train"].images[:, 0, 0, 0].tolist()
    assert sorted([*train, *held_out]) == list(range(TRAIN))
    assert numbers(module(stage, validation_images=10, seed=3).val_dataloader()) == held_out
    assert numbers(module(stage, validation_images=10, seed=1).val_dataloader()) != held_out
    data.setup("test")
    assert numbers(data.test_dataloader()) == list(range(100, 100 + TEST))


def test_a_part_of_the_training_images() -> None:
    """All classes equally, none of those held out, and the same ones for a seed."""
    data = module(training_images=20, validation_images=10, seed=3)
    kept = data.sets["train"].images[:, 0, 0, 0].tolist()
    assert len(set(kept)) == 20 and kept == sorted(kept) and not set(kept) & set(numbers(data.val_dataloader()))
    assert np.bincount(np.array(kept) % CLASSES).tolist() == [4] * CLASSES
    assert data.sets["train"].labels.tolist() == (np.array(kept) % CLASSES).tolist()
    assert module(training_images=20, validation_images=10, seed=3).sets["train"].images[:, 0, 0, 0].tolist() == kept
    assert module(training_images=20, validation_images=10, seed=4).sets["train"].images[:, 0, 0, 0].tolist() != kept
    assert numbers(module(training_images=20).test_dataloader()) == list(range(100, 100 + TEST))


def test_one_image_and_one_draw() -> None:
    images = torch.arange(3 * 25 * 3, dtype=torch.uint8).view(3, 5, 5, 3)
    batch = ImagesInMemory(images, torch.tensor([4, 5, 6]))[1]
    assert torch.equal(batch["image"], images[1:2].permute(0, 3, 1, 2)) and batch["label"].tolist() == [5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"val_batch_size": 0}, "val_batch_size must be at least 1"),
        ({"cache": "disk"}, "cache must be auto, memory or device, got 'disk'"),
        ({"validation_images": 4}, "validation_images must be 0 or 5 to 55"),
        ({"validation_images": 56}, "validation_images must be 0 or 5 to 55"),
        ({"validation_images": -5}, "validation_images must be 0 or 5 to 55"),
        ({"training_images": 4}, "training_images must be 0 or 5 to 55"),
        ({"training_images": 46, "validation_images": 10}, "training_images must be 0 or 5 to 45"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)
