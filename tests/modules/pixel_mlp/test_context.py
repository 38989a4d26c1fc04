"""Contexts against loops written from the docstring, and causality."""

import numpy as np
import torch

from modules.pixel_mlp.context import (
    COMPRESSED,
    LIMIT,
    LOG_ACTIVITY,
    NUM_DIFFERENCES,
    OFFSETS,
    contexts,
    pad,
    tensor_contexts,
)


def value(image: np.ndarray, y: int, x: int, c: int) -> int:
    """Channel ``c`` at (y, x), inside of the image or out, by the rule in words."""
    width = image.shape[1]
    if y < 0 or (x < 0 and y == 0):
        return 128
    if x < 0:
        return int(image[y - 1, 0, c])
    return int(image[y, min(x, width - 1), c])


def by_hand(image: np.ndarray, y: int, x: int, channel: int) -> tuple[list[int], int, int, int]:
    def planes(yy: int, xx: int) -> tuple[int, int, int]:
        r, g, b = (value(image, yy, xx, c) for c in range(3))
        return g, r - g, b - g

    around = [planes(y + dy, x + dx) for dy, dx in OFFSETS]
    west, north, north_west, north_east = (planes(y + dy, x + dx) for dy, dx in ((0, -1), (-1, 0), (-1, -1), (-1, 1)))
    m = [(3 * w + 3 * n + nw + ne + 4) // 8 for w, n, nw, ne in zip(west, north, north_west, north_east, strict=True)]
    own = planes(y, x)
    g, rg, _ = own
    centre = {0: m, 1: [g, m[1], m[2]], 2: [g, rg, m[2]]}[channel]
    extra = {0: [m[0] - 128, m[1], m[2], 0], 1: [g - 128, m[1], m[2], g - m[0]], 2: [g - 128, rg, m[2], rg - m[1]]}
    cut = lambda d: max(-255, min(255, d))  # noqa: E731
    differences = [cut(a[p] - centre[p]) for p in range(3) for a in around] + [cut(d) for d in extra[channel]]
    activity = sum(abs(cut(a[channel] - centre[channel])) for a in around[:8])
    base = m[0] if channel == 0 else g + m[channel]
    return differences, base, activity, own[0] if channel == 0 else g + own[channel]


def test_contexts_equal_loops_over_neighbours():
    random = np.random.default_rng(0)
    for height, width in ((1, 1), (1, 5), (6, 1), (5, 7)):
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        padded = pad(torch.from_numpy(image).permute(2, 0, 1)[None])
        for channel, context in [*enumerate(contexts(padded)), *enumerate(tensor_contexts(padded))]:
            assert context.differences.shape == (height * width, NUM_DIFFERENCES)
            for i, (y, x) in enumerate(np.ndindex(height, width)):
                differences, base, activity, target = by_hand(image, y, x, channel)
                assert context.differences[i].tolist() == differences
                seen = [COMPRESSED[d + LIMIT] for d in differences] + [np.floor(LOG_ACTIVITY[activity] / 2)]
                assert context.inputs[i].tolist() == seen
                assert (context.base[i], context.activity[i], context.target[i]) == (base, activity, target)


def test_a_pixel_is_seen_by_later_pixels_only():
    random = np.random.default_rng(1)
    image = torch.from_numpy(random.integers(0, 256, (1, 3, 6, 8), dtype=np.uint8))
    for y, x in ((0, 0), (2, 3), (5, 7), (3, 0), (4, 7)):
        for rgb, first_seen in ((1, 1), (0, 2), (2, 3)):  # green is seen by red and blue of its own pixel, ...
            changed = image.clone()
            changed[0, rgb, y, x] ^= 255
            now = y * 8 + x
            for channel, (a, b) in enumerate(zip(contexts(pad(image)), contexts(pad(changed)), strict=True)):
                before = now + (channel < first_seen)
                for one, other in zip(a[:3], b[:3], strict=True):
                    assert torch.equal(one[:before], other[:before])
        assert not torch.equal(contexts(pad(image))[0].differences, contexts(pad(changed))[0].differences) or now == 47


def test_windows_of_an_image_give_the_contexts_of_the_image():
    image = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (1, 3, 9, 10), dtype=np.uint8))
    whole = contexts(pad(image))
    part = contexts(image[..., 2:9, 1:10].to(torch.int16))  # pixels (5..8, 4..6)
    rows = [y * 10 + x for y in range(5, 9) for x in range(4, 7)]
    for a, b in zip(whole, part, strict=True):
        for one, other in zip(a, b, strict=True):
            assert torch.equal(one[rows], other)


def test_both_ways_agree_on_differences_of_every_size():
    extremes = np.random.default_rng(4).choice(np.array([0, 1, 128, 254, 255], np.uint8), (2, 3, 9, 8))
    padded = pad(torch.from_numpy(extremes))
    for one, other in zip(contexts(padded), tensor_contexts(padded), strict=True):
        assert one.differences.abs().max() == LIMIT
        assert all(torch.equal(a, b) and a.dtype == b.dtype == torch.float32 for a, b in zip(one, other, strict=True))


def test_contexts_are_whole_numbers_under_autocast():
    image = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        found = contexts(pad(image)), tensor_contexts(pad(image))
    for known in found:
        for a, b in zip(contexts(pad(image)), known, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(a, b, strict=True))


def test_tables_are_far_from_ties_so_that_every_machine_makes_the_same():
    d = np.arange(1, LIMIT + 1)
    exact = 25 * np.log2(1 + d / 16)
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-5
    assert np.array_equal(COMPRESSED[LIMIT + d], np.rint(exact)) and np.array_equal(COMPRESSED, -COMPRESSED[::-1])
    exact = 32 * np.log((np.arange(len(LOG_ACTIVITY)) + 4) / 8)
    assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-5
    assert (LOG_ACTIVITY[4], LOG_ACTIVITY[0], LOG_ACTIVITY[-1]) == (0, -22, 177)
    assert COMPRESSED.max() == 102
