"""Histograms against a plain one in Python's integers; intervals that share out all of 65536 in any state."""

import itertools

import numpy as np
import pytest
import torch

from modules.components.coding.logistic_mixture import INVERSE_SCALE, WEIGHT
from modules.components.coding.rans import TOTAL
from modules.pixel_mlp import histogram, wavefront
from modules.pixel_mlp.batched import BatchCoder, _order
from modules.pixel_mlp.histogram import (
    BINS,
    CONTEXTS,
    PERIOD,
    START,
    corrected,
    find_corrected,
    learn,
    mass_at,
    new_histograms,
    scale_step,
)
from modules.pixel_mlp.wavefront import encode_tile, predictors
from tests.modules.pixel_mlp.test_nets import network
from tests.modules.pixel_mlp.test_wavefront import pixels

MOST = 1 << 20
"""Values of one channel that a tile can have."""


class Plain:
    """What the docstring of histogram.py says, pixel by pixel."""

    def __init__(self):
        self.counts, self.curves, self.fell, self.random = {}, {}, {}, 12345

    def interval(self, channel, y, x, step, value, below, above):
        key = channel, step, self.fell.get((channel, y, x - 1), 1), self.fell.get((channel, y - 1, x), 1)
        counts = self.counts.setdefault(key, [15] * 32)
        curve = self.curves.setdefault(key, [2048 * k for k in range(33)])

        def edge(mass, value):
            k, rest = divmod(mass, 2048)
            return (curve[k] + (curve[k + 1] - curve[k]) * rest // 2048) * 65280 // 65536 + value

        start, stop = edge(below, value), 65536 if value == 255 else edge(above, value + 1)
        self.random = (1664525 * self.random + 1013904223) % 2**32
        self.fell[channel, y, x] = min(3 * (below + above) // 131072, 2)
        counts[(below + (above - below) * (self.random // 65536) // 65536) // 2048] += 1
        if (sum(counts) - 480) % 32 == 0:
            self.curves[key] = [sum(counts[:k]) * 65536 // sum(counts) for k in range(33)]
        return start, stop - start


@pytest.mark.parametrize("channels", [1, 3])
def test_intervals_are_those_of_plain_histograms(channels, monkeypatch):
    net, (height, width) = network(), (50, 61)
    image = pixels(4, height, width)[..., :channels].copy()
    image[10:20, 10:20] = np.random.default_rng(0).integers(0, 256, (10, 10, channels))
    kept = []
    monkeypatch.setattr(wavefront, "encode_intervals", lambda *all: kept.append(np.stack(all, 1)) or b"")
    encode_tile(image, predictors(net))
    coder = BatchCoder(net, torch.device("cpu"))
    order = _order(height, width, channels, coder.device)
    with torch.inference_mode():
        batch = torch.from_numpy(image).permute(2, 0, 1).expand(3, -1, -1)[None]
        below, above, step, value = coder._parts(batch, channels)[:, 0].flatten(1)[:, order].tolist()
    place = sorted((x + 4 * y, c, y, x) for c in range(channels) for y in range(height) for x in range(width))
    plain = Plain()
    expected = [
        plain.interval(c, y, x, *rest) for (_, c, y, x), *rest in zip(place, step, value, below, above, strict=True)
    ]
    assert kept[0].tolist() == [list(interval) for interval in expected]
    assert len(plain.curves) > 9 * channels and len(set(step)) > 2


def profiles() -> dict[str, np.ndarray]:
    """Counts beyond START, as extreme as a tile may have them."""
    bins, random = np.arange(BINS), np.random.default_rng(0)
    return {
        "none": 0 * bins,
        "first": MOST * (bins == 0),
        "last": MOST * (bins == BINS - 1),
        "one": MOST * (bins == 13),
        "alternating": MOST // (BINS // 2) * (bins % 2),
        "both ends": MOST // 2 * ((bins == 0) | (bins == BINS - 1)),
        "random": random.multinomial(MOST, random.dirichlet(np.full(BINS, 0.1))),
    }


def mixtures() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Weights, means and inverses: narrow, wide, far outside, heavy, many."""
    random = np.random.default_rng(1)
    narrow, wide, limit = INVERSE_SCALE.max(), INVERSE_SCALE.min(), wavefront.MEAN_LIMIT
    arrays = [
        ([1 << 14], [128 * 256], [narrow]),
        ([1 << 14], [128 * 256 + 128], [narrow]),
        ([1 << 14], [limit], [narrow]),
        ([1 << 14], [-limit], [narrow]),
        ([1 << 14], [-limit], [wide]),
        ([1 << 14] * 32, [0, 255 * 256] * 16, [narrow, wide] * 16),
        (random.choice(WEIGHT, 4), random.integers(0, 1 << 16, 4), random.choice(INVERSE_SCALE, 4)),
    ]
    weights_means_inverses = [tuple(np.array(a, np.int64) for a in one) for one in arrays]
    weights_means_inverses[-1][0][0] = 1 << 14
    return weights_means_inverses


@pytest.mark.parametrize("name", profiles())
def test_intervals_share_out_everything_in_any_state(name):
    counts, state = profiles()[name].copy(), new_histograms(1, 1, 1)
    left = int(counts.sum()) - 1
    if left > 0:  # one value short, which ``learn`` gives
        counts[counts.argmax()] -= 1
    state.counts[0, 0, 5] += counts.astype(np.int32)
    state.seen[0, 0, 5] = max(left, 0)
    last = int(counts.argmax())
    learn(state, 0, 0, 0, 0, 5, np.int64(last << 11), np.int64((last << 11) + 2048))
    curve = state.curves[0, 0, 5]
    assert curve[0] == 0 and curve[-1] == TOTAL and (np.diff(curve) >= 0).all()
    if left > 0:
        total = MOST + BINS * START
        assert curve.tolist() == [int(state.counts[0, 0, 5, :k].sum()) * TOTAL // total for k in range(BINS + 1)]
    for weights, means, inverses in mixtures():
        mixture = len(weights), weights, weights.sum(), means, inverses
        masses = [int(mass_at(value, *mixture)) for value in range(257)]
        assert masses[0] == 0 and masses[256] == TOTAL and max(masses[:256]) < TOTAL and masses == sorted(masses)
        edges = [int(corrected(mass, value, curve)) for value, mass in enumerate(masses)]
        assert edges[0] == 0 and edges[256] == TOTAL and min(b - a for a, b in itertools.pairwise(edges)) >= 1
        for slot in {0, TOTAL - 1, *range(7, TOTAL, 997), *edges[:256], *(edge - 1 for edge in edges[1:])}:
            value, start, stop, below, above = find_corrected(slot, *mixture, curve)
            assert start <= slot < stop and (start, stop) == (edges[value], edges[value + 1])
            assert (below, above) == (masses[value], masses[value + 1])


def test_every_value_falls_into_a_bin_and_a_third():
    state = new_histograms(2, 1, 1)
    for below, above in ((0, TOTAL), (TOTAL - 1, TOTAL), (0, 0), (0, 1), (TOTAL - 1, TOTAL - 1)):
        for _ in range(300):
            learn(state, 1, 2, 0, 0, CONTEXTS - 1, np.int64(below), np.int64(above))
            assert 0 <= state.thirds[1, 2, 1, 1] <= 2
    own = state.counts[1, 2, -1] - START
    assert own.sum() == 1500 == state.seen[1, 2, -1] and 900 < own[0] + own[-1] <= 1250 and own.min() >= 0
    assert own[1:-1].sum() > 200  # a value that fills everything may fall anywhere
    for untouched in (state.counts[0], state.counts[1, :2], state.counts[1, 2, :-1]):
        assert (untouched == START).all()
    assert state.random[0] == 12345 != state.random[1]


def test_a_curve_is_drawn_anew_after_each_period():
    state, changed = new_histograms(1, 1, 1), []
    before = state.curves.copy()
    for number in range(1, 3 * PERIOD + 1):
        learn(state, 0, 1, 0, 0, 7, np.int64(0), np.int64(1))
        if (state.curves != before).any():
            changed.append(number)
            before = state.curves.copy()
    assert changed == [PERIOD, 2 * PERIOD, 3 * PERIOD]


def test_scales_have_eight_steps():
    """Half a natural logarithm each, from below -1 to 2 and more; the sum over the weights, rounded down."""
    steps = [int(scale_step(np.int64(3 * scale + 2), np.int64(3))) for scale in range(-224, 289)]
    expected = [int(np.clip(np.floor(2 * scale / 32) + 3, 0, 7)) for scale in range(-224, 289)]
    assert steps == expected and set(steps) == set(range(histogram.SCALES))
