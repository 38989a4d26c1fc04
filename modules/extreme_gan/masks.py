"""What is kept in selective compression, and what the networks see of labels. All on the device of the maps."""

import torch
from torch import Tensor
from torch.nn import functional

NUM_INSTANCE_IDS = 1 << 16
KEPT_SHARE = 0.25
BOX_SIDES = (1 / 8, 1 / 2)
MASK = (1 << 32) - 1


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


def scrambled(numbers: Tensor, seed: int) -> Tensor:
    """Integers 0..2^32 - 1 that look drawn at random, for integers of the same range: a hash of them and the seed.

    Counted instead of drawn: the same on every device, and nothing travels between host and device for it. The
    steps are those of a 32-bit finaliser (xor with a shift, multiplication by an odd number, twice).
    """
    x = (numbers ^ (seed * 0x9E3779B1 & MASK)) & MASK
    for multiplier in (0x7FEB352D, 0x846CA68B):
        x = ((x ^ (x >> 16)) * multiplier) & MASK
    return x ^ (x >> 15)


def random_instances(instance: Tensor, seed: int) -> Tensor:
    """bool [N, H, W]: the pixels of a random quarter of each image's instances, at least one (random instance, RI).

    A region of a label that is not counted is an instance too.
    """
    ids = instance.clamp(0, NUM_INSTANCE_IDS - 1).flatten(1)
    numbers = torch.arange(len(ids) * NUM_INSTANCE_IDS, device=ids.device).view(len(ids), -1)
    scores = scrambled(numbers, seed)
    present = torch.zeros_like(scores, dtype=torch.bool).scatter_(1, ids, True)
    num_kept = (present.sum(1, keepdim=True) * KEPT_SHARE).ceil().long()
    ranked = scores.masked_fill(~present, MASK + 1).sort(1).values
    threshold = ranked.gather(1, num_kept - 1)
    return (scores.gather(1, ids) <= threshold).view_as(instance)


def random_boxes(images: int, height: int, width: int, seed: int, device: torch.device | str = "cpu") -> Tensor:
    """bool [N, height, width]: a box at a uniform position (random box, RB).

    The paper does not say how large; sides are uniform in 1/8..1/2 of the grid's.
    """
    drawn = scrambled(torch.arange(4 * images, device=device).view(4, images, 1), seed)
    along_rows = _random_interval(height, drawn[0], drawn[1])
    along_columns = _random_interval(width, drawn[2], drawn[3])
    return along_rows[:, :, None] & along_columns[:, None, :]


def _random_interval(length: int, size: Tensor, position: Tensor) -> Tensor:
    """bool [N, length] from integers 0..2^32 - 1, [N, 1]: one stretch of each row."""
    low, high = BOX_SIDES
    side = (length * (low + (high - low) * size.double() / (MASK + 1))).round().long().clamp(min=1)
    first = position * (length - side + 1) >> 32
    places = torch.arange(length, device=size.device)
    return (places >= first) & (places < first + side)
