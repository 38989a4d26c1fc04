"""The comparison of CPM's exact context model under other settings: what is equal, and that a difference is seen."""

import numpy as np
import pytest
import torch

from benchmarks.cpm_exactness import Found, Setting, check, in_groups
from modules.components.coding.rans import encode_intervals
from modules.cpm import exact_context
from modules.cpm.exact_context import ExactContext, intervals
from tests.modules.cpm.small import network

SHAPES = [(5, 4, 6), (5, 4, 6), (5, 4, 6), (5, 6, 4)]
IMAGES = [np.random.default_rng(i).integers(0, 6, shape, dtype=np.uint8) for i, shape in enumerate(SHAPES)]


@pytest.fixture(scope="module")
def context() -> ExactContext:
    return ExactContext.of(network())


def test_images_of_one_shape_go_together() -> None:
    assert [len(group) for group in in_groups(IMAGES, 2)] == [2, 1, 1]
    assert [len(group) for group in in_groups(IMAGES, 6)] == [3, 1]


def test_every_pass_gives_the_same_and_a_difference_is_counted(
    context: ExactContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_context, "VALUES_AT_ONCE", exact_context.VALUES_AT_ONCE)
    streams = [encode_intervals(*intervals(context, symbols)) for symbols in IMAGES]
    assert check(context, IMAGES, streams, Setting()) == Found(0, 0)
    assert check(context, IMAGES, streams, Setting(images=2)) == Found(0, 0)
    assert check(context, IMAGES, streams, Setting(one_channel=True)) == Found(0, 0)
    assert exact_context.VALUES_AT_ONCE == 1
    assert check(context, IMAGES, [streams[0][:-4], *streams[1:]], Setting()) == Found(1, 1)
    other = network()
    with torch.no_grad():
        other.context.last.bias[2] += 0.1
    for setting in (Setting(), Setting(images=3)):
        assert check(ExactContext.of(other), IMAGES, streams, setting) == Found(4, 4)
