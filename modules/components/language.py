"""Language models of Penn Treebank: a word LSTM, and the character-aware one of Kim et al. (2016).

Letters: T steps, N streams, L characters of a word, V words, E embedding, H hidden units, D layers. Both models map
a window and the state before it to logits of each next word and the state behind it. The state is the pair (h, c) of
the LSTM, [D, N, H] each; None starts with zeros. The caller detaches it between windows.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modules.components.options import at_least, within

State = tuple[Tensor, Tensor]


class LSTMLanguageModel(nn.Module):
    """Embedding, LSTM, linear layer, with dropout before, between and behind the LSTM's layers: 51.0 M parameters.

    Its paper (Furlanello et al. 2018, section 4) says a single layer of 1500 units, tied, and 52 M. One tied layer has
    33.0 M, one untied 48.0 M, two tied 51.0 M, hence the default of two. Sizes for 10,000 words. First weights:
    U(+-0.1) for words, zero output bias, U(+-1 / sqrt(H)) in the LSTM, as in the well-known public recipe with this
    size; the paper gives none.

    Args:
        vocabulary: V.
        units: E = H.
        layers: D.
        dropout: 0.65 in the paper.
        tied: one matrix for the embedding and the output layer.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(
        self,
        vocabulary: int = 10000,
        units: int = 1500,
        layers: int = 2,
        dropout: float = 0.65,
        tied: bool = True,
    ) -> None:
        super().__init__()
        at_least(1, vocabulary=vocabulary, units=units, layers=layers)
        within(0, 1, dropout=dropout)
        self.embedding = nn.Embedding(vocabulary, units)
        self.lstm = nn.LSTM(units, units, layers, dropout=dropout if layers > 1 else 0.0)
        self.decoder = nn.Linear(units, vocabulary)
        if tied:
            self.decoder.weight = self.embedding.weight
        self.dropout = nn.Dropout(dropout)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.lstm.reset_parameters()  # again, behind the words: so a seed has always given its weights
        if not tied:
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, tokens: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Words int64 [T, N] -> logits [T, N, V] of the word after each, and the state."""
        hidden, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return self.decoder(self.dropout(hidden)), state


class CharacterCNN(nn.Module):
    """A word's characters to a vector: convolutions of several widths, tanh, the maximum over the word.

    Windows start at each character and may reach over the end, where zeros stand. (In Kim et al. they end within the
    padded length, so that windows of nothing but padding take part and L has an influence; here it has none.)

    Args:
        characters: size of the alphabet with the padding, which is 0.
        embedding: of a character.
        filters: channels for each window width 1, 2, ...
    """

    def __init__(self, characters: int, embedding: int, filters: Sequence[int]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding, padding_idx=0)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(embedding, channels, width) for width, channels in enumerate(filters, 1)
        )
        self.num_features = sum(filters)

    def forward(self, chars: Tensor) -> Tensor:
        """Characters int64 [M, L] -> [M, sum of filters]; a row of padding alone gives -1."""
        behind = (chars == 0).unsqueeze(1)
        padded = nn.functional.pad(self.embedding(chars).mT, (0, len(self.convolutions) - 1))
        parts = []
        for convolution in self.convolutions:
            windows = convolution(padded)[..., : chars.shape[1]]
            parts.append(windows.masked_fill(behind, -math.inf).amax(2))
        return torch.tanh(torch.cat(parts, dim=1))  # monotone, so it may follow the maximum


class Highway(nn.Module):
    """t * relu(W x) + (1 - t) * x with the gate t = sigmoid(W_t x)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.transform = nn.Linear(features, features)
        self.gate = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.gate(x))
        return gate * torch.relu(self.transform(x)) + (1.0 - gate) * x


class CNNLSTMLanguageModel(nn.Module):
    """Kim et al.'s large model of characters, with the words as output: 19.4 M parameters at 10,000 words.

    Dropout acts between the layers of the LSTM and on its output, not on the words' vectors. First weights: U(+-0.05),
    the highways' gates around -2, so that at first words pass unchanged.

    Args:
        vocabulary: V, the words to predict.
        characters: size of the alphabet with padding (0) and the marks of a word's begin and end.
        embedding: of a character.
        filters: of the windows of 1, 2, ... characters.
        highways: layers between the convolutions and the LSTM.
        units: H.
        layers: D.
        dropout: 0.5 in Kim et al.

    Raises:
        ValueError: for sizes below 1.
    """

    def __init__(
        self,
        vocabulary: int = 10000,
        characters: int = 51,
        embedding: int = 15,
        filters: Sequence[int] = (50, 100, 150, 200, 200, 200, 200),
        highways: int = 2,
        units: int = 650,
        layers: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        at_least(1, vocabulary=vocabulary, characters=characters, embedding=embedding, units=units, layers=layers)
        at_least(0, highways=highways)
        within(0, 1, dropout=dropout)
        if not filters or min(filters) < 1:
            raise ValueError(f"filters must be at least 1 each, got {list(filters)}")
        self.words = CharacterCNN(characters, embedding, filters)
        features = self.words.num_features
        self.highways = nn.Sequential(*(Highway(features) for _ in range(highways)))
        self.lstm = nn.LSTM(features, units, layers, dropout=dropout if layers > 1 else 0.0)
        self.decoder = nn.Linear(units, vocabulary)
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -0.05, 0.05)
        with torch.no_grad():
            self.words.embedding.weight[0] = 0.0
            for layer in self.highways.modules():
                if isinstance(layer, Highway):
                    layer.gate.bias.sub_(2.0)

    def forward(self, chars: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Characters int64 [T, N, L] of each word -> logits [T, N, V] of the word after each, and the state."""
        steps, streams, _ = chars.shape
        words = self.highways(self.words(chars.flatten(0, 1)))
        hidden, state = self.lstm(words.view(steps, streams, -1), state)
        return self.decoder(self.dropout(hidden)), state
