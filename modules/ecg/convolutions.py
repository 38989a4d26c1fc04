"""The convolutions that CNN and CRNN share (section 4).

Letters: N batch, C channels, T time steps, F frequency bins.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.components.options import at_least, within
from modules.ecg.spectrogram import BINS

Downsample = Literal["stride", "max_pool"]


def time_mask(steps: Tensor, size: int) -> Tensor:
    """[N, size] bool: True for the first ``steps`` of each row."""
    return torch.arange(size, device=steps.device) < steps.unsqueeze(1)


class ConvLayer(nn.Module):
    """Convolution, batch norm, ReLU, dropout; the last layer of a block halves time and frequency.

    Both ways of halving give size (n + 1) // 2, and output i is centred on input 2 i. (The authors' framework
    centres it on 2 i + 1 where the size is even, which would make a result depend on the padding.)
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        halve: Downsample | None,
        dropout: float,
        norm_momentum: float,
    ) -> None:
        super().__init__()
        stride = 2 if halve == "stride" else 1
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=norm_momentum)
        self.pool = nn.MaxPool2d(2, ceil_mode=True) if halve == "max_pool" else None
        self.dropout = nn.Dropout(dropout)
        self.halves = halve is not None
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, steps: Tensor, mask_padding: bool) -> tuple[Tensor, Tensor]:
        """[N, C, T, F] -> [N, C', T or (T + 1) // 2, ...] and its valid steps."""
        x = torch.relu(self.norm(self.convolved(x)))
        if mask_padding and self.pool is not None:
            x = x * time_mask(steps, x.shape[2])[:, None, :, None]
        if self.pool is not None:
            x = self.pool(x)
        if self.halves:
            steps = (steps + 1) // 2
        if mask_padding:
            x = x * time_mask(steps, x.shape[2])[:, None, :, None]
        return self.dropout(x), steps

    def convolved(self, x: Tensor) -> Tensor:
        """The convolution, with time and frequency exchanged where a CPU would get it wrong.

        In bfloat16 with AMX, the convolutions of PyTorch 2.15's oneDNN take in memory behind their input where a stride
        of 2 leaves one column of several rows: random numbers, or NaN. One row of several columns is right.
        """
        is_low = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        if not (x.is_cpu and is_low and self.conv.stride[1] == 2 and x.shape[3] <= 2):
            return self.conv(x)
        turned = functional.conv2d(
            x.transpose(2, 3), self.conv.weight.transpose(2, 3), self.conv.bias, 2, self.conv.padding
        )
        return turned.transpose(2, 3)


class ConvStack(nn.Module):
    """Blocks of convolutions: block b has width * b channels, its last layer width * (b + 1) and half the size.

    Args:
        num_blocks: B.
        layers_per_block: D.
        width: channels of the first block.
        kernel: side of all kernels.
        downsample: how a block's last layer halves: a stride (code) or max-pooling (paper).
        dropout: after every layer (paper); the code's never acts.
        mask_padding: zero the features behind a record's end after every layer. Off, padding leaks into the last
            frames, as in the code, and only a fixed padding gives one result.
        norm_momentum: of the batch norms' running statistics; the code's 0.01 lags behind weights that still move
            fast, so a training of a few epochs needs more.
        num_bins: F of the spectrogram.
    """

    def __init__(
        self,
        num_blocks: int,
        layers_per_block: int,
        width: int = 32,
        kernel: int = 5,
        downsample: Downsample = "stride",
        dropout: float = 0.0,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
        num_bins: int = BINS,
    ) -> None:
        super().__init__()
        if downsample not in ("stride", "max_pool"):
            raise ValueError(f"downsample must be stride or max_pool, got {downsample!r}")
        at_least(1, num_blocks=num_blocks, layers_per_block=layers_per_block, width=width, kernel=kernel)
        within(0, 1, dropout=dropout, norm_momentum=norm_momentum)
        self.mask_padding = mask_padding
        layers = []
        channels, bins = 1, num_bins
        for block in range(1, num_blocks + 1):
            for layer in range(layers_per_block):
                is_last = layer == layers_per_block - 1
                outputs = width * (block + is_last)
                halve = downsample if is_last else None
                layers.append(ConvLayer(channels, outputs, kernel, halve, dropout, norm_momentum))
                channels = outputs
            bins = (bins + 1) // 2
        self.layers = nn.ModuleList(layers)
        self.num_features = channels * bins
        """Per time step."""
        self.step = 2**num_blocks
        """Frames between two time steps."""

    def forward(self, spectrogram: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """[N, T, F] -> features [N, T', num_features], frequency outermost, and their valid steps [N]."""
        x, steps = spectrogram.unsqueeze(1), frames
        if self.mask_padding:
            x = x * time_mask(steps, x.shape[2])[:, None, :, None]
        x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x, steps = layer(x, steps, self.mask_padding)
        return x.permute(0, 2, 3, 1).flatten(2), steps
