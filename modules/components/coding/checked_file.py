"""What every codec does with its containers: nothing is written that has not been decoded from its bytes."""

from typing import Any, Protocol

import numpy as np

from modules.components.coding.container import Container, DecodeMismatchError, pack, unpack


class Codec(Protocol):
    """A lossless one; a lossy one also has ``read``."""

    extension: str
    fingerprint: bytes

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container: ...

    def decompress(self, container: Container) -> np.ndarray: ...


def file_of(
    codec: Codec, image: np.ndarray, metadata: dict[str, bytes] | None = None, verify: bool = True, **wishes: Any
) -> bytes:
    """The bytes of a file; with ``verify`` they have been unpacked and decoded again and every byte compared.

    Of a lossy codec what it keeps exactly is decoded and compared by its checksum: ``codec.read(container)``.

    Args:
        wishes: more arguments of ``codec.compress``.

    Raises:
        ValueError: for an image or metadata that the codec or the format cannot hold.
        CorruptFileError, DecodeMismatchError: if the bytes do not come back as this image and metadata; nothing should
            be written then.
    """
    file = pack(codec.compress(image, metadata, **wishes))
    if verify:
        container = unpack(file)
        if container.lossy:
            codec.read(container)  # type: ignore[attr-defined]
        if container.metadata != (metadata or {}):
            raise DecodeMismatchError("the compressed file did not decode to the same metadata")
        if not container.lossy and not np.array_equal(codec.decompress(container), image):
            raise DecodeMismatchError("the compressed file did not decode to the same pixels and metadata")
    return file
