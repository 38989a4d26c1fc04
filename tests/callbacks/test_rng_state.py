"""Generators go on where they stopped, through a file that loads with weights_only."""

import random

import numpy as np
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


def test_a_rank_that_the_checkpoint_does_not_know_keeps_its_state() -> None:
    callback = RngState()
    callback.load_state_dict({"ranks": []})
    assert callback.pending is None
