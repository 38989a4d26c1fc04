"""A segmenter's weights, what it is shown and what it answers; mean intersection over union by brute force."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modules.components.checkpoint_file import CheckpointError
from modules.components.cityscapes_labels import TRAIN_IDS
from modules.components.segmentation import Segmenter, confusion, mean_iou


class Linear(nn.Module):
    """A score for each class and pixel."""

    def __init__(self, classes: int = 19, as_dictionary: bool = False) -> None:
        super().__init__()
        self.layer, self.as_dictionary = nn.Conv2d(3, classes, 1), as_dictionary

    def forward(self, x: torch.Tensor) -> Any:
        self.shown = x
        return {"out": self.layer(x), "aux": x} if self.as_dictionary else self.layer(x)


def saved(path: Path, classes: int = 19, in_a_run: bool = True) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = Linear(classes).state_dict()
    run = {"state_dict": {"codec.bias": torch.zeros(1)} | {f"network.{name}": value for name, value in state.items()}}
    torch.save(run if in_a_run else state, path)
    return state


IMAGE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 4, 6), dtype=np.uint8))


@pytest.mark.parametrize("in_a_run", [True, False])
@pytest.mark.parametrize("as_dictionary", [True, False])
def test_weights_of_a_run_or_alone(in_a_run: bool, as_dictionary: bool, tmp_path: Path) -> None:
    state = saved(tmp_path / "w.ckpt", in_a_run=in_a_run)
    segmenter = Segmenter(Linear(as_dictionary=as_dictionary), str(tmp_path / "w.ckpt"))
    segmenter.load()
    expected = nn.functional.conv2d(IMAGE.float(), state["layer.weight"], state["layer.bias"]).argmax(1)
    assert torch.equal(segmenter(IMAGE), expected)


def test_pixels_as_the_network_takes_them() -> None:
    shown = {}
    for pixels in ("bytes", "unit", "imagenet"):
        segmenter = Segmenter(Linear(), "w", pixels)  # type: ignore[arg-type]
        segmenter(IMAGE)
        shown[pixels] = segmenter.network.shown
    assert torch.equal(shown["bytes"], IMAGE.float()) and torch.equal(shown["unit"], IMAGE / 255)
    for channel, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        assert torch.allclose(shown["imagenet"][:, channel], (IMAGE[:, channel] / 255 - mean) / std, atol=1e-6)


def test_labels_that_the_network_knows() -> None:
    mask = torch.tensor([[[0, 7, 24, 33, 255]]])
    assert torch.equal(Segmenter(Linear(34), "w", labels="ids").truth(mask), mask)
    known = Segmenter(Linear(), "w").truth(mask)
    assert known.tolist() == [[[255, 0, 11, 18, 255]]] and torch.equal(known, torch.from_numpy(TRAIN_IDS)[mask].long())
    assert Segmenter(Linear(34), "w", labels="ids").num_classes == 34 and Segmenter(Linear(), "w").num_classes == 19


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pixels are bytes, unit or imagenet"):
        Segmenter(Linear(), "w", "floats")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="labels ids or train_ids; got 'bytes', 'names'"):
        Segmenter(Linear(), "w", labels="names")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        Segmenter(Linear(), str(tmp_path / "absent.ckpt")).load()
    saved(tmp_path / "w.ckpt", 34)
    with pytest.raises(CheckpointError, match=r"w\.ckpt does not fit Linear: .*size mismatch"):
        Segmenter(Linear(), str(tmp_path / "w.ckpt")).load()
    with pytest.raises(ValueError, match=r"gives \(2, 34, 4, 6\) .* a network of the 19 classes that labels train_ids"):
        Segmenter(Linear(34), "w")(IMAGE)


def test_intersection_over_union_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 4, (2, 3, 5, 6))  # of five classes, the last is nowhere
    truth[0, 0, :3] = 255
    truth[0, 0, 3] = 5  # unknown too
    counts = confusion(torch.from_numpy(truth), torch.from_numpy(predicted), 5)
    ious = []
    for k in range(4):
        both = either = 0
        for t, p in zip(truth.ravel(), predicted.ravel(), strict=True):
            if t < 5:
                both, either = both + (t == p == k), either + (k in (t, p))
        ious.append(both / either)
    assert counts.shape == (5, 5) and counts.sum() == (truth < 5).sum()
    assert counts[1, 2] == ((truth == 1) & (predicted == 2)).sum()
    assert mean_iou(counts) == pytest.approx(100 * np.mean(ious))
    assert mean_iou(torch.eye(3)) == 100 and np.isnan(mean_iou(torch.zeros(3, 3)))
