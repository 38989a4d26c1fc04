"""The CNN and the CRNN (section 4 of the paper; facts of the authors' code in the README).

Letters: N batch, C channels, T time steps, F frequency bins, K classes. The networks take a log-spectrogram
[N, T, F] and the number of its valid frames [N]; whatever stands behind a record's end has no influence, since
features are set to zero there after every layer (``mask_padding``).
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from modules.components.options import at_least, within
from modules.ecg.convolutions import ConvStack, Downsample, time_mask

NUM_CLASSES = 4


class Classification(NamedTuple):
    logits: Tensor
    """[N, K]."""
    over_time: Tensor
    """[N, T', K]: the logits that each time step alone would give; zero behind the record's end."""
    steps: Tensor
    """[N] int64: valid time steps of ``over_time``."""


def masked_mean(x: Tensor, steps: Tensor) -> Tensor:
    """Mean [N, C] over the valid time steps of [N, T, C]."""
    return (x * time_mask(steps, x.shape[1]).unsqueeze(2)).sum(1) / steps.unsqueeze(1)


def reverse_by_length(x: Tensor, steps: Tensor) -> Tensor:
    """[N, T, C] with the valid steps in reverse order and the others where they were; its own inverse."""
    position = torch.arange(x.shape[1], device=x.device)
    mirrored = torch.where(time_mask(steps, x.shape[1]), steps.unsqueeze(1) - 1 - position, position)
    return x.gather(1, mirrored.unsqueeze(2).expand_as(x))


class CNN(nn.Module):
    """24 convolutions, the mean over time, one linear layer: 9.84 M parameters.

    The mean of the classifier's output over time is the classifier's output of the mean, so every step has logits of
    its own and their mean is the result.

    Args:
        num_blocks, layers_per_block, width, kernel, downsample, dropout, mask_padding, norm_momentum: as in
            ``ConvStack``.
        num_classes: K.
    """

    def __init__(
        self,
        num_blocks: int = 6,
        layers_per_block: int = 4,
        width: int = 32,
        kernel: int = 5,
        downsample: Downsample = "stride",
        dropout: float = 0.0,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
        num_classes: int = NUM_CLASSES,
    ) -> None:
        super().__init__()
        at_least(1, num_classes=num_classes)
        self.features = ConvStack(
            num_blocks, layers_per_block, width, kernel, downsample, dropout, mask_padding, norm_momentum
        )
        self.classifier = nn.Linear(self.features.num_features, num_classes)
        self.step = self.features.step

    def forward(self, spectrogram: Tensor, frames: Tensor) -> Classification:
        """[N, T, F] and valid frames [N] -> logits and their course."""
        features, steps = self.features(spectrogram, frames)
        with torch.autocast(features.device.type, enabled=False):
            over_time = self.classifier(features.float())
        over_time = over_time * time_mask(steps, over_time.shape[1]).unsqueeze(2)
        return Classification(over_time.sum(1) / steps.unsqueeze(1), over_time, steps)


class DirectedLSTM(nn.Module):
    """A stack of LSTM layers in one direction of time, with forget bias 1 and dropout after every layer."""

    def __init__(self, inputs: int, units: int, num_layers: int, dropout: float, backward: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, units, num_layers, batch_first=True, dropout=dropout if num_layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.backward_in_time = backward
        for name, parameter in self.lstm.named_parameters():
            if "weight" in name:
                for gate in parameter.chunk(4):  # one matrix of all gates would get too small a range
                    nn.init.xavier_uniform_(gate)
            else:
                nn.init.zeros_(parameter)
            if "bias_ih" in name:
                nn.init.ones_(parameter[units : 2 * units])

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        """[N, T, C] -> [N, T, units] in the order of time, zero behind the end.

        A step depends on those before it (after it, backward) within the record alone.
        """
        if self.backward_in_time:
            x = reverse_by_length(x, steps)
        output = self.dropout(self.lstm(x)[0])
        if self.backward_in_time:
            output = reverse_by_length(output, steps)
        return output * time_mask(steps, output.shape[1]).unsqueeze(2)


class CRNN(nn.Module):
    """24 convolutions and two separate LSTM stacks, one in each direction: 4.85 M + 0.79 M parameters.

    Training starts with another head on the same classifier: mean over time, dense 200, ReLU (0.10 M). ``head``
    and ``train_features`` say which head is in use and whether the convolutions learn; a callback sets them for each
    phase of training. The head in use is part of the state, so a checkpoint predicts with the head it was made with.

    Args:
        num_blocks, layers_per_block, width, kernel, downsample, dropout, mask_padding, norm_momentum: as in
            ``ConvStack``.
        units: of each LSTM layer.
        lstm_layers: in each direction.
        lstm_dropout: after every LSTM layer while training. (The code's is on in evaluation too.)
        summary: of the LSTM's outputs: their ``mean`` over time (code) or the ``last`` of each direction (paper).
        head: in use at first: ``mean`` or ``lstm``.
        num_classes: K.
    """

    uses_lstm: Tensor

    def __init__(
        self,
        num_blocks: int = 4,
        layers_per_block: int = 6,
        width: int = 32,
        kernel: int = 5,
        downsample: Downsample = "stride",
        dropout: float = 0.0,
        mask_padding: bool = True,
        norm_momentum: float = 0.01,
        units: int = 100,
        lstm_layers: int = 3,
        lstm_dropout: float = 0.15,
        summary: Literal["mean", "last"] = "mean",
        head: Literal["mean", "lstm"] = "lstm",
        num_classes: int = NUM_CLASSES,
    ) -> None:
        super().__init__()
        if summary not in ("mean", "last"):
            raise ValueError(f"summary must be mean or last, got {summary!r}")
        at_least(1, units=units, lstm_layers=lstm_layers, num_classes=num_classes)
        within(0, 1, lstm_dropout=lstm_dropout)
        self.features = ConvStack(
            num_blocks, layers_per_block, width, kernel, downsample, dropout, mask_padding, norm_momentum
        )
        inputs = self.features.num_features
        self.dense = nn.Sequential(nn.Linear(inputs, 2 * units), nn.ReLU())
        self.forward_lstm = DirectedLSTM(inputs, units, lstm_layers, lstm_dropout, backward=False)
        self.backward_lstm = DirectedLSTM(inputs, units, lstm_layers, lstm_dropout, backward=True)
        self.classifier = nn.Linear(2 * units, num_classes)
        self.summary = summary
        self.step = self.features.step
        self.train_features = True
        self.register_buffer("uses_lstm", torch.tensor(True))
        self.head = head
        self.register_load_state_dict_post_hook(read_head)

    @property
    def head(self) -> str:
        """``mean`` or ``lstm``."""
        return self._head  # not the buffer: a step that looks at it would wait for the device

    @head.setter
    def head(self, name: str) -> None:
        if name not in ("mean", "lstm"):
            raise ValueError(f"head must be mean or lstm, got {name!r}")
        self.uses_lstm.fill_(name == "lstm")
        self._head = name

    def forward(self, spectrogram: Tensor, frames: Tensor) -> Classification:
        """[N, T, F] and valid frames [N] -> logits and their course."""
        features, steps = self.features(spectrogram, frames)
        if not self.train_features:
            features = features.detach()
        if self.head == "mean":
            summary, hidden = self.dense(masked_mean(features, steps)), self.dense(features)
        else:
            hidden = torch.cat([self.backward_lstm(features, steps), self.forward_lstm(features, steps)], dim=2)
            summary = masked_mean(hidden, steps) if self.summary == "mean" else last_outputs(hidden, steps)
        over_time = self.classifier(hidden) * time_mask(steps, hidden.shape[1]).unsqueeze(2)
        return Classification(self.classifier(summary).float(), over_time.float(), steps)


def read_head(network: CRNN, incompatible_keys: object) -> None:
    """After loading: the head in use as the state has it."""
    network.head = "lstm" if network.uses_lstm else "mean"


def last_outputs(hidden: Tensor, steps: Tensor) -> Tensor:
    """[N, 2 U] of [N, T, 2 U]: the backward half ends at step 0, the forward half at the last valid step."""
    backward, forward = hidden.chunk(2, dim=2)
    last = (steps - 1)[:, None, None].expand(-1, 1, forward.shape[2])
    return torch.cat([backward[:, 0], forward.gather(1, last).squeeze(1)], dim=1)
