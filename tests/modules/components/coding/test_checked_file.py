"""Files are verified from their bytes, not from the object they were packed from."""

import numpy as np
import pytest

from modules.components.coding import checked_file
from modules.components.coding.checked_file import file_of
from modules.components.coding.container import Container, CorruptFileError, DecodeMismatchError, Tile, digest

IMAGE = np.arange(12, dtype=np.uint8).reshape(3, 4)


class Verbatim:
    """Stores the pixels as they are."""

    extension, fingerprint = ".raw", bytes(16)

    def compress(self, image, metadata=None):
        tile = Tile(0, 0, image.shape[1], image.shape[0], image.tobytes())
        return Container("raw", bytes(16), "L", "float32", 1, 4, 3, digest(image.tobytes()), metadata or {}, [tile])

    def decompress(self, container):
        return np.frombuffer(container.tiles[0].payload, np.uint8).reshape(container.height, container.width)


def test_packed_bytes_are_what_is_verified(monkeypatch):
    assert file_of(Verbatim(), IMAGE, {"exif": b"e"})[:4] == b"PSMY"
    pack = checked_file.pack
    monkeypatch.setattr(checked_file, "pack", lambda container: pack(container)[:-1] + b"?")
    with pytest.raises(CorruptFileError, match="checksum"):
        file_of(Verbatim(), IMAGE)
    assert file_of(Verbatim(), IMAGE, verify=False)[-1:] == b"?"


@pytest.mark.parametrize("lost", ["pixels", "metadata"])
def test_what_does_not_come_back_is_an_error(monkeypatch, lost):
    tile = Tile(0, 0, 4, 3, bytes(12))
    change = {"tiles": [tile]} if lost == "pixels" else {"metadata": {}}
    pack = checked_file.pack
    monkeypatch.setattr(checked_file, "pack", lambda container: pack(container._replace(**change)))
    with pytest.raises(DecodeMismatchError, match="did not decode"):
        file_of(Verbatim(), IMAGE, {"exif": b"e"})
