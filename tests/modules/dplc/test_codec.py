"""Files of exactly 2 c bytes of payload, decoders that draw, and what damaged files come to."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec as program
from modules.components.coding.container import CorruptFileError, Tile, digest, pack, unpack
from modules.dplc.codec import Codec
from modules.dplc.losses import scaled, to_bytes
from modules.dplc.nets import CompressionNet, GenerativeNet
from modules.dplc.statistics import reestimate

PIXELS = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
HEADER = 90
"""Bytes of the container around the payload: magic, model, size, checksums."""
SMALL = {"channels": 3, "width": 2, "latent": 20}


def network(noise: bool = True, channels: int = 3) -> CompressionNet:
    """Random weights with measured statistics; outputs are far from gray and depend on noise and bits."""
    torch.manual_seed(0)
    made = CompressionNet(channels, 2, 20, noise)
    made.generator[15].weight.data *= 10
    images = [torch.randn(8, 3, 64, 64) for _ in range(2)]
    reestimate(made, lambda x: made(x, made.draw_noise(8)), images)
    return made


@pytest.mark.parametrize("channels", [1, 2, 8, 20])
def test_the_payload_is_sixteen_bits_a_channel(channels: int) -> None:
    codec = Codec(network(channels=channels))
    container = codec.compress(PIXELS)
    assert len(container.tiles[0].payload) == 2 * channels
    sizes = {len(pack(codec.compress(image))) for image in (PIXELS, 0 * PIXELS, 255 - PIXELS)}
    assert len(sizes) == 1
    assert len(pack(container)) == HEADER + 2 * channels


def test_symbols_come_back_bit_for_bit() -> None:
    codec, net = Codec(network()), network().eval()
    x = scaled(torch.from_numpy(PIXELS).permute(2, 0, 1)[None])
    with torch.no_grad():
        expected = net.encoder(x).symbols
    container = unpack(pack(codec.compress(PIXELS)))
    assert container.lossy and torch.equal(codec.read(container), expected)
    bits = "".join(f"{byte:08b}" for byte in container.tiles[0].payload)
    assert bits == "".join(map(str, expected.flatten().tolist()))
    noise = net.draw_noise(1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoded = to_bytes(net.decode(expected, noise))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(codec.decompress(container), decoded)


def test_draws_follow_from_the_seed() -> None:
    codec = Codec(network())
    container = codec.compress(PIXELS)
    draws = codec.draws(container, 3, seed=7)
    assert len(draws) == 3 and not np.array_equal(draws[0], draws[1])
    assert all(np.array_equal(a, b) for a, b in zip(draws, codec.draws(container, 3, seed=7), strict=True))
    assert not np.array_equal(draws[0], codec.draws(container, 1, seed=8)[0])
    assert np.array_equal(codec.decompress(container), codec.draws(container, 1, 0)[0])
    still = Codec(network(noise=False))
    first, second = still.draws(still.compress(PIXELS), 2)
    assert np.array_equal(first, second)
    with pytest.raises(ValueError, match="samples must be at least 1"):
        codec.draws(container, 0)
    with pytest.raises(ValueError, match="seed must be 0 to"):
        codec.draws(container, 1, -1)


def test_gray_images_and_double_precision() -> None:
    codec = Codec(network(), precision="float64")
    container = unpack(pack(codec.compress(PIXELS[..., 0], {"exif": b"x"})))
    assert container.precision == "float64" and container.metadata == {"exif": b"x"}
    decoded = codec.decompress(container)
    assert decoded.shape == (64, 64) and decoded.dtype == np.uint8
    colour = codec.draws(container._replace(mode="RGB"))[0]
    assert np.abs(colour.mean(2) - decoded).max() <= 1


@pytest.mark.parametrize("shape", [(63, 64, 3), (64, 65, 3), (64, 64, 4), (32, 32)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"64x64 pixels of 8 bits, not \d+x\d+: scale and crop it first"):
        Codec(network()).compress(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="64x64 pixels of 8 bits"):
        Codec(network()).compress(PIXELS.astype(np.float32))


def test_files_of_other_models_and_impossible_ones() -> None:
    codec = Codec(network())
    container = codec.compress(PIXELS)
    payload = container.tiles[0].payload
    with pytest.raises(CorruptFileError, match="the file needs model"):
        Codec(network(noise=False)).decompress(container)
    for size in ((64, 63), (128, 64)):
        wrong = container._replace(width=size[0], height=size[1], tiles=[Tile(0, 0, *size, payload)])
        with pytest.raises(CorruptFileError, match="not 48 bits for one image of 64x64"):
            codec.decompress(wrong)
    for other in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(CorruptFileError, match="not 48 bits"):
            codec.decompress(container._replace(tiles=[Tile(0, 0, 64, 64, other)], pixels=digest(other)))
    flipped = bytes([payload[0] ^ 1]) + payload[1:]
    with pytest.raises(CorruptFileError, match="checksum of the code"):
        codec.decompress(container._replace(tiles=[Tile(0, 0, 64, 64, flipped)]))
    halves = [Tile(0, 0, 64, 32, payload), Tile(0, 32, 64, 32, payload)]
    with pytest.raises(CorruptFileError, match="not 48 bits"):
        codec.decompress(container._replace(tiles=halves))


def test_two_thousand_damaged_files() -> None:
    """Each ends in one of our errors or, unchanged, in the same symbols; also with a checksum made anew."""
    codec = Codec(network())
    good = pack(codec.compress(PIXELS))
    symbols = codec.read(unpack(good))
    random = np.random.default_rng(1)
    refused = accepted = 0
    for number in range(2000):
        file = bytearray(good)
        kind = number % 4
        if kind == 0:
            file[random.integers(len(file))] ^= 1 << random.integers(8)
        elif kind == 1:
            file = file[: random.integers(len(file))]
        elif kind == 2:
            file[random.integers(len(file)) :] = random.bytes(random.integers(1, 200))
        else:
            for _ in range(random.integers(1, 4)):
                file[random.integers(13, len(file) - 8)] = random.integers(256)
            file[-8:] = digest(bytes(file[:-8]))
        try:
            container = unpack(bytes(file))
            decoded = codec.read(container)
        except CorruptFileError:
            refused += 1
            continue
        assert torch.equal(decoded, symbols), "wrong symbols without an error"
        assert codec.decompress(container).shape[:2] == (64, 64)
        accepted += 1
    assert refused > 1900 and refused + accepted == 2000


def test_samples_without_a_file() -> None:
    torch.manual_seed(0)
    stage1 = GenerativeNet(2, 20)
    stage1.generator[15].weight.data *= 10
    reestimate(stage1.generator, stage1.generator, [torch.randn(8, 20, 1, 1)])
    codec = Codec(stage1)
    samples = codec.sample(3, seed=2)
    assert [s.shape for s in samples] == [(64, 64, 3)] * 3 and not np.array_equal(samples[0], samples[1])
    assert all(np.array_equal(a, b) for a, b in zip(samples, codec.sample(3, seed=2), strict=True))
    assert not np.array_equal(samples[0], codec.sample(1, seed=3)[0])
    with pytest.raises(ValueError, match="stage 1 codes nothing, it only samples"):
        codec.compress(PIXELS)
    assert len(Codec(network()).sample(2)) == 2


def exported(path: Path, name: str, net: torch.nn.Module, **init_args: object) -> Path:
    content = {"class_path": f"modules.dplc.nets.{name}", "init_args": init_args}
    torch.save({"format": 1, "network": content, "state_dict": net.state_dict()}, path)
    return path


def test_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = exported(tmp_path / "code.pt", "CompressionNet", network(), **SMALL)
    Image.fromarray(PIXELS).save(tmp_path / "face.png")
    Image.fromarray(PIXELS[:50]).save(tmp_path / "small.png")

    def run(*words: object) -> int:
        return program.main([str(word) for word in (*words, "--checkpoint", weights)])

    assert run("compress", tmp_path / "face.png", "--output", tmp_path / "out") == 0
    assert (tmp_path / "out" / "face.dplc").stat().st_size == HEADER + 6
    assert run("compress", tmp_path / "small.png", "--output", tmp_path / "out") == 1
    assert "64x64 pixels of 8 bits, not 64x50" in capsys.readouterr().err
    file = tmp_path / "out" / "face.dplc"
    assert run("decompress", file, "--output", tmp_path / "back", "--samples", 3, "--seed", 5) == 0
    names = ["face.1.png", "face.2.png", "face.png"]
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == names
    expected = Codec(network()).draws(unpack(file.read_bytes()), 3, 5)
    for name, pixels in zip(("face.png", "face.1.png", "face.2.png"), expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / "back" / name)), pixels)
    (tmp_path / "back" / "face.png").unlink()
    assert run("decompress", file, "--output", tmp_path / "back", "--samples", 2) == 1
    assert "face.1.png exists; --force overwrites it" in capsys.readouterr().err.replace("\n", "")
    with pytest.raises(SystemExit):
        run("decompress", file, "--output", tmp_path / "back", "--samples", 0)
    assert run("sample", "--samples", 2, "--output", tmp_path / "drawn") == 0
    drawn = [np.asarray(Image.open(tmp_path / "drawn" / f"sample000{k}.png")) for k in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, Codec(network()).sample(2), strict=True))
    assert run("sample", "--samples", 2, "--output", tmp_path / "drawn") == 2
    assert run("sample", "--samples", 2, "--output", tmp_path / "drawn", "--force", "--seed", 1) == 0
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "drawn" / "sample0000.png")), drawn[0])


def test_lossless_methods_decode_to_one_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(PIXELS[:16, :16]).save(tmp_path / "a.png")
    assert program.main(["compress", str(tmp_path / "a.png"), "--output", str(tmp_path)]) == 0
    words = ["decompress", str(tmp_path / "a.pmlp"), "--output", str(tmp_path / "back")]
    assert program.main([*words, "--samples", "2"]) == 1
    assert "pixel_mlp decodes to one image" in capsys.readouterr().err
    assert program.main(words) == 0


def test_a_lossless_file_may_still_not_promise_too_much() -> None:
    container = Codec(network()).compress(PIXELS)
    assert unpack(pack(container)) == container
    with pytest.raises(CorruptFileError, match="cannot describe a tile"):
        large = {"width": 20_000, "height": 2_000, "tiles": [container.tiles[0]._replace(width=20_000, height=2_000)]}
        assert unpack(pack(container._replace(**large))).width == 20_000
        unpack(pack(container._replace(lossy=False, **large)))
