"""Distillation from the full-precision network (section 3.2 of the paper)."""

from torch import Tensor
from torch.nn import functional


def check_weights(lmbda: float, temperature: float) -> None:
    """Raise a ValueError for a distillation that cannot be."""
    if not 0.0 <= lmbda <= 1.0 or not temperature > 0.0:
        raise ValueError(f"lmbda must be in 0..1 and temperature above 0, got {lmbda} and {temperature}")


def distillation(
    logits: Tensor, teacher_logits: Tensor, label: Tensor, lmbda: float = 0.5, temperature: float = 1.0
) -> Tensor:
    """(1 - lambda) CE(label, s) + lambda T^2 CE(softmax(t / T), softmax(s / T)), in nats, mean over the batch.

    Args:
        logits: s, [N, K].
        teacher_logits: t, [N, K].
        label: int64 [N].
        lmbda: weight of the teacher, 0.5 in the authors' code.
        temperature: T, 1 in the authors' code.
    """
    hard = functional.cross_entropy(logits, label)
    target = functional.softmax(teacher_logits.float() / temperature, dim=1)
    soft = functional.cross_entropy(logits / temperature, target)
    return (1.0 - lmbda) * hard + lmbda * temperature**2 * soft
