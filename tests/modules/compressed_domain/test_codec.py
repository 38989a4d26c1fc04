"""Files: exact symbols of every size, bytes near the estimate, other models, mistakes, damage."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import entropy

import codec as program
from modules.components.coding.checked_file import file_of
from modules.components.coding.container import CorruptFileError, pack, unpack
from modules.components.coding.model_file import save_weights
from modules.components.coding.rans import CorruptStreamError
from modules.compressed_domain.codec import Codec
from modules.compressed_domain.nets import CompressionNet
from modules.compressed_domain.symbol_coder import read_symbols, write_symbols
from tests.modules.compressed_domain.small import settled

RNG = np.random.default_rng(0)
IMAGE = np.array(
    Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((96, 70), Image.Resampling.BICUBIC)
)
SIZES = {"channels": 4, "num_centers": 6, "width": 4, "units": 1}


def network(seed: int = 0) -> CompressionNet:
    return settled(seed, **SIZES)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(network())


@pytest.mark.parametrize("kind", ["skewed", "uniform", "one", "alternating"])
def test_coded_length_is_that_of_the_own_histogram(kind: str) -> None:
    made = {
        "skewed": RNG.choice(6, 20_000, p=[0.7, 0.2, 0.05, 0.03, 0.015, 0.005]),
        "uniform": RNG.integers(0, 6, 20_000),
        "one": np.full(20_000, 3),
        "alternating": np.arange(20_000) % 2,
    }[kind]
    stream = write_symbols(made, 6)
    assert np.array_equal(read_symbols(stream, len(made), 6), made)
    bits = entropy(np.bincount(made), base=2) * len(made)
    overhead = 2.5 * np.log2(len(made)) + 64 + 32  # the model's, rANS' state and last word
    assert 8 * len(stream) <= bits * 1.0005 + overhead + 8


def test_streams_are_pinned() -> None:
    assert write_symbols(np.array([0, 1, 5, 3, 3, 2]), 6).hex() == "20258bc19d470300"
    assert read_symbols(write_symbols(np.zeros(0, int), 6), 0, 6).size == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (33, 47), (70, 96)])
def test_every_size(codec: Codec, size: tuple[int, int]) -> None:
    image = IMAGE[: size[0], : size[1]]
    container = unpack(file_of(codec, image))
    decoded = codec.decompress(container)
    assert decoded.shape == image.shape and decoded.dtype == np.uint8 and container.lossy
    padded = np.pad(image, [(0, -size[0] % 8), (0, -size[1] % 8), (0, 0)], mode="edge")
    with torch.inference_mode():
        out = codec.network(torch.from_numpy(padded).permute(2, 0, 1)[None].float())
    assert np.array_equal(codec.read(container), out.code.symbols[0].numpy())
    expected = out.x_hat[0].permute(1, 2, 0).numpy().round().clip(0, 255)[: size[0], : size[1]]
    assert np.abs(decoded - expected).max() <= 1


def test_payload_is_within_one_percent_of_the_estimate(codec: Codec) -> None:
    big = np.tile(IMAGE[:64], (4, 3, 1))
    container = codec.compress(big)
    counts = np.bincount(codec.read(container).ravel(), minlength=6)
    assert (counts > 0).sum() >= 3
    estimate = entropy(counts, base=2) * counts.sum() / 8
    assert abs(len(container.tiles[0].payload) - estimate) < 0.01 * estimate + 20
    twice = codec.compress(np.tile(big, (4, 4, 1)))
    counts = np.bincount(codec.read(twice).ravel(), minlength=6)
    estimate = entropy(counts, base=2) * counts.sum() / 8
    assert abs(len(pack(twice)) - estimate) < 0.01 * estimate + 90


def test_grayscale_and_metadata(codec: Codec) -> None:
    container = unpack(pack(codec.compress(IMAGE[..., 0], {"exif": b"abc"})))
    assert container.metadata == {"exif": b"abc"} and container.mode == "L"
    colour = codec.decompress(codec.compress(IMAGE[..., :1].repeat(3, -1)))
    gray = codec.decompress(container)
    assert gray.shape == (70, 96) and np.abs(gray - colour.mean(-1)).max() <= 0.5


def test_precision_is_used(codec: Codec) -> None:
    double = Codec(network(), precision="float64")
    container = double.compress(IMAGE)
    assert container.precision == "float64" and next(double.network.parameters()).dtype == torch.float64
    again = codec.compress(IMAGE)
    assert (double.read(container) != codec.read(again)).mean() < 1e-3
    assert double.decompress(container).shape == IMAGE.shape


def test_other_codecs_and_mistakes(codec: Codec) -> None:
    container = codec.compress(IMAGE)
    with pytest.raises(CorruptFileError, match="the file needs model"):
        Codec(network(1)).decompress(container)
    moved = network()
    with torch.no_grad():
        moved.quantizer.levels[0] += 0.1
    assert Codec(moved).fingerprint != codec.fingerprint
    for image in (IMAGE.astype(float), IMAGE[..., :2], IMAGE[:0]):
        with pytest.raises(ValueError, match="need uint8 pixels"):
            codec.compress(image)
    with pytest.raises(ValueError, match="4097 x 4096 pixels are more than the 16777216"):
        codec.compress(np.zeros((4096, 4097), np.uint8))
    for change in ({"width": 1 << 20, "height": 100}, {"tiles": container.tiles * 2}, {"tiles": []}):
        with pytest.raises(CorruptFileError, match="more tiles or pixels"):
            codec.read(container._replace(**change))


def test_damaged_payloads_never_decode_silently(codec: Codec) -> None:
    """2,000 damaged files: bytes altered, cut or appended behind a checksum that fits. None decodes to other data."""
    original = codec.compress(IMAGE)
    right, refused = codec.read(original), 0
    random = np.random.default_rng(1)
    for attempt in range(2000):
        payload = bytearray(original.tiles[0].payload)
        kind = attempt % 4
        if kind == 0:
            payload[random.integers(len(payload))] ^= int(random.integers(1, 256))
        elif kind == 1:
            del payload[random.integers(len(payload)) :]
        elif kind == 2:
            payload += random.bytes(int(random.integers(1, 9)))
        else:
            start = random.integers(len(payload))
            payload[start : start + 8] = random.bytes(len(payload[start : start + 8]))
        try:
            found = codec.read(original._replace(tiles=[original.tiles[0]._replace(payload=bytes(payload))]))
        except CorruptFileError:
            refused += 1
        else:
            assert np.array_equal(found, right)
    assert refused >= 1990
    file = bytearray(pack(original))
    for _ in range(200):
        damaged = bytearray(file)
        damaged[random.integers(len(file))] ^= int(random.integers(1, 256))
        with pytest.raises(CorruptFileError):
            codec.read(unpack(bytes(damaged)))


def test_the_checksum_is_looked_at(codec: Codec) -> None:
    original = codec.compress(IMAGE)
    with pytest.raises(CorruptFileError, match="does not decode to what the file was made from"):
        codec.read(original._replace(pixels=bytes(8)))
    with pytest.raises(CorruptStreamError, match="does not end"):
        read_symbols(original.tiles[0].payload, 10, 6)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    described = {"class_path": "modules.compressed_domain.nets.CompressionNet", "init_args": SIZES}
    save_weights(tmp_path / "codec.pt", described, network().state_dict(), half=False)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    model = ["--checkpoint", str(tmp_path / "codec.pt")]
    assert program.main(["compress", str(tmp_path / "a.png"), *model, "--output", str(tmp_path / "out")]) == 0
    assert program.main(["decompress", str(tmp_path / "out"), *model, "--output", str(tmp_path / "back")]) == 0
    assert np.array(Image.open(tmp_path / "back" / "a.png")).shape == IMAGE.shape
    assert program.main(["info", str(tmp_path / "out" / "a.cdom")]) == 0
    assert "compressed_domain, 96 x 70 RGB" in capsys.readouterr().out
