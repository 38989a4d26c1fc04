"""What ``test`` asks of decoded scenes beside their errors: do they look alike, is the same still to be seen?"""

import torch
from torch import Tensor

from modules.components.feature_distances import FeatureDistances
from modules.components.features import Features
from modules.components.frozen import Frozen
from modules.components.gathering import of_all_ranks
from modules.components.segmentation import Segmenter, confusion, mean_iou


def patches(x: Tensor, side: int) -> Tensor:
    """[N, 3, H, W] -> squares [N floor(H / side) floor(W / side), 3, side, side] that do not overlap.

    Raises:
        ValueError: if there is none.
    """
    if min(x.shape[-2:]) < side:
        raise ValueError(
            f"scenes of {x.shape[-2]} x {x.shape[-1]} pixels hold no patch of {side}: give a smaller patch"
        )
    squares = x.unfold(2, side, side).unfold(3, side, side)
    return squares.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


class SceneEvaluation:
    """Distances of distributions, and mean intersection over union, of scenes and what was decoded.

    Args:
        features: network of the distances, or None.
        patch: side of the squares that are compared; None for whole scenes.
        segmenter: network that labels pixels, or None.
    """

    def __init__(self, features: Features | None, patch: int | None, segmenter: Segmenter | None) -> None:
        self.distances = None if features is None else FeatureDistances(features)
        self.patch = patch
        self.segmenter = None if segmenter is None else Frozen(segmenter)
        self.counts: dict[str, Tensor] = {}

    def start(self, device: torch.device) -> None:
        """Read the segmenter's weights and move it.

        Raises:
            FileNotFoundError, CheckpointError: see ``Segmenter.load``.
        """
        if self.segmenter is not None:
            self.segmenter.network.load()  # type: ignore[operator]
            self.segmenter.to(device)

    def add(self, image: Tensor, decoded: Tensor, mask: Tensor) -> None:
        """Scenes uint8 [N, 3, H, W], and labels int64 [N, H, W] of Cityscapes with 255 for unknown."""
        if self.distances is not None:
            pair = (pixels.float() / 127.5 - 1 for pixels in (image, decoded))
            self.distances.add(*(pixels if self.patch is None else patches(pixels, self.patch) for pixels in pair))
        if self.segmenter is not None:
            network: Segmenter = self.segmenter.network  # type: ignore[assignment]
            truth = network.truth(mask)
            for name, pixels in (("miou", decoded), ("miou_of_originals", image)):
                found = confusion(truth, self.segmenter(pixels), network.num_classes).cpu()
                self.counts[name] = self.counts.get(name, 0) + found

    def results(self) -> dict[str, float]:
        """Over all ranks: those of ``FeatureDistances``; ``miou`` of decoded scenes and ``miou_of_originals``, in
        percent. The next begin anew."""
        found = {} if self.distances is None else self.distances.results()
        for name, counts in self.counts.items():
            found[name] = float(mean_iou(torch.stack(of_all_ranks(counts)).sum(0)))
        self.counts = {}
        return found
