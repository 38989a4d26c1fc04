"""What every lossless codec does with its containers: nothing is written that has not been decoded from its bytes."""

from typing import Protocol

import numpy as np

from modules.components.coding.container import Container, DecodeMismatchError, pack, unpack


class LosslessCodec(Protocol):
    extension: str
    fingerprint: bytes

    def compress(self, image: np.ndarray, metadata: dict[str, bytes] | None = None) -> Container: ...

    def decompress(self, container: Container) -> np.ndarray: ...


def file_of(
    codec: LosslessCodec, image: np.ndarray, metadata: dict[str, bytes] | None = None, verify: bool = True
) -> bytes:
    """The bytes of a file; with ``verify`` they have been unpacked and decoded again and every byte compared.

    Raises:
        ValueError: for an image or metadata that the codec or the format cannot hold.
        DecodeMismatchError: if the bytes do not come back as this image and metadata; nothing should be written then.
    """
    file = pack(codec.compress(image, metadata))
    if verify:
        container = unpack(file)
        if container.metadata != (metadata or {}) or not np.array_equal(codec.decompress(container), image):
            raise DecodeMismatchError("the compressed file did not decode to the same pixels and metadata")
    return file
