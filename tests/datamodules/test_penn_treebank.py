"""Mikolov's files: what is read, counted, spelt and refused."""

import logging
import os
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from datamodules.penn_treebank import TOKENS, PennTreebank

ROOT = Path(__file__).parents[2]
TEXTS = {"train": " the cat N <unk> \n a cat \n the end \n", "valid": " a cat \n", "test": " the <unk> \n end \n"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "ptb").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "ptb" / f"ptb.{name}.txt").write_text(text)
    return tmp_path


def module(root: Path, **options: object) -> PennTreebank:
    data = PennTreebank(root=str(root), **{"batch_size": 2, "window": 3, **options})  # type: ignore[arg-type]
    data.setup("fit")
    return data


def test_words(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = module(root)
    assert data.vocabulary == ["<eos>", "cat", "the", "<unk>", "N", "a", "end"]
    read = " ".join(data.vocabulary[i] for i in data.texts["train"])
    assert read == "the cat N <unk> <eos> a cat <eos> the end <eos>"
    loader = data.test_dataloader()
    words = [[data.vocabulary[i] for i in batch["tokens"][:, 0]] for batch in loader]
    assert words == [["<eos>", "the", "<unk>"], ["<eos>", "end"]]
    assert "ptb.train.txt has 11 words, Mikolov's 929,589: not comparable" in caplog.text
    assert [len(list(loader)) for loader in (data.train_dataloader(), data.val_dataloader())] == [2, 1]


def test_characters(root: Path) -> None:
    data = module(root, level="characters", batch_size=1, window=100)
    [batch] = data.val_dataloader()
    assert [data.vocabulary[i] for i in batch["targets"][:, 0]] == [*"a cat", "<eos>"]
    assert data.vocabulary[0] == " " and set(data.vocabulary) == {*" thecatN<unk>and", "<eos>"}
    assert "chars" not in batch


def test_spelling(root: Path) -> None:
    data = module(root, chars=True)
    batch = next(iter(data.train_dataloader()))
    tokens, chars = batch["tokens"], batch["chars"]
    assert chars.shape == (*tokens.shape, 7) and chars.dtype == torch.int64
    assert data.characters[:3] == ["<padding>", "<begin>", "<end>"]
    for token, ids in zip(tokens.flatten(), chars.flatten(0, 1), strict=True):
        word = data.vocabulary[token]
        expected = ["<begin>", *word, "<end>"] + ["<padding>"] * (5 - len(word))
        assert [data.characters[i] for i in ids] == expected


def test_mikolovs_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shared = Path(os.environ.get("PARSIMONY_SHARED", ROOT.parent / "shared"))
    archive = shared / "data" / "ptb.zip"
    if not archive.is_file():
        pytest.skip(f"no {archive}: set PARSIMONY_SHARED to the folder of the shared data")
    with zipfile.ZipFile(archive) as files:
        for name in TEXTS:
            files.extract(f"ptb.{name}.txt", tmp_path / "ptb")
    with caplog.at_level(logging.WARNING):
        data = module(tmp_path, chars=True, batch_size=20, window=35)
    assert {split: len(text) for split, text in data.texts.items()} == TOKENS["words"]
    assert len(data.vocabulary) == 10_000 and data.vocabulary[:4] == ["the", "<unk>", "<eos>", "N"]
    assert data.spelling is not None and data.spelling.shape == (10_000, 21)
    tested = torch.cat([batch["targets"] for batch in data.test_dataloader()]).flatten()
    words = (tmp_path / "ptb" / "ptb.test.txt").read_text().replace("\n", " <eos> ").split()
    assert [data.vocabulary[i] for i in tested] == words
    characters = module(tmp_path, level="characters")
    assert {split: len(text) for split, text in characters.texts.items()} == TOKENS["characters"]
    assert len(characters.vocabulary) == 50 and caplog.text == ""
    assert Counter(words)["<eos>"] == 3761


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("valid", " a dog \n", r"ptb\.valid\.txt, line 1: 'dog' does not occur in the training text"),
        ("test", " a cat \n the the mouse \n", r"ptb\.test\.txt, line 2: 'mouse'"),
        ("train", " a cat \n\n the \n", "line 2 is empty; expected is one sentence a line"),
        ("train", "", "line 1 is empty"),
        ("train", " a cat <eos> \n", "line 1: <eos> must not be in the text"),
        ("train", b"\xff\xfe\x00", "is not text in UTF-8"),
    ],
)
def test_texts_that_are_refused(root: Path, name: str, text: str | bytes, message: str) -> None:
    file = root / "ptb" / f"ptb.{name}.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        module(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"val_batch_size": 0}, "val_batch_size must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"level": "bytes"}, "level must be words or characters, got 'bytes'"),
        ({"level": "characters", "chars": True}, "they need level words"),
    ],
)
def test_mistakes(root: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(root, **options)


def test_a_missing_file(root: Path) -> None:
    (root / "ptb" / "ptb.valid.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*ptb\.valid\.txt.*Mikolov.*PARSIMONY_DATA"):
        module(root)
