"""Images to bytes and back, exactly; damaged bytes to an error, always."""

import random
import resource
import struct

import numpy as np
import pytest
import torch

from modules.components.coding.container import CorruptFileError, DecodeMismatchError, digest, pack, unpack
from modules.components.coding.rans import decode_uniform
from modules.l3c.codec import Codec, estimated_bits, reproducible_arithmetic, split_streams, tile_boxes
from modules.l3c.losses import image_bits
from modules.l3c.nets import L3CNet, RGBNet, RGBSharedNet
from modules.l3c.sampling import pad_to_multiple


@pytest.fixture(scope="module")
def codec() -> Codec:
    torch.manual_seed(0)
    return Codec(L3CNet(8, 1, mean_unit=64.0, fast_start=True))


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth gradients with noise, all values from 0 to 255."""
    rng = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    base = 127 + 120 * np.sin(y / 37)[..., None] * np.cos(x / 53)[..., None]
    noisy = base + rng.normal(0, 6, (height, width, channels))
    pixels = noisy.clip(0, 255).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (7, 13), (8, 8), (333, 217)])
@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(codec, size, channels):
    pixels = photo(*size, channels)
    assert np.array_equal(codec.decompress(unpack(pack(codec.compress(pixels)))), pixels)


def test_round_trip_of_many_tiles(codec):
    pixels = photo(200, 301)
    container = Codec(codec.network, max_tile=80).compress(pixels)
    assert len(container.tiles) == 12
    assert np.array_equal(codec.decompress(container), pixels)


@pytest.mark.parametrize("network", [RGBNet(8, 1, num_scales=2), RGBSharedNet(8, 1, num_scales=3)])
def test_baselines_write_files_too(network):
    torch.manual_seed(0)
    codec = Codec(network)
    pixels = photo(20, 33)
    assert np.array_equal(codec.decompress(unpack(pack(codec.compress(pixels)))), pixels)


def test_float64_and_tile_size_are_carried_by_the_file():
    torch.manual_seed(0)
    network = L3CNet(8, 1)
    pixels = photo(40, 50)
    container = Codec(network, precision="float64", max_tile=24).compress(pixels)
    assert container.precision == "float64" and len(container.tiles) > 1
    assert np.array_equal(Codec(network).decompress(container), pixels)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_decodes(codec, threads):
    pixels = photo(64, 72)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    container = codec.compress(pixels)
    torch.set_num_threads(1 if threads > 1 else 2)
    try:
        assert container.threads == threads
        assert np.array_equal(codec.decompress(container), pixels)
    finally:
        torch.set_num_threads(before)


def test_the_files_thread_count_is_used(codec, monkeypatch):
    used = []

    def decode(self, tile, channels):
        used.append(torch.get_num_threads())
        return original(self, tile, channels)

    container = codec.compress(photo(16, 16))
    original = Codec._decode_tile
    monkeypatch.setattr(Codec, "_decode_tile", decode)
    for threads in (1, 2):
        codec.decompress(container._replace(threads=threads))
    assert used == [1, 2]
    before = torch.get_num_threads()
    with pytest.raises(CorruptFileError, match="257 threads"):
        codec.decompress(container._replace(threads=257))
    assert torch.get_num_threads() == before


def test_edges_are_replicated_as_padding(codec):
    """57 x 57 becomes 64 x 64; the coarsest latent stands in the file as it is."""
    pixels = photo(57, 57)
    x = torch.from_numpy(np.pad(pixels, ((0, 7), (0, 7), (0, 0)), mode="edge")).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = codec.network.float().encode(x.contiguous(memory_format=torch.channels_last))[-1].symbols[0]
    streams = split_streams(codec.compress(pixels).tiles[0].payload, 4)
    coded = decode_uniform(streams[0], 8 * 8 * 5, 25).reshape(8, 8, 5)
    assert (coded == expected.permute(1, 2, 0).numpy()).mean() > 0.99
    assert torch.equal(x.to(torch.uint8), pad_to_multiple(torch.from_numpy(pixels).permute(2, 0, 1)[None], 8))


def test_the_estimate_in_tiles_is_that_of_each_tile(codec):
    network = codec.network.float()
    x = torch.from_numpy(photo(50, 90)).permute(2, 0, 1)[None]
    with torch.no_grad():
        tiled = estimated_bits(network, x, max_tile=48)
        parts = [
            image_bits(network(pad_to_multiple(tile, 8)), network.alphabets, network.num_mixtures, tile.shape[-2:])
            for rows in (x[:, :, :32], x[:, :, 32:])
            for tile in (rows[..., :48], rows[..., 48:])
        ]
    assert torch.allclose(tiled, torch.stack(parts).sum(0), rtol=1e-4)


def test_split_streams_needs_exact_lengths():
    payload = struct.pack("<I", 2) + b"ab" + struct.pack("<I", 0) + struct.pack("<I", 1) + b"c"
    assert split_streams(payload, 3) == [b"ab", b"", b"c"]
    for damaged in (payload[:-1], payload[:3], payload[:9]):
        with pytest.raises(CorruptFileError, match="cut short"):
            split_streams(damaged, 3)
    with pytest.raises(CorruptFileError, match="left after"):
        split_streams(payload + b"d", 3)
    with pytest.raises(CorruptFileError, match="left after"):
        split_streams(payload, 2)


def test_arithmetic_settings_are_fixed_and_put_back():
    before = torch.get_num_threads()
    with torch.autocast("cpu", dtype=torch.bfloat16), reproducible_arithmetic(3):
        assert torch.get_num_threads() == 3 and torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu") and not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic and not torch.backends.cudnn.benchmark
    assert torch.get_num_threads() == before and not torch.is_inference_mode_enabled()
    with reproducible_arithmetic(0):
        assert torch.get_num_threads() == before


def test_file_size_is_the_estimate(codec):
    pixels = photo(256, 320)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    network = codec.network.float().eval()
    with torch.no_grad():
        output = network(pad_to_multiple(x, 8))
    estimate = image_bits(output, network.alphabets, network.num_mixtures, x.shape[-2:]).sum().item()
    assert 8 * len(pack(codec.compress(pixels))) == pytest.approx(estimate, rel=0.005)


def test_padding_costs_no_pixels(codec):
    whole = sum(len(tile.payload) for tile in codec.compress(photo(64, 64)).tiles)
    part = sum(len(tile.payload) for tile in codec.compress(photo(64, 64)[:57, :57].copy()).tiles)
    assert part < 0.87 * whole


@pytest.mark.parametrize(
    ("width", "height", "longest"), [(1, 1, 768), (768, 512, 768), (3001, 2000, 768), (769, 8, 768), (100, 90, 16)]
)
def test_boxes_are_near_equal_and_cover(width, height, longest):
    boxes = tile_boxes(width, height, longest, 8)
    seen = np.zeros((height, width), int)
    for box in boxes:
        seen[box.top : box.top + box.height, box.left : box.left + box.width] += 1
    assert np.all(seen == 1)
    assert max(max(box.width, box.height) for box in boxes) <= longest


def test_another_model_is_refused_by_fingerprint(codec):
    torch.manual_seed(1)
    other = Codec(L3CNet(8, 1))
    assert other.fingerprint != codec.fingerprint
    with pytest.raises(CorruptFileError, match=codec.fingerprint.hex()):
        other.decompress(codec.compress(photo(8, 8)))


def test_differing_network_outputs_are_refused_not_decoded_wrongly(codec):
    container = codec.compress(photo(48, 48))
    bias = codec.network.predictors[0].to_parameters.bias
    with torch.no_grad():
        bias += 0.01  # as if another machine rounded differently; the fingerprint was taken before
    with pytest.raises(DecodeMismatchError, match="float64"):
        codec.decompress(container)
    with torch.no_grad():
        bias -= 0.01


def test_pixels_that_are_not_those_of_the_checksum_are_refused(codec):
    container = codec.compress(photo(8, 8))
    with pytest.raises(DecodeMismatchError, match="does not decode here"):
        codec.decompress(container._replace(pixels=bytes(8)))


def test_a_tile_that_would_take_too_much_memory_is_refused(codec):
    container = codec.compress(photo(8, 8))
    tile = container.tiles[0]._replace(width=2000, height=2000)
    with pytest.raises(CorruptFileError, match="1024 pixels"):
        codec.decompress(container._replace(tiles=[tile], width=2000, height=2000))
    with pytest.raises(ValueError, match="max_tile"):
        Codec(codec.network, max_tile=2048)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_other_arrays_are_refused(codec, pixels):
    with pytest.raises(ValueError, match="uint8"):
        codec.compress(pixels)


def corrupted(file: bytes, others: list[bytes], rng: random.Random, reseal: bool) -> bytes:
    """One random damage; resealed with a length and checksum that fit, it reaches the inner checks."""
    damaged = bytearray(file)
    kind = rng.choice(["flip", "flip", "cut", "number", "swap", "grow"])
    if kind == "flip":
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del damaged[rng.randrange(len(damaged)) :]
    elif kind == "number":
        start = rng.randrange(4, min(110, len(damaged) - 4))
        damaged[start : start + 4] = rng.choice([b"\xff" * 4, b"\xff\xff\xff\x7f", bytes(4), b"\x00\x10\x00\x00"])
    elif kind == "swap":
        start = rng.randrange(50, len(damaged))
        damaged[start:] = rng.choice(others)[start:]
    else:
        damaged += bytes(rng.randrange(256) for _ in range(rng.randint(1, 30)))
    if reseal and len(damaged) > 21:
        damaged[5:13] = (len(damaged) - 21).to_bytes(8, "little")
        damaged[-8:] = digest(bytes(damaged[:-8]))
    return bytes(damaged)


@pytest.mark.parametrize("reseal", [False, True])
def test_a_thousand_corrupted_files_are_refused_or_decode_correctly(codec, reseal):
    rng = random.Random(reseal)
    images = [photo(9, 21), photo(24, 16, 1), photo(16, 40)]
    files = [pack(codec.compress(image, {"exif": b"0123456789"})) for image in images]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for i in range(1000):
        damaged = corrupted(files[i % 3], files, rng, reseal)
        try:
            pixels = codec.decompress(unpack(damaged))
        except (CorruptFileError, DecodeMismatchError):
            refused += 1
        else:
            assert any(np.array_equal(pixels, image) for image in images)
    assert refused > 700
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB: one GiB
