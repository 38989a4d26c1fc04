"""A long text as parallel streams in windows, so that a recurrent state can be carried from window to window.

Letters: L tokens of the text, N streams, S tokens of each, T steps of a window.

The text is cut into N runs of S tokens side by side, [S, N], and handed out T rows at a time::

    a b c d e f g h i j, N = 2, T = 3      tokens  . e    targets  a f     tokens  c h    targets  d i
    (. stands for <eos>)                           a f             b g             d i             e j
                                                   b g             c h

Every token of a run is a target, the first of the text included: its input is the token before it, ``<eos>`` before
the first. So no target is lost at a cut or between windows.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.loaders import (
    EpochSampler,
    EvaluationSampler,
    ResumableDataLoader,
    evaluation_loader,
    rank_and_world,
    training_loader,
)

IGNORED = -100
"""Target that does not count, as in ``torch.nn.functional.cross_entropy``."""


class Streams(NamedTuple):
    """Runs of a text side by side."""

    tokens: Tensor
    """int64 [S, N], the inputs."""
    targets: Tensor
    """int64 [S, N], the tokens that follow them."""

    def share(self, rank: int, world_size: int) -> "Streams":
        """The streams of one process: rank, rank + world, ..."""
        return Streams(*(part[:, rank::world_size].contiguous() for part in self))


def inputs(text: Tensor, before: int) -> Tensor:
    """Token ``before`` and the text without its last: what each token of the text [L] is predicted from."""
    return torch.cat([text.new_tensor([before]), text[:-1]])


def training_streams(text: Tensor, before: int, count: int) -> Streams:
    """``count`` streams of floor(L / count) tokens; fewer than ``count`` tokens at the text's end are left out.

    Raises:
        ValueError: if the text has fewer tokens than that.
    """
    if len(text) < count:
        raise ValueError(f"{len(text)} tokens cannot be cut into {count} streams: lower batch_size")
    used = len(text) // count * count
    return Streams(*(part[:used].view(count, -1).T for part in (inputs(text, before), text)))


def evaluation_streams(text: Tensor, before: int, count: int, world_size: int = 1) -> Streams:
    """``count`` streams of ceil(L / count) tokens that hold every token of the text as a target exactly once.

    The rest is filled up with targets IGNORED: the end of the last stream and, where ``world_size`` does not divide
    ``count``, whole streams, so that all processes have equally many.
    """
    length = -(-len(text) // count)
    columns = -(-count // world_size) * world_size
    missing = length * columns - len(text)
    tokens = torch.cat([inputs(text, before), text.new_full([missing], before)])
    targets = torch.cat([text, text.new_full([missing], IGNORED)])
    return Streams(*(part.view(columns, length).T for part in (tokens, targets)))


class Windows(Dataset):
    """Windows of streams in order; a draw is (window, reset) or a window, which resets if it is the first.

    Args:
        streams: of this process.
        window: T; the last window may be shorter.
        spelling: int64 [V, C], the characters of each token; None leaves ``chars`` out.
    """

    def __init__(self, streams: Streams, window: int, spelling: Tensor | None = None) -> None:
        self.streams, self.window, self.spelling = streams, window, spelling

    def __len__(self) -> int:
        return -(-len(self.streams.tokens) // self.window)

    def __getitem__(self, draw: tuple[int, bool] | int) -> dict[str, Any]:
        """``tokens`` and ``targets`` int64 [T, N], ``chars`` int64 [T, N, C], and the bool ``reset``."""
        number, reset = draw if isinstance(draw, tuple) else (draw, draw == 0)
        rows = slice(number * self.window, (number + 1) * self.window)
        tokens, targets = (part[rows].clone() for part in self.streams)
        batch = {"tokens": tokens, "targets": targets, "reset": reset}
        if self.spelling is not None:
            batch["chars"] = self.spelling[tokens]
        return batch


class WindowSampler(EpochSampler):
    """(window, reset) in order, for every rank all windows of its streams; the first one that is drawn resets."""

    def __init__(self, windows: Windows) -> None:
        super().__init__(windows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter([(number, number == self.start) for number in range(self.start, len(self))])


def only_item(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A window is a batch already."""
    return items[0]


def training_windows(
    text: Tensor, before: int, count: int, window: int, trainer: Trainer | None, spelling: Tensor | None = None
) -> ResumableDataLoader:
    """All windows of this process's share of ``count`` training streams.

    Raises:
        ValueError: if the number of processes does not divide ``count``.
    """
    rank, world_size = rank_and_world(trainer)
    if count % world_size:
        raise ValueError(
            f"batch_size {count}, the number of streams on all devices together, must be a multiple of the "
            f"{world_size} processes"
        )
    windows = Windows(training_streams(text, before, count).share(rank, world_size), window, spelling)
    return training_loader(windows, 1, 0, 0, trainer, sampler=WindowSampler(windows), collate_fn=only_item)


def evaluation_windows(
    text: Tensor, before: int, count: int, window: int, trainer: Trainer | None, spelling: Tensor | None = None
) -> DataLoader:
    """All windows of this process's share of ``count`` evaluation streams; as many on every process."""
    rank, world_size = rank_and_world(trainer)
    windows = Windows(evaluation_streams(text, before, count, world_size).share(rank, world_size), window, spelling)
    return evaluation_loader(windows, 1, 0, trainer, sampler=EvaluationSampler(windows), collate_fn=only_item)
