"""A checkpoint that cannot be written leaves the older one; tests/test_kill_matrix.py kills whole runs."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from callbacks.whole_checkpoints import WholeCheckpoints

OLD, NEW = {"state": torch.zeros(3)}, {"state": torch.ones(3)}
PATH = Path("runs/checkpoints/last.ckpt")


def content() -> torch.Tensor:
    return torch.load(PATH, weights_only=True)["state"]


def files() -> list[str]:
    return sorted(path.name for path in PATH.parent.iterdir())


def test_a_checkpoint_replaces_the_older_one() -> None:
    for checkpoint in (OLD, NEW):
        WholeCheckpoints().save_checkpoint(checkpoint, str(PATH))
        assert torch.equal(content(), checkpoint["state"]) and files() == ["last.ckpt"]


def test_what_is_not_on_the_disk_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (steps.append("fsync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("replace"), replace(*names)))
    WholeCheckpoints().save_checkpoint(OLD, PATH)
    assert steps == ["fsync", "replace"]


def test_a_full_disk_leaves_the_older_one_and_no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    WholeCheckpoints().save_checkpoint(OLD, PATH)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"last\.ckpt") as caught:
        WholeCheckpoints().save_checkpoint(NEW, PATH)
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == str(PATH)
    assert torch.equal(content(), OLD["state"]) and files() == ["last.ckpt"]


def test_a_kill_while_writing_leaves_the_older_one_and_the_next_one_tidies_up(monkeypatch: pytest.MonkeyPatch) -> None:
    WholeCheckpoints().save_checkpoint(OLD, PATH)

    def killed(file: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            WholeCheckpoints().save_checkpoint(NEW, PATH)
    assert torch.equal(content(), OLD["state"]) and files() == [".last.ckpt.part", "last.ckpt"]
    WholeCheckpoints().save_checkpoint(NEW, PATH)
    assert torch.equal(content(), NEW["state"]) and files() == ["last.ckpt"]


def test_remote_paths_are_lightnings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(TorchCheckpointIO, "save_checkpoint", lambda self, *arguments: given.append(arguments))
    WholeCheckpoints().save_checkpoint(OLD, "s3://bucket/last.ckpt")
    assert given == [(OLD, "s3://bucket/last.ckpt", None)]
