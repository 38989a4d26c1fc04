"""What the code of one image tells of the next: frequencies of symbols given the cells to the left and above.

A context is 6 * left + above, each the symbol 0..4 of that cell in the same channel, or 5 outside the image or the
mask. The network keeps these frequencies as its ``prior``, and symbol_coder.py starts from them.
"""

import torch
from torch import Tensor
from torch.nn import functional

NUM_SYMBOLS = 5
OUTSIDE = 5
NUM_CONTEXTS = 36


def contexts(symbols: Tensor, keep: Tensor | None = None) -> Tensor:
    """int64 [N, C, h, w] of symbols [N, C, h, w]; ``keep`` [N, 1, h, w] in {0, 1}."""
    known = symbols if keep is None else torch.where(keep.bool(), symbols, OUTSIDE)
    padded = functional.pad(known, (1, 0, 1, 0), value=OUTSIDE)
    left, above = padded[:, :, 1:, :-1], padded[:, :, :-1, 1:]
    return 6 * left + above


def symbol_frequencies(symbols: Tensor, keep: Tensor | None = None) -> Tensor:
    """float32 [C, 36, 5]: shares of (context, symbol) among all kept cells of a channel; 0 if none is kept."""
    num_channels = symbols.shape[1]
    channel = torch.arange(num_channels, device=symbols.device).view(1, -1, 1, 1)
    index = (channel * NUM_CONTEXTS + contexts(symbols, keep)) * NUM_SYMBOLS + symbols
    weight = (torch.ones_like(symbols[:, :1]) if keep is None else keep).float().expand(symbols.shape)
    counts = torch.zeros(num_channels * NUM_CONTEXTS * NUM_SYMBOLS, device=symbols.device)
    counts.scatter_add_(0, index.flatten(), weight.flatten())
    return counts.view(num_channels, NUM_CONTEXTS, NUM_SYMBOLS) / weight[:, 0].sum().clamp(min=1.0)
