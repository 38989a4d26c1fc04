"""Generators go on where they stopped, through a file that loads with weights_only."""

import random

import numpy as np
import pytest
import torch

from callbacks.rng_state import RngState, capture, restore


def draws() -> list[float]:
    return [random.random(), random.gauss(0, 1), float(np.random.randn()), *torch.rand(3).tolist()]


def test_a_captured_state_repeats_its_draws() -> None:
    draws()
    torch.save(capture(), "state.pt")
    first = draws()
    restore(torch.load("state.pt", weights_only=True))
    assert draws() == first


def test_what_is_drawn_between_epochs_is_taken_back() -> None:
    callback = RngState()
    callback.on_train_epoch_end(None, None)  # type: ignore[arg-type]
    saved = callback.state_dict()
    callback.on_train_batch_start(None, None, None, 0)  # type: ignore[arg-type]
    first = draws()
    resumed = RngState()
    resumed.load_state_dict(saved)
    torch.rand(5)
    resumed.on_train_batch_start(None, None, None, 0)  # type: ignore[arg-type]
    assert draws() == first


def test_a_checkpoint_between_epochs_holds_the_epochs_end() -> None:
    """Saved after a draw that the next epoch takes back, and again once it has been taken back."""
    callback = RngState()
    callback.on_train_epoch_end(None, None)  # type: ignore[arg-type]
    at_end = capture()["torch"]
    torch.rand(5)
    assert torch.equal(callback.state_dict()["ranks"][0]["torch"], at_end)
    callback.on_train_batch_start(None, None, None, 0)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), at_end) and callback.pending is None
    torch.rand(5)
    callback.on_train_batch_start(None, None, None, 1)  # type: ignore[arg-type]
    now = torch.get_rng_state()
    assert not torch.equal(now, at_end)  # taken back once
    assert torch.equal(callback.state_dict()["ranks"][0]["torch"], now)


def test_each_rank_gets_its_own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = RngState()
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    for count, expected in ((2, "b"), (1, None)):
        callback.pending = None
        callback.load_state_dict({"ranks": ["a", "b"][:count]})
        assert callback.pending == expected


def test_a_rank_that_the_checkpoint_does_not_know_keeps_its_state() -> None:
    callback = RngState()
    callback.load_state_dict({"ranks": []})
    assert callback.pending is None
