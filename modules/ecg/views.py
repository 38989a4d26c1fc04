"""Views of a record in evaluation: it is stretched by some factors, and the probabilities are averaged over them.

A network trained with stretching takes a slower and a faster heart for the same rhythm, but not quite; the mean over a
few stretches is steadier than any one of them. Not in the paper.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modules.ecg.augmentation import REFERENCE_LENGTH, stretch
from modules.ecg.nets import CNN, CRNN, Classification

AS_IT_IS = (1.0,)


def check_views(views: Sequence[float], network: CNN | CRNN) -> tuple[float, ...]:
    """The views as they can be used with this network.

    Raises:
        ValueError: if there are none, one is outside of the stretches of training, from 2/3 to less than 4/3, or the
            network lets padding leak in, which then must be the same always.
    """
    if not views or not all(2 / 3 <= view < 4 / 3 for view in views):
        raise ValueError(f"views must be one or more stretches from 2/3 to less than 4/3, got {list(views)}")
    if tuple(views) != AS_IT_IS and not network.features.mask_padding:
        raise ValueError("views need a network with mask_padding: the others know only records of one padded size")
    return tuple(float(view) for view in views)


def outputs_of_views(
    classify: Callable[[Tensor, Tensor], Classification], signal: Tensor, length: Tensor, views: Sequence[float]
) -> list[Classification]:
    """What ``classify`` says of the signal [N, T] and its length [N], stretched by each view in turn."""
    outputs = []
    for view in views:
        new_lengths = torch.full_like(length, round(REFERENCE_LENGTH * view))
        stretched = (signal, length) if view == 1 else stretch(signal, length, new_lengths, limit=None)
        outputs.append(classify(*stretched))
    return outputs


def log_mean_probabilities(outputs: Sequence[Classification]) -> Tensor:
    """Logarithm [N, K] of the mean of the outputs' probabilities."""
    each = torch.stack([output.logits.log_softmax(1) for output in outputs])
    return each.logsumexp(0) - math.log(len(outputs))
