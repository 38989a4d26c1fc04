"""Files: sizes, tiles, gray, stored tiles, other settings, damage."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import codec as program
from modules.components.coding.container import CorruptFileError, pack, unpack
from modules.components.coding.model_file import save_weights
from modules.components.exact import InexactWeightsError
from modules.pixel_mlp import codec as codec_file
from modules.pixel_mlp.codec import Codec, spans
from modules.pixel_mlp.nets import PixelMLP
from tests.modules.pixel_mlp.test_nets import network
from tests.modules.pixel_mlp.test_wavefront import pixels


def test_round_trip_of_colour_and_gray_through_bytes():
    codec = Codec(network())
    for image in (pixels(0, 37, 41), pixels(1, 20, 30)[..., 0].copy(), pixels(2, 1, 1)):
        container = unpack(pack(codec.compress(image, {"exif": b"Exif"})))
        assert np.array_equal(codec.decompress(container), image) and container.metadata == {"exif": b"Exif"}
        assert container.mode == ("L" if image.ndim == 2 else "RGB") and container.threads == 0


def test_tiles_cover_an_image_and_are_coded_apart(monkeypatch):
    monkeypatch.setattr(codec_file, "MAX_TILE", 16)
    assert (
        spans(16) == [(0, 16)]
        and spans(17) == [(0, 8), (8, 9)]
        and spans(50) == [(0, 12), (12, 13), (25, 12), (37, 13)]
    )
    codec, image = Codec(network()), pixels(3, 40, 33)
    container = unpack(pack(codec.compress(image)))
    assert len(container.tiles) == 9 and np.array_equal(codec.decompress(container), image)
    changed = image.copy()
    changed[0, 0] ^= 1
    differ = [a.payload != b.payload for a, b in zip(container.tiles, codec.compress(changed).tiles, strict=True)]
    assert differ == [True] + [False] * 8


def test_flat_and_drawn_pictures_are_stored_as_webp_would():
    codec = Codec(network())
    drawn = np.zeros((64, 64, 3), np.uint8)
    drawn[10:20, 5:50] = 255
    for image in (np.full((64, 64, 3), 255, np.uint8), drawn, drawn[..., 0].copy()):
        container = codec.compress(image)
        assert container.tiles[0].payload[0] == codec_file.STORED
        assert np.array_equal(codec.decompress(unpack(pack(container))), image)
        buffer = io.BytesIO()
        Image.fromarray(np.broadcast_to(image[..., None] if image.ndim == 2 else image, (64, 64, 3)).copy()).save(
            buffer, "WEBP", lossless=True
        )
        assert len(container.tiles[0].payload) <= buffer.tell() + 1


def test_the_shorter_of_stream_and_webp_is_kept(monkeypatch):
    codec, image = Codec(network()), pixels(0, 32, 32)
    stream = codec_file.encode_tile(image, codec.predictors)
    for size, kept in ((len(stream) - 1, codec_file.STORED), (len(stream), codec_file.NETWORK)):
        monkeypatch.setattr(codec_file, "store", lambda pixels, rival, size=size: bytes(size))
        payload = codec.encode(image)
        assert payload[0] == kept and len(payload) == size + 1


def test_a_thorough_webp_is_tried_only_where_it_may_win(monkeypatch):
    qualities = []
    save = Image.Image.save
    monkeypatch.setattr(Image.Image, "save", lambda *a, **k: qualities.append(k["quality"]) or save(*a, **k))
    image = pixels(0, 32, 32)
    quick = len(codec_file.store(image, 1))
    assert qualities == [0]
    for rival, tried in ((quick / 1.11, [0, 75]), (quick / 1.13, [0])):
        qualities.clear()
        codec_file.store(image, rival)
        assert qualities == tried


def test_tiles_that_no_encoder_makes_are_refused(monkeypatch):
    codec, images = Codec(network()), (pixels(0, 8, 17), pixels(1, 17, 8), pixels(2, 16, 16))
    containers = [codec.compress(image) for image in images]
    monkeypatch.setattr(codec_file, "MAX_TILE", 16)
    for container in containers[:2]:
        with pytest.raises(CorruptFileError, match="a tile of more than 16 pixels a side"):
            codec.decompress(container)
    assert np.array_equal(codec.decompress(containers[2]), images[2])


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_do_not_depend_on_the_number_of_threads(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        file = pack(Codec(network()).compress(pixels(4, 50, 60)))
    finally:
        torch.set_num_threads(before)
    assert file == pack(Codec(network()).compress(pixels(4, 50, 60)))


def test_only_eight_bit_pixels_are_taken():
    codec = Codec(network())
    for image in (np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint16), np.zeros((4, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="need uint8"):
            codec.compress(image)


def test_other_devices_precisions_and_models_are_refused():
    for options, message in (
        ({"device": "nonsense"}, "no device 'nonsense'"),
        ({"precision": "float64"}, "no float64"),
    ):
        with pytest.raises(ValueError, match=message):
            Codec(network(), **options)
    container = Codec(network(0)).compress(pixels(0, 8, 8))
    with pytest.raises(CorruptFileError, match="needs model"):
        Codec(network(1)).decompress(container)


def test_weights_beyond_the_bound_are_refused_at_load(capsys):
    net = network()
    net.channels[1].layers[1].weight.data[3] *= 1000
    with pytest.raises(InexactWeightsError, match="layer 2"):
        Codec(net)
    network_config = {"class_path": "modules.pixel_mlp.nets.PixelMLP", "init_args": net.init_args}
    save_weights(Path("wild.pt"), network_config, net.state_dict(), half=False)
    Image.fromarray(pixels(0, 8, 8)).save("a.png")
    assert program.main(["compress", "a.png", "--output", "out", "--checkpoint", "wild.pt"]) == 2
    assert "layer 2 can sum up to" in capsys.readouterr().err and not Path("out").exists()


def test_altered_payloads_never_give_wrong_pixels():
    random = np.random.default_rng(0)
    codec, image = Codec(network()), pixels(5, 24, 24)
    flat = np.full((24, 24, 3), 7, np.uint8)
    for original in (image, flat):
        container = codec.compress(original)
        payload = bytearray(container.tiles[0].payload)
        for _ in range(150):
            changed = bytearray(payload)
            where = int(random.integers(len(changed)))
            if random.integers(4) == 0:
                del changed[where:]
            else:
                changed[where] ^= 1 << int(random.integers(8))
            tile = container.tiles[0]._replace(payload=bytes(changed))
            try:
                decoded = codec.decompress(container._replace(tiles=[tile]))
            except CorruptFileError:
                continue
            assert np.array_equal(decoded, original)  # WebP has bits that mean nothing


def test_a_tile_of_another_size_or_kind_is_refused():
    codec = Codec(network())
    container = codec.compress(np.full((24, 24, 3), 7, np.uint8))
    other = codec.compress(np.full((24, 20, 3), 7, np.uint8)).tiles[0].payload
    for payload in (other, b"", bytes([7]) + container.tiles[0].payload):
        with pytest.raises(CorruptFileError):
            codec.decompress(container._replace(tiles=[container.tiles[0]._replace(payload=payload)]))


def test_a_file_from_before_the_histograms_is_refused_in_one_line():
    codec = Codec(network())
    container = codec.compress(pixels(0, 24, 24))
    payload = bytes([codec_file.WITHOUT_HISTOGRAMS]) + container.tiles[0].payload[1:]
    assert payload[0] == 0
    with pytest.raises(CorruptFileError, match=r"^a tile was written by an earlier version of this codec[^\n]*$"):
        codec.decompress(container._replace(tiles=[container.tiles[0]._replace(payload=payload)]))


def test_every_weight_is_in_the_fingerprint():
    before = Codec(network()).fingerprint
    net = network()
    net.channels[2].skip.data[5] += 0.01
    assert Codec(net).fingerprint != before
    assert Codec(PixelMLP(8, 1, 2)).fingerprint != Codec(PixelMLP(8, 2, 2)).fingerprint
