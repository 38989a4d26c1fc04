"""Narrow networks and pictures for the tests of CPM."""

import numpy as np
import torch
from PIL import Image

from modules.cpm.nets import CPMNet

SMALL = {"channels": 5, "width": 6, "groups": 1, "units": 1, "features": 7}


def network(seed: int = 0, **options: object) -> CPMNet:
    """Untrained, with codes of many symbols and a context model whose logits and biases are far from 0."""
    torch.manual_seed(seed)
    made = CPMNet(**{**SMALL, **options})  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in made.context.named_parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.2 if "bias" in name else 0.3))
        made(picture_batch(4, 64, 64))  # running statistics of the norms, as far as one step takes them
    return made.eval()


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise, uint8 [H, W, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def picture_batch(number: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """uint8 values in float32 [N, 3, H, W]."""
    pictures = np.stack([picture(seed + i, height, width) for i in range(number)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().contiguous()
