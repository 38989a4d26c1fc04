"""What ``test`` asks of decoded scenes, alone and through a trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import Tensor, nn

from modules.components.cityscapes_labels import TRAIN_IDS
from modules.components.distances import frechet
from modules.components.features import RandomFeatures
from modules.components.segmentation import Segmenter, confusion, mean_iou
from modules.extreme_gan.evaluation import SceneEvaluation, patches
from tests.modules.extreme_gan.test_module import QUIET, data, module, root

__all__ = ["root"]


class ByBrightness(nn.Module):
    """A class for each of 19 stretches of red."""

    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(0, 255, 19))

    def forward(self, x: Tensor) -> Tensor:
        return -(x[:, :1] - self.centres.view(1, -1, 1, 1)).square()


def segmenter(folder: Path) -> Segmenter:
    torch.save(ByBrightness().state_dict(), folder / "segmenter.pth")
    return Segmenter(ByBrightness(), str(folder / "segmenter.pth"))


def test_patches_do_not_overlap() -> None:
    x = torch.arange(2 * 3 * 5 * 7).view(2, 3, 5, 7)
    found = patches(x, 2)
    assert found.shape == (2 * 2 * 3, 3, 2, 2)
    expected = [x[n, :, i : i + 2, j : j + 2] for n in range(2) for i in (0, 2) for j in (0, 2, 4)]
    assert torch.equal(found, torch.stack(expected))
    with pytest.raises(ValueError, match="5 x 7 pixels hold no patch of 6"):
        patches(x, 6)


@pytest.mark.parametrize("patch", [16, None])
def test_scenes_and_what_was_decoded(patch: int | None, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    image, decoded = torch.randint(256, (2, 3, 3, 32, 48), generator=generator).byte()
    mask = torch.randint(34, (3, 32, 48), generator=generator)
    mask[:, :3] = 255
    evaluation = SceneEvaluation(RandomFeatures(4), patch, segmenter(tmp_path))
    evaluation.start(torch.device("cpu"))
    for n in range(3):
        evaluation.add(image[n : n + 1], decoded[n : n + 1], mask[n : n + 1])
    results = evaluation.results()
    real, fake = (x / 127.5 - 1 if patch is None else patches(x / 127.5 - 1, patch) for x in (image, decoded))
    features = RandomFeatures(4).requires_grad_(False)
    assert results["frechet_random32"] == pytest.approx(frechet(features(fake), features(real)), rel=1e-4)
    truth = torch.from_numpy(TRAIN_IDS)[mask].long()
    for name, pixels in (("miou", decoded), ("miou_of_originals", image)):
        found = (pixels[:, 0].float() * 18 / 255).round().long()
        assert results[name] == pytest.approx(mean_iou(confusion(truth, found, 19)))
    assert evaluation.results() == {}
    assert SceneEvaluation(None, None, None).results() == {}


def test_through_a_trainer(root: Path, tmp_path: Path) -> None:
    def measured(**options: Any) -> dict[str, float]:
        tested = module(features=RandomFeatures(4), segmenter=segmenter(tmp_path), **options)
        assert tested.state_dict().keys() == module().state_dict().keys()
        return dict(Trainer(**QUIET).test(tested, data(root), verbose=False)[0])

    small = measured(patch=16)
    assert {"test/frechet_random32", "test/kernel", "test/diversity", "test/miou"} <= small.keys()
    assert small["test/miou_of_originals"] > 0 and 0 <= small["test/miou"] <= 100
    assert measured(patch=32)["test/frechet_random32"] != small["test/frechet_random32"]
    with pytest.raises(ValueError, match="patch must be at least 1"):
        module(patch=0)
    absent = module(segmenter=Segmenter(ByBrightness(), str(tmp_path / "absent.pth")))
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        Trainer(**QUIET).test(absent, data(root), verbose=False)
