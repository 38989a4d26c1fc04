import random
import struct

import pytest

from modules.components.coding.container import (
    Container,
    CorruptFileError,
    Tile,
    digest,
    pack,
    unpack,
)


def container(**changes) -> Container:
    tiles = [Tile(0, 0, 8, 5, b"abcd"), Tile(8, 0, 3, 5, b"efg"), Tile(0, 5, 11, 2, b"")]
    tiles[2] = tiles[2]._replace(payload=b"hi")
    values = {
        "method": "l3c",
        "model": bytes(range(16)),
        "mode": "RGB",
        "precision": "float32",
        "threads": 2,
        "width": 11,
        "height": 7,
        "pixels": b"12345678",
        "metadata": {"icc_profile": b"p" * 1000, "exif": b"e"},
        "tiles": tiles,
    }
    return Container(**(values | changes))


def resealed(file: bytes) -> bytes:
    """The file with a length and a checksum that fit: damage that only the inner checks can see."""
    file = file[:5] + struct.pack("<Q", len(file) - 21) + file[13:-8]
    return file + digest(file)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("metadata", [{}, {"exif": b"\0\1"}])
def test_round_trip(mode, metadata):
    written = container(mode=mode, metadata=metadata)
    assert unpack(pack(written)) == written


def test_golden_header():
    assert (
        pack(container(metadata={}))[:30].hex()
        == "50534d5902" + "7500000000000000" + "036c3363" + "000102030405060708090a0b0c"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 12}, "tiles"),
        ({"height": 8}, "tiles"),
        ({"width": 2**31, "height": 2**31}, "pixels"),
        ({"width": 0}, "pixels"),
        ({"tiles": []}, "cover"),
        ({"tiles": [Tile(0, 0, 8, 5, b"abcd"), Tile(8, 1, 3, 5, b"efg"), Tile(0, 5, 11, 2, b"hi")]}, "overlap"),
        ({"tiles": [Tile(0, 0, 8, 5, b"abcd"), Tile(7, 0, 3, 5, b"efg"), Tile(0, 5, 11, 2, b"hi")]}, "overlap"),
        ({"tiles": [Tile(0, 0, 8, 5, b"abcd"), Tile(8, 0, 3, 4, b"efg"), Tile(0, 5, 11, 2, b"hi")]}, "overlap"),
        ({"tiles": [Tile(0, 0, 11, 7, b"abcd"), Tile(0, 0, 11, 7, b"abcd")]}, "more tiles"),
        ({"method": "../../etc"}, "name"),
        ({"method": ""}, "name"),
        ({"tiles": [Tile(0, 0, 11, 7, b"")]}, "describe"),
        ({"width": 14000, "height": 14000, "tiles": [Tile(0, 0, 14000, 14000, b"x" * 1000)]}, "describe"),
    ],
)
def test_impossible_contents_are_refused(change, message):
    with pytest.raises(CorruptFileError, match=message):
        unpack(pack(container(**change)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: b"", "PSMY"),
        (lambda f: b"\x89PNG" + f[4:], "PSMY"),
        (lambda f: f[:12], "cut short"),
        (lambda f: f[:-1], "cut short"),
        (lambda f: f + b"\0", "appended"),
        (lambda f: f[:4] + b"\3" + f[5:], "version 3"),
        (lambda f: f[:4] + b"\1" + f[5:], "version 1.* release that wrote it"),
        (lambda f: f[:40] + bytes([f[40] ^ 1]) + f[41:], "checksum"),
    ],
)
def test_damage_is_named(damage, message):
    with pytest.raises(CorruptFileError, match=message):
        unpack(damage(pack(container())))


def test_two_thousand_resealed_corruptions_are_refused_or_consistent():
    file = pack(container())
    rng = random.Random(0)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(file)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(13, len(damaged) - 8)] = rng.choice([0, 1, 127, 255, rng.randrange(256)])
        if rng.random() < 0.3:
            del damaged[rng.randrange(13, len(damaged) - 8) : -8]
        try:
            contents = unpack(resealed(bytes(damaged)))
        except CorruptFileError:
            refused += 1
        else:
            assert sum(t.width * t.height for t in contents.tiles) == contents.width * contents.height
    assert refused > 500


def test_metadata_bomb_is_refused():
    import zlib

    bomb = zlib.compress(bytes(1 << 26), 9)
    file = pack(container(metadata={}))
    start = file.index(b"12345678") + 8
    bombed = file[:start] + struct.pack("<I", len(bomb)) + bomb + file[start + 4 :]
    with pytest.raises(CorruptFileError, match="too large"):
        unpack(resealed(bombed))


def test_a_payload_must_be_possible_for_all_channels():
    """5e-5 bits a sub-pixel: 125 bytes for 20 million gray pixels, three times as many for RGB."""
    for mode, least in (("L", 125), ("RGB", 375)):
        for length, possible in ((least, True), (least - 1, False)):
            tile = Tile(0, 0, 1000, 20_000, bytes(length))
            file = pack(container(mode=mode, width=1000, height=20_000, tiles=[tile]))
            if possible:
                assert unpack(file).tiles == [tile]
            else:
                with pytest.raises(CorruptFileError, match="cannot describe"):
                    unpack(file)


def test_bytes_after_the_last_tile_are_refused():
    file = pack(container())
    with pytest.raises(CorruptFileError, match="left after the last tile"):
        unpack(resealed(file[:-8] + b"\0" + file[-8:]))


def test_a_false_number_of_tiles_is_refused_at_once():
    file = bytearray(pack(container(metadata={})))
    start = file.index(b"12345678") + 12
    assert file[start : start + 4] == struct.pack("<I", 3)
    file[start : start + 4] = b"\xff" * 4
    with pytest.raises(CorruptFileError, match="4294967295 tiles cannot be in"):
        unpack(resealed(bytes(file)))


def test_more_metadata_than_the_format_holds_is_not_written():
    with pytest.raises(ValueError, match="more than the format"):
        pack(container(metadata={"exif": bytes(1 << 24)}))
