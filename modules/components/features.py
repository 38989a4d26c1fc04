"""Networks under whose features two sets of images are compared.

A distance carries the name of its network: only Inception with the weights that torchvision publishes may say FID.
"""

import hashlib
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

from modules.components.checkpoint_file import CheckpointError, read_checkpoint
from modules.components.options import at_least

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> [N, D]."""

    label: str
    """Name of the Frechet distance under these features."""
    dimensions: int


class RandomFeatures(Features):
    """Untrained: four strided convolutions with weights drawn from a seed, averaged over the image.

    They need no file and see colour, sharpness and texture, but no objects. Distances under them compare systems with
    each other and are not comparable with anybody's FID.

    Args:
        width: channels of the first layer; D is 8 of these.
        seed: of the weights.
    """

    def __init__(self, width: int = 32, seed: int = 0) -> None:
        super().__init__()
        at_least(1, width=width)
        self.label, self.dimensions = f"frechet_random{8 * width}", 8 * width
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        for before, after in ((3, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width)):
            convolution = nn.Conv2d(before, after, 4, 2, 1)
            nn.init.kaiming_normal_(convolution.weight, generator=generator)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU()]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))


class TorchvisionFeatures(Features):
    """What a classifier of torchvision gives to its last layer.

    Args:
        model: name in ``torchvision.models``, such as inception_v3, vgg16 or resnet18.
        weights: the file of weights, downloaded beforehand; nothing is fetched here.

    Raises:
        ValueError: for a model that torchvision has not.
        FileNotFoundError, CheckpointError: if there is no such file, or not of this model.
    """

    def __init__(self, model: str, weights: str) -> None:
        super().__init__()
        if model not in torchvision.models.list_models(module=torchvision.models):
            raise ValueError(f"torchvision has no model {model!r}")
        state = read_checkpoint(weights)
        options = {"init_weights": False} if model in ("inception_v3", "googlenet") else {}
        self.network = torchvision.models.get_model(model, **options)
        try:
            self.network.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{weights} does not fit {model}: {reason}") from error
        is_inception = model == "inception_v3" and is_published(Path(weights), model)
        self.label = "fid_torchvision" if is_inception else f"frechet_{model}"
        self.side = 299 if model == "inception_v3" else 224
        self.dimensions = remove_last_layer(self.network)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.eval()

    mean: Tensor
    std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.interpolate(x, (self.side, self.side), mode="bilinear", antialias=True)
        return self.network(((x + 1) / 2 - self.mean) / self.std).flatten(1)


def is_published(path: Path, model: str) -> bool:
    """Whether the file is, bit for bit, one that torchvision publishes: their names end in a piece of their hash."""
    urls = [weights.url for weights in torchvision.models.get_model_weights(model)]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return any(digest.startswith(url.rsplit("-", 1)[1].removesuffix(".pth")) for url in urls)


def remove_last_layer(network: nn.Module) -> int:
    """Put an identity in the place of the last linear layer; its number of inputs."""
    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return last.in_features
