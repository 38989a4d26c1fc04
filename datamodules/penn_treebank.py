"""Penn Treebank as Mikolov et al. (2010) prepared it: a sentence a line, lower case, 10,000 words with <unk>, <eos>."""

from collections import Counter
from pathlib import Path
from typing import Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.loading.loaders import ResumableDataLoader, data_root, warn
from datamodules.text.token_streams import evaluation_windows, training_windows
from modules.components.options import at_least

EOS = "<eos>"
SPLITS = {"train": "train", "val": "valid", "test": "test"}
TOKENS = {
    "words": {"train": 929_589, "val": 73_760, "test": 82_430},
    "characters": {"train": 5_017_482, "val": 393_042, "test": 442_423},
}
"""Tokens of Mikolov's files, one <eos> a line included; with other counts a perplexity cannot be compared."""
PADDING, BEGIN, END = 0, 1, 2
"""Ids that ``chars`` begins with; the characters follow."""
HOW_TO_GET = (
    "Expected are <root>/ptb/ptb.train.txt, ptb.valid.txt and ptb.test.txt, the folder simple-examples/data of "
    "Mikolov's RNNLM examples. Set the root by root or PARSIMONY_DATA."
)
Level = Literal["words", "characters"]


def read_tokens(file: Path, level: Level) -> list[str]:
    """All tokens of a file: of each line its words, or its characters with one space between words, then ``<eos>``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not text, is empty, or has an empty line or ``<eos>`` in it.
    """
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}. {HOW_TO_GET}")
    try:
        lines = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not text in UTF-8: {error}. {HOW_TO_GET}") from error
    tokens: list[str] = []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            raise ValueError(f"{file}, line {number} is empty; expected is one sentence a line")
        if EOS in words:
            raise ValueError(f"{file}, line {number}: {EOS} must not be in the text; it is added to every line")
        tokens += words if level == "words" else " ".join(words)
        tokens.append(EOS)
    return tokens


def encode(tokens: list[str], ids: dict[str, int], file: Path) -> Tensor:
    """Ids int64 [L].

    Raises:
        ValueError: naming file, line and token, if one has no id.
    """
    if unknown := set(tokens) - set(ids):
        place = next(i for i, token in enumerate(tokens) if token in unknown)
        raise ValueError(
            f"{file}, line {tokens[:place].count(EOS) + 1}: {tokens[place]!r} does not occur in the training text; "
            "are the three files of one set?"
        )
    return torch.tensor([ids[token] for token in tokens])


def spell(vocabulary: list[str]) -> tuple[Tensor, list[str]]:
    """The characters of each word between BEGIN and END, and the characters by id.

    Returns:
        int64 [V, C], C = longest word + 2, filled up with PADDING; a list that starts with three names for the marks.
        ``<unk>`` and ``<eos>`` are spelt like any word.
    """
    characters = ["<padding>", "<begin>", "<end>", *sorted(set("".join(vocabulary)))]
    ids = {character: i for i, character in enumerate(characters)}
    table = torch.full((len(vocabulary), max(map(len, vocabulary)) + 2), PADDING)
    for row, word in zip(table, vocabulary, strict=True):
        row[: len(word) + 2] = torch.tensor([BEGIN, *(ids[character] for character in word), END])
    return table, characters


class PennTreebank(LightningDataModule):
    """Windows of parallel streams, to predict each next token with a state that is carried along.

    Layout: ``<root>/<folder>/ptb.{train,valid,test}.txt``. The vocabulary is the training text's, most frequent
    first, ties by the alphabet; ``vocabulary`` lists it after setup, and ``characters`` those of ``chars``.

    Batches: ``tokens`` and ``targets`` int64 [T, N], where targets that fill up are -100 and must be ignored (a
    window may have no other: sum losses and count targets, do not average averages); ``chars`` int64 [T, N, C] on
    request; ``reset``, a bool: the state starts anew before this window. It is true for the first window of an
    epoch, of every validation and test, and for the first one after a resume in the middle of an epoch, which goes on
    with the next window but without the state; a resume from an epoch's end is exact.

    Evaluation counts every token of the text exactly once, whatever the batch size, window and number of processes.
    With ``val_batch_size`` 1 the text is read in order with one state; N streams lose the context at N - 1 places,
    and nothing else. Under DDP each process has its share of the streams; those that are left without one get as many
    windows in which nothing counts, so totals of losses and counts over all processes are those of one.

    Args:
        root: holds the folder; PARSIMONY_DATA or ``data`` if not given.
        folder: of the three files, below the root.
        level: whether a token is a word or a character.
        chars: whether batches hold the characters of each word.
        batch_size: N, streams of the training text on all devices together; fewer than N tokens are left out at its
            end.
        val_batch_size: streams of the validation and test text, on all devices together.
        window: T, steps that gradients reach back; the last window may be shorter.

    Raises:
        FileNotFoundError: at setup, if a file is missing.
        ValueError: for a bad argument or file, and if ``batch_size`` is no multiple of the number of processes.
    """

    def __init__(
        self,
        root: str | None = None,
        folder: str = "ptb",
        level: Level = "words",
        chars: bool = False,
        batch_size: int = 32,
        val_batch_size: int = 1,
        window: int = 35,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        at_least(1, batch_size=batch_size, val_batch_size=val_batch_size, window=window)
        if level not in TOKENS:
            raise ValueError(f"level must be words or characters, got {level!r}")
        if chars and level == "characters":
            raise ValueError("chars are the characters of words: they need level words")
        self.folder = data_root(root) / folder
        self.level, self.chars = level, chars
        self.batch_size, self.val_batch_size, self.window = batch_size, val_batch_size, window
        self.vocabulary: list[str] = []
        self.characters: list[str] = []
        self.spelling: Tensor | None = None
        self.texts: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        if self.texts:
            return
        files = {split: self.folder / f"ptb.{name}.txt" for split, name in SPLITS.items()}
        tokens = {split: read_tokens(file, self.level) for split, file in files.items()}
        counts = Counter(tokens["train"])
        self.vocabulary = sorted(counts, key=lambda token: (-counts[token], token))
        ids = {token: i for i, token in enumerate(self.vocabulary)}
        self.texts = {split: encode(part, ids, files[split]) for split, part in tokens.items()}
        self.eos = ids[EOS]
        if self.chars:
            self.spelling, self.characters = spell(self.vocabulary)
        for split, expected in TOKENS[self.level].items():
            if len(tokens[split]) != expected:
                warn(f"{files[split]} has {len(tokens[split]):,} {self.level}, Mikolov's {expected:,}: not comparable")

    def train_dataloader(self) -> ResumableDataLoader:
        return training_windows(
            self.texts["train"], self.eos, self.batch_size, self.window, self.trainer, self.spelling
        )

    def val_dataloader(self) -> DataLoader:
        return self._evaluation("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation("test")

    def _evaluation(self, split: str) -> DataLoader:
        return evaluation_windows(
            self.texts[split], self.eos, self.val_batch_size, self.window, self.trainer, self.spelling
        )
