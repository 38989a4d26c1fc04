"""The terms of the objective. Images are in [-1, 1]; everything is computed in float32.

generator      L_GAN + lambda_mse * d + lambda_feature * L_FM + lambda_vgg * L_VGG
discriminator  least squares (LSGAN), halved as in pix2pixHD's training script

Sums over the scales of the discriminator, means over patches and images.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.extreme_gan.nets import Judgement


def discriminator_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """(1/2) sum_j [(D_j(x) - 1)^2 + D_j(x_hat)^2]."""
    terms = [(r.scores - 1).square().mean() + f.scores.square().mean() for r, f in zip(real, fake, strict=True)]
    return torch.stack(terms).sum() / 2


def adversarial_loss(fake: list[Judgement]) -> Tensor:
    """sum_j (D_j(x_hat) - 1)^2."""
    return torch.stack([(judgement.scores - 1).square().mean() for judgement in fake]).sum()


def feature_matching_loss(real: list[Judgement], fake: list[Judgement]) -> Tensor:
    """sum_j (1/scales) sum_i (4/layers) L1(D_j^i(x_hat), D_j^i(x)), over all layers but the last; x is a constant."""
    terms = [
        functional.l1_loss(f, r.detach()) * 4 / (len(of_real.features) * len(real))
        for of_real, of_fake in zip(real, fake, strict=True)
        for r, f in zip(of_real.features, of_fake.features, strict=True)
    ]
    return torch.stack(terms).sum()


def distortion(x_hat: Tensor, x: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean squared error, over the kept pixels if ``keep`` [N, 1, H, W] in {0, 1} is given; 0 if none is kept."""
    if keep is None:
        return functional.mse_loss(x_hat, x)
    return ((x_hat - x).square() * keep).sum() / (keep.sum() * x.shape[1]).clamp(min=1.0)


class VGGLoss(nn.Module):
    """sum_i a_i L1(V_i(x_hat), V_i(x)) over relu1_1, ..., relu5_1 of VGG-19, a = 1/32, 1/16, 1/8, 1/4, 1.

    Its input is [-1, 1] images without ImageNet's mean and deviation, as in pix2pixHD.

    Args:
        state_dict: torchvision's weights of ``vgg19``.
    """

    COEFFICIENTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
    LAYERS = (1, 6, 11, 20, 29)

    def __init__(self, state_dict: dict[str, Tensor]) -> None:
        super().__init__()
        from torchvision.models import vgg19

        network = vgg19(weights=None)
        network.load_state_dict(state_dict)
        features = network.features[: self.LAYERS[-1] + 1]
        for module in features:
            if isinstance(module, nn.ReLU):
                module.inplace = False
        self.features = features.eval().requires_grad_(False)

    def outputs(self, x: Tensor) -> list[Tensor]:
        found = []
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.LAYERS:
                found.append(x.float())
        return found

    def forward(self, x_hat: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            real = self.outputs(x)
        terms = zip(self.COEFFICIENTS, self.outputs(x_hat), real, strict=True)
        return torch.stack([a * functional.l1_loss(f, r) for a, f, r in terms]).sum()


def vgg_weights_file(path: str | None) -> Path:
    """Where VGG-19's weights are looked for: ``path``, or where torchvision keeps what it has downloaded."""
    return Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / "vgg19-dcbb9e9d.pth"


def load_vgg_loss(path: Path) -> VGGLoss | None:
    """The term with the weights of a file; None if there is no such file. Nothing is downloaded.

    Raises:
        ValueError: if the file holds something else.
    """
    if not path.is_file():
        return None
    try:
        return VGGLoss(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch.load and load_state_dict raise nearly anything
        raise ValueError(f"{path} does not hold torchvision's weights of vgg19") from error
