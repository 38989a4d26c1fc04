"""Kernel against the network in torch, round trips, order of the waves."""

import numpy as np
import pytest
import torch

from modules.components.coding.rans import CorruptStreamError
from modules.pixel_mlp import wavefront
from modules.pixel_mlp.context import contexts, pad
from modules.pixel_mlp.losses import mixture_bits
from modules.pixel_mlp.wavefront import decode_tile, draw_tile, encode_tile, predictors
from tests.modules.pixel_mlp.test_nets import network, photo


def pixels(seed: int, height: int, width: int) -> np.ndarray:
    return photo(seed, height, width)[0].permute(1, 2, 0).contiguous().numpy()


SIZES = ((1, 1), (1, 9), (9, 1), (2, 3), (3, 4), (4, 5), (5, 4), (7, 40), (40, 7), (33, 31))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_round_trip(height, width):
    own = predictors(network(layers=1 + height % 3))
    for channels in (1, 3):
        image = pixels(height * width, height, width)[..., :channels].copy()
        assert np.array_equal(decode_tile(encode_tile(image, own), image.shape, own), image)
        noise = np.random.default_rng(0).integers(0, 256, image.shape, dtype=np.uint8)
        assert np.array_equal(decode_tile(encode_tile(noise, own), noise.shape, own), noise)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_drawn_stream_is_as_long_as_the_network_says(channels):
    """On pixels drawn from the network the histograms have nothing to learn; they cost a little by chance."""
    net = network()
    image = draw_tile((48, 64, channels), predictors(net), np.random.default_rng(0))
    found = contexts(pad(torch.from_numpy(image).permute(2, 0, 1).expand(3, -1, -1)[None]))[:channels]
    with torch.no_grad():
        known = zip(net.channels, found, strict=False)
        bits = sum(float(mixture_bits(own(context, True), context.target).sum()) for own, context in known)
    assert 8 * len(encode_tile(image, predictors(net))) == pytest.approx(bits, rel=5e-3, abs=100)


def test_histograms_learn_where_a_network_errs():
    net, image = network(), pixels(0, 48, 64)
    found = contexts(pad(torch.from_numpy(image).permute(2, 0, 1)[None]))
    with torch.no_grad():
        bits = sum(float(mixture_bits(m, c.target).sum()) for m, c in zip(net(found), found, strict=True))
    assert 0.9 * bits < 8 * len(encode_tile(image, predictors(net))) < 0.95 * bits


def test_intervals_come_wave_by_wave(monkeypatch):
    """The waves of the docstring's picture: pixel (y, x) in wave x + 4 y, green before red before blue."""
    own = predictors(network())
    image = pixels(1, 3, 9)
    kept = {}
    monkeypatch.setattr(wavefront, "encode_intervals", lambda starts, sizes: kept.update(all=list(sizes)) or b"")
    encode_tile(image, own)
    order = sorted((x + 4 * y, channel, y, x) for y in range(3) for x in range(9) for channel in range(3))
    net = network()
    found = contexts(pad(torch.from_numpy(image).permute(2, 0, 1)[None]))
    with torch.no_grad():
        bits = [mixture_bits(m, c.target).reshape(3, 9) for m, c in zip(net(found), found, strict=True)]
    expected = [float(bits[channel][y, x]) for _, channel, y, x in order]
    assert -np.log2(np.array(kept["all"]) / 65536) == pytest.approx(expected, abs=0.1, rel=0.05)


def test_bytes_are_pinned():
    """What an encoder writes must not change: other machines and later versions read it."""
    import hashlib

    random = np.random.default_rng(7)
    net = network()
    for parameter in net.parameters():
        parameter.data = torch.from_numpy(np.round(random.normal(0, 0.1, parameter.shape) * 256) / 256).float()
    image = (np.add.outer(np.arange(20) * 5, np.arange(30) * 3)[..., None] % 256 + np.arange(3)).astype(np.uint8)
    stream = encode_tile(image, predictors(net))
    assert hashlib.sha256(stream).hexdigest()[:16] == GOLDEN
    drawn = draw_tile((20, 30, 3), predictors(net), np.random.default_rng(0))
    assert hashlib.sha256(drawn).hexdigest()[:16] == GOLDEN_SAMPLE


GOLDEN = "03fcb773adc3b4da"
GOLDEN_SAMPLE = "dde48c7f99dfd556"


def test_random_bits_decode_to_pixels_of_the_model():
    own = predictors(network())
    one, again = (draw_tile((20, 24, 3), own, np.random.default_rng(3)) for _ in range(2))
    other = draw_tile((20, 24, 3), own, np.random.default_rng(4))
    assert one.shape == (20, 24, 3) and np.array_equal(one, again) and not np.array_equal(one, other)
    # Its own samples are what a model codes at about its entropy: below the cost of any other image of that kind.
    assert len(encode_tile(one, own)) < len(encode_tile(one[::-1].copy(), own))


def test_damaged_streams_are_refused():
    own = predictors(network())
    stream = encode_tile(pixels(0, 16, 16), own)
    with pytest.raises(CorruptStreamError):
        decode_tile(stream[:-4], (16, 16, 3), own)
    with pytest.raises(CorruptStreamError):
        decode_tile(stream + bytes(4), (16, 16, 3), own)
    with pytest.raises(CorruptStreamError):
        decode_tile(stream[:12], (16, 16, 3), own)
