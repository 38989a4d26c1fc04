"""Files: every size, strips, gray, rates near the estimate, other settings, damage."""

import os

import numpy as np
import pytest
import torch

from modules.components.coding.checked_file import file_of
from modules.components.coding.container import CorruptFileError, Tile, pack, unpack
from modules.cpm import codec as codec_file
from modules.cpm.codec import Codec, in_strips, least_bits
from modules.cpm.nets import reach
from tests.modules.cpm.small import network, picture

ALTERED_FILES = int(os.environ.get("PARSIMONY_ALTERED_FILES", "100"))
"""More by PARSIMONY_ALTERED_FILES."""


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(network())


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (33, 47), (70, 101)])
def test_every_size_decodes_to_the_encoders_symbols(codec: Codec, size: tuple[int, int]):
    image = picture(1, *size)
    container = unpack(pack(codec.compress(image, {"exif": b"abc"})))
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        coded = codec.network(x)
    assert np.array_equal(codec.read(container), coded.code.symbols[0].numpy())
    decoded = codec.decompress(container)
    assert decoded.shape == image.shape and decoded.dtype == np.uint8 and container.metadata == {"exif": b"abc"}
    expected = coded.x_hat[0].permute(1, 2, 0).clamp(0, 255).numpy()
    assert np.abs(decoded - expected).max() <= 0.51
    assert (container.mode, container.lossy, container.threads) == ("RGB", True, 0)


def test_a_network_in_training_codes_in_eval_mode():
    image = picture(1, 24, 24)
    assert pack(Codec(network().train()).compress(image)) == pack(Codec(network()).compress(image))


def test_grayscale_stays_grayscale(codec: Codec):
    image = picture(2, 30, 41)[..., 0].copy()
    container = unpack(pack(codec.compress(image)))
    colour = codec.decompress(codec.compress(image[..., None].repeat(3, -1)))
    decoded = codec.decompress(container)
    assert container.mode == "L" and decoded.shape == image.shape and decoded.dtype == np.uint8
    assert np.abs(decoded - colour.mean(-1)).max() <= 0.5


def test_bytes_are_within_a_percent_of_the_estimate(codec: Codec):
    container = codec.compress(picture(3, 400, 500))
    bits = codec.symbol_bits(codec.read(container))
    payload = 8 * len(container.tiles[0].payload)
    assert bits < payload < 1.01 * bits and payload > 5000


def test_what_is_likely_costs_little():
    """The bound that a decoder takes before it allocates: no stream of so many symbols is shorter."""
    net = network()
    with torch.no_grad():
        for parameter in net.context.last.parameters():
            parameter.zero_()
        net.context.last.bias[3] = 1000
        net.quantizer.levels.copy_(torch.tensor([50.0, 60, 70, 0, 80, 90]).div(4))
        net.encoder.layers[-1].weight.zero_()
    codec = Codec(net)
    container = codec.compress(np.zeros((800, 1600, 3), np.uint8))
    symbols = codec.read(unpack(pack(container)))
    assert (symbols == 3).all() and codec.symbol_bits(symbols) == pytest.approx(symbols.size * least_bits(6))
    assert symbols.size * least_bits(6) <= 8 * len(container.tiles[0].payload) + codec_file.STATE_BITS


def test_strips_give_what_the_whole_gives(monkeypatch: pytest.MonkeyPatch):
    codec = Codec(network(units=2), precision="float64")
    image = picture(4, 330, 41)
    symbols = codec.encode(image)
    pixels = codec.decode(symbols)
    assert codec.network.reach == reach(6) == 6
    for limit in (41 * 150, 1):
        monkeypatch.setattr(codec_file, "STRIP_PIXELS", limit)
        assert np.array_equal(codec.encode(image), symbols) and np.array_equal(codec.decode(symbols), pixels)


def test_strips_overlap_by_their_margin():
    seen = []

    def twice(part: torch.Tensor) -> torch.Tensor:
        seen.append(part.shape[2])
        return part.repeat_interleave(2, 2)

    x = torch.arange(40.0).view(1, 1, 20, 2)
    assert torch.equal(in_strips(twice, x, 4, 3, 2, 40), x.repeat_interleave(2, 2)) and seen == [20]
    seen.clear()
    assert torch.equal(in_strips(twice, x, 4, 3, 2, 39), x.repeat_interleave(2, 2)) and seen == [15, 11]
    seen.clear()
    assert torch.equal(in_strips(twice, x, 4, 3, 2, 1), x.repeat_interleave(2, 2)) and seen == [7, 10, 10, 10, 7]


def test_the_reach_of_the_full_network_covers_its_layers():
    """A pixel changes no code cell further away, and a cell no pixel; of 34 3x3 layers on each side."""
    net = network(units=1).double()
    x = torch.rand(1, 3, 8, 400, dtype=torch.double) * 255
    other = x.clone()
    other[..., 200] += 100
    with torch.no_grad():
        changed = (net.encoder(x) != net.encoder(other)).any(1)[0].any(0).nonzero().flatten()
        code = torch.randn(1, 5, 1, 50, dtype=torch.double)
        moved = code.clone()
        moved[..., 25] += 1
        pixels = (net.decoder(code) != net.decoder(moved)).any(1)[0].any(0).nonzero().flatten()
    assert max(25 - int(changed.min()), int(changed.max()) - 25) <= net.reach
    assert max(25 - int(pixels.min()) // 8, int(pixels.max()) // 8 - 25) <= net.reach
    assert reach(2 * (5 * 3 + 1)) == 19


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_do_not_depend_on_the_number_of_threads(codec: Codec, threads: int):
    before, image = torch.get_num_threads(), picture(5, 60, 50)
    file = pack(codec.compress(image))
    torch.set_num_threads(threads)
    try:
        assert pack(codec.compress(image)) == file
        assert np.array_equal(codec.read(unpack(file)), codec.encode(image))
    finally:
        torch.set_num_threads(before)


def test_double_precision_writes_files_that_single_reads(codec: Codec):
    image = picture(6, 40, 40)
    container = Codec(network(), precision="float64").compress(image)
    assert container.precision == "float64" and container.model == codec.fingerprint
    assert np.array_equal(codec.read(container), Codec(network(), precision="float64").encode(image))


def test_images_that_do_not_fit_are_refused(codec: Codec, monkeypatch: pytest.MonkeyPatch):
    for image in (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint16), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="need uint8 pixels"):
            codec.compress(image)
    container = codec.compress(picture(0, 9, 20))
    monkeypatch.setattr(codec_file, "MAX_PIXELS", 179)
    with pytest.raises(ValueError, match="20 x 9 pixels are more than the 179"):
        codec.compress(picture(0, 9, 20))
    with pytest.raises(CorruptFileError, match="more tiles or pixels"):
        codec.read(container)


def test_files_of_another_model_size_or_content_are_refused(codec: Codec):
    container = codec.compress(picture(0, 24, 24))
    with pytest.raises(CorruptFileError, match="needs model"):
        Codec(network(1)).decompress(container)
    tile = container.tiles[0]
    with pytest.raises(CorruptFileError, match="more tiles"):
        codec.read(container._replace(tiles=[tile, tile]))
    with pytest.raises(CorruptFileError, match="bytes cannot describe 8000 x 8000"):
        codec.read(container._replace(width=8000, height=8000, tiles=[Tile(0, 0, 8000, 8000, tile.payload)]))
    with pytest.raises(CorruptFileError, match="does not end"):
        codec.read(container._replace(tiles=[tile._replace(payload=tile.payload + bytes(4))]))
    with pytest.raises(CorruptFileError, match="does not decode to what"):
        codec.read(container._replace(pixels=bytes(8)))


def test_altered_files_are_refused_in_one_line(codec: Codec):
    """Of each: one byte, a cut, a swap or zeros, in the file (whose checksum sees it) or behind the checksum."""
    random = np.random.default_rng(0)
    container = codec.compress(picture(7, 40, 56))
    file, payload = pack(container), container.tiles[0].payload
    for number in range(ALTERED_FILES):
        inside = number % 2 == 1
        data = bytearray(payload if inside else file)
        where = int(random.integers(len(data)))
        if (kind := number // 2 % 4) == 0:
            data[where] ^= 1 << int(random.integers(8))
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            data[where : where + 4] = bytes(random.integers(0, 256, 4, dtype=np.uint8))
        else:
            data[where:] = bytes(len(data) - where)
        if bytes(data) == (payload if inside else file):
            continue
        with pytest.raises(CorruptFileError) as caught:
            tiles = [container.tiles[0]._replace(payload=bytes(data))]
            codec.decompress(container._replace(tiles=tiles) if inside else unpack(bytes(data)))
        assert "\n" not in str(caught.value)


def test_verification_decodes_what_was_written(codec: Codec, monkeypatch: pytest.MonkeyPatch):
    image = picture(8, 16, 16)
    assert unpack(file_of(codec, image, {"icc": b"x"})).metadata == {"icc": b"x"}
    monkeypatch.setattr(codec_file, "encode_intervals", lambda *_: bytes(8))
    with pytest.raises(CorruptFileError):
        file_of(codec, image)
