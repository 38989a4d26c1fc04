"""What is kept in selective compression, and what the networks see of labels. All on the device of the maps."""

import torch
from torch import Tensor
from torch.nn import functional

NUM_INSTANCE_IDS = 1 << 16
KEPT_SHARE = 0.25
BOX_SIDES = (1 / 8, 1 / 2)


def scene_channels(mask: Tensor, instance: Tensor, num_labels: int) -> Tensor:
    """One-hot labels and, as the last channel, instance edges: float [N, num_labels + 1, H, W].

    Args:
        mask: int64 [N, H, W]; ids of num_labels and above, 255 among them, have no channel.
        instance: int64 [N, H, W].
    """
    classes = torch.arange(num_labels, device=mask.device).view(1, -1, 1, 1)
    one_hot = mask[:, None] == classes
    return torch.cat([one_hot, instance_edges(instance)[:, None]], 1).float()


def instance_edges(instance: Tensor) -> Tensor:
    """bool [N, H, W]: pixels of which one of the four neighbours belongs to another instance."""
    edges = torch.zeros_like(instance, dtype=torch.bool)
    across = instance[:, :, 1:] != instance[:, :, :-1]
    along = instance[:, 1:] != instance[:, :-1]
    edges[:, :, 1:] |= across
    edges[:, :, :-1] |= across
    edges[:, 1:] |= along
    edges[:, :-1] |= along
    return edges


def cells_of(pixels: Tensor, stride: int) -> Tensor:
    """float [N, 1, H/stride, W/stride] in {0, 1}: a cell is kept if any of its pixels [N, H, W] is."""
    return functional.max_pool2d(pixels[:, None].float(), stride)


def pixels_of(cells: Tensor, stride: int) -> Tensor:
    """float [N, 1, H, W]: the pixels that kept cells cover."""
    return cells.repeat_interleave(stride, 2).repeat_interleave(stride, 3)


def random_instances(instance: Tensor, generator: torch.Generator) -> Tensor:
    """bool [N, H, W]: the pixels of a random quarter of each image's instances, at least one (random instance, RI).

    A region of a label that is not counted is an instance too. ``generator`` is one of the CPU.
    """
    ids = instance.clamp(0, NUM_INSTANCE_IDS - 1).flatten(1)
    scores = torch.rand(len(ids), NUM_INSTANCE_IDS, generator=generator).to(ids.device)
    present = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, ids, True)
    num_kept = (present.sum(1, keepdim=True) * KEPT_SHARE).ceil().long()
    ranked = scores.masked_fill(~present, 2.0).sort(1).values
    threshold = ranked.gather(1, num_kept - 1)
    return (scores.gather(1, ids) <= threshold).view_as(instance)


def random_boxes(images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """bool [N, height, width]: a box at a uniform position (random box, RB).

    The paper does not say how large; sides are uniform in 1/8..1/2 of the grid's.
    """
    keep = torch.zeros(images, height, width, dtype=torch.bool)
    for box in keep:
        low, high = BOX_SIDES
        rows, columns = (
            max(1, round(side * (low + (high - low) * float(torch.rand((), generator=generator)))))
            for side in (height, width)
        )
        top = int(torch.randint(height - rows + 1, (), generator=generator))
        left = int(torch.randint(width - columns + 1, (), generator=generator))
        box[top : top + rows, left : left + columns] = True
    return keep
