"""Ternary numbers as bytes: four in a byte for arithmetic, five in a byte for files."""

import numpy as np

PER_BYTE = {2: 4, 3: 5}
"""Base of the digits -> digits in a byte: 2 bits or 1.6 bits each."""


def packed_size(count: int, base: int) -> int:
    return -(-count // PER_BYTE[base])


def pack_ternary(values: np.ndarray, base: int = 3) -> bytes:
    """-1, 0, 1 as digits 0, 1, 2: with base 3 five in a byte, with base 2 four of two bits; the first is the lowest.

    Raises:
        ValueError: for other numbers.
    """
    digits = values.ravel().astype(np.int64) + 1
    if digits.size and (digits.min() < 0 or digits.max() > 2 or (digits - 1 != values.ravel()).any()):
        raise ValueError("only -1, 0 and 1 can be packed")
    per_byte, step = PER_BYTE[base], 3 if base == 3 else 4
    padded = np.zeros(packed_size(digits.size, base) * per_byte, np.int64)
    padded[: digits.size] = digits
    return (padded.reshape(-1, per_byte) @ step ** np.arange(per_byte)).astype(np.uint8).tobytes()


def unpack_ternary(data: bytes, count: int, base: int = 3) -> np.ndarray:
    """The inverse: int8 [count].

    Raises:
        ValueError: for bytes that ``pack_ternary`` does not write: of another length, or with a digit 3.
    """
    if len(data) != packed_size(count, base):
        raise ValueError(f"{count} ternary numbers take {packed_size(count, base)} bytes, not {len(data)}")
    per_byte, step = PER_BYTE[base], 3 if base == 3 else 4
    codes = np.frombuffer(data, np.uint8).astype(np.int64)
    digits = (codes[:, None] // step ** np.arange(per_byte) % step).ravel()
    if (base == 3 and codes.size and codes.max() >= 243) or (digits > 2).any() or digits[count:].any():
        raise ValueError("bytes that are no ternary numbers")
    return (digits[:count] - 1).astype(np.int8)
