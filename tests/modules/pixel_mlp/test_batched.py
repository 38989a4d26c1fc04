"""The tensors of batched.py against the kernels of wavefront.py: the same bytes, the same pixels, on any device."""

import numpy as np
import pytest
import torch

from modules.components.coding.container import CorruptFileError, pack, unpack
from modules.components.coding.rans import CorruptStreamError
from modules.components.devices import usable_device
from modules.components.exact import InexactWeightsError
from modules.pixel_mlp import batched
from modules.pixel_mlp import codec as codec_file
from modules.pixel_mlp.batched import BatchCoder, batches
from modules.pixel_mlp.codec import Codec
from modules.pixel_mlp.nets import PixelMLP
from modules.pixel_mlp.wavefront import encode_tile, predictors
from tests.modules.pixel_mlp.test_nets import network
from tests.modules.pixel_mlp.test_wavefront import SIZES, pixels

CPU = torch.device("cpu")


def wild() -> PixelMLP:
    """A network whose weights, means and scales go beyond all limits at some pixels."""
    net = network(3)
    for predictor in net.channels:
        last = predictor.layers[-1]
        last.weight.data *= 20
        last.bias.data[2] -= 40
        last.bias.data[4] += 300
        last.bias.data[7:] += torch.tensor([9.0, -9.0])
    net.check_bounds()
    return net


def tiles_of(channels: int) -> list[np.ndarray]:
    """Of all sizes, some beside one of their own size; photographs, noise, black beside white."""
    random = np.random.default_rng(1)
    photos = [pixels(h * w, h, w) for h, w in (*SIZES, SIZES[-1])]
    noise = [random.integers(0, 256, (9, 14, 3), dtype=np.uint8) for _ in range(3)]
    hard = [255 * random.integers(0, 2, (12, 8, 3), dtype=np.uint8)]
    return [tile[..., :channels].copy() for tile in photos + noise + hard]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("net", [network(1, layers=1), network(2), network(3, layers=3), wild()])
def test_bytes_and_pixels_are_those_of_the_kernels(net, channels):
    own, coder, tiles = predictors(net), BatchCoder(net, CPU), tiles_of(channels)
    streams = [encode_tile(tile, own) for tile in tiles]
    assert list(coder.encode(tiles)) == streams
    decoded = coder.decode(streams, [tile.shape for tile in tiles])
    assert all(np.array_equal(a, b) and a.dtype == np.uint8 for a, b in zip(decoded, tiles, strict=True))


@pytest.mark.parametrize("strip", [1, 20, 300])
def test_bytes_do_not_depend_on_what_is_computed_together(strip, monkeypatch):
    net, tiles = network(), [pixels(n, 13, 10) for n in range(4)]
    whole = list(BatchCoder(net, CPU).encode(tiles))
    monkeypatch.setattr(batched, "STRIP_PIXELS", strip)
    assert list(BatchCoder(net, CPU).encode(tiles)) == whole == [encode_tile(tile, predictors(net)) for tile in tiles]


def test_bytes_do_not_depend_on_autocast():
    net, tile = network(), pixels(0, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        [stream] = BatchCoder(net, CPU).encode([tile])
        [decoded] = BatchCoder(net, CPU).decode([stream], [tile.shape])
    assert stream == encode_tile(tile, predictors(net)) and np.array_equal(decoded, tile)


def test_batches_hold_tiles_of_one_kind_and_not_too_many_pixels(monkeypatch):
    tiny = [(1, 1, 3)] * 70_000
    assert [len(run) for run in batches(tiny)] == [32768, 32768, 4464]  # their histograms have 57 kB each
    monkeypatch.setattr(batched, "BATCH_PIXELS", 100)
    monkeypatch.setattr(batched, "HISTOGRAM_PIXELS", 1)
    shapes = [(5, 5, 3)] * 5 + [(5, 5, 1), (1, 30, 1), (1, 20, 1), (50, 50, 1), (2, 50, 1)]
    found = [(run.start, run.stop) for run in batches(shapes)]
    assert found == [(0, 4), (4, 5), (5, 6), (6, 8), (8, 9), (9, 10)]
    assert list(batches([])) == []


def test_damaged_streams_are_refused():
    coder, tiles = BatchCoder(network(), CPU), [pixels(n, 16, 16) for n in range(3)]
    streams, shapes = list(coder.encode(tiles)), [tile.shape for tile in tiles]
    for number in range(3):
        for damaged in (streams[number][:-4], streams[number] + bytes(4), streams[number][:12], b"", bytes(8)):
            with pytest.raises(CorruptStreamError):
                coder.decode([*streams[:number], damaged, *streams[number + 1 :]], shapes)


def test_weights_beyond_the_bound_are_refused():
    net = network()
    net.channels[1].layers[1].weight.data[3] *= 1000
    with pytest.raises(InexactWeightsError, match="layer 2"):
        BatchCoder(net, CPU)


def on_tensors(net: PixelMLP) -> Codec:
    """A codec that computes as it does on another device."""
    codec = Codec(net)
    codec.batched = BatchCoder(net, CPU)
    return codec


def test_files_of_several_images_are_those_of_the_kernels(monkeypatch):
    monkeypatch.setattr(codec_file, "MAX_TILE", 16)
    monkeypatch.setattr(batched, "BATCH_PIXELS", 1000)
    images = [pixels(0, 37, 41), pixels(1, 20, 30)[..., 0].copy(), np.full((20, 33), 90, np.uint8), pixels(2, 1, 1)]
    net = network()
    kernels, tensors = Codec(net), on_tensors(net)
    files = [pack(kernels.compress(image)) for image in images]
    assert [pack(container) for container in tensors.compress_all(images)] == files
    kinds = [{tile.payload[0] for tile in unpack(file).tiles} for file in files]
    assert kinds == [{1, 2}, {1, 2}, {codec_file.STORED}, {codec_file.NETWORK}]
    for codec in (kernels, tensors):
        decoded = codec.decompress_all([unpack(file) for file in files])
        assert all(np.array_equal(a, b) for a, b in zip(decoded, images, strict=True))
        assert [image.shape for image in decoded] == [image.shape for image in images]


def test_progress_counts_every_tile_of_both_ways(monkeypatch):
    monkeypatch.setattr(codec_file, "MAX_TILE", 16)
    codec, image, seen = on_tensors(network()), pixels(3, 20, 33), []
    codec.progress = lambda tiles, total: (seen.append((i, total)) or tile for i, tile in enumerate(tiles, 1))
    codec.decompress(codec.compress(image))
    assert seen == [(i, 6) for i in range(1, 7)] * 2


def test_damaged_files_are_refused():
    codec, image = on_tensors(network()), pixels(0, 16, 16)
    container = codec.compress(image)
    whole = bytes([codec_file.NETWORK]) + encode_tile(image, codec.predictors)
    for payload in (whole, whole[:-4], whole + bytes(4), b"", bytes([7]), bytes([0]) + whole[1:]):
        changed = container._replace(tiles=[container.tiles[0]._replace(payload=payload)])
        if payload == whole:
            assert np.array_equal(codec.decompress(changed), image)
            continue
        with pytest.raises(CorruptFileError):
            codec.decompress(changed)


def test_a_device_that_rounds_products_is_refused(monkeypatch):
    coder, tile = BatchCoder(network(), CPU), pixels(0, 8, 8)
    [stream] = coder.encode([tile])

    def refuse(device: torch.device) -> None:
        raise RuntimeError(f"products on {device} are not exact")

    monkeypatch.setattr(batched, "check_products", refuse)
    with pytest.raises(RuntimeError, match="on cpu are not exact"):
        list(coder.encode([tile]))
    with pytest.raises(RuntimeError, match="on cpu are not exact"):
        coder.decode([stream], [tile.shape])


def test_a_device_that_is_not_there_is_named_in_one_line():
    for name in ("nonsense", "meta", "cpu:one"):
        with pytest.raises(ValueError, match=f"^no device '{name}' here: [^\n]+$"):
            usable_device(name)
    assert usable_device("cpu") == CPU
