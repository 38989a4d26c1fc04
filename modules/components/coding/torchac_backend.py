"""torchac's arithmetic coder behind the same kind of bytes: dense 16-bit CDF tables in, one stream out.

torchac compiles C++ when it is imported (half a minute the first time, g++ and ninja needed) and prints the build
log, so it is imported on first use, silently.
"""

import contextlib
import functools
import io
from types import ModuleType

import numpy as np
import torch


@functools.cache
def _torchac() -> ModuleType:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import torchac
    except Exception as error:  # whatever the compiler or the extension loader raises
        raise RuntimeError(f"torchac could not be built; it needs g++ and ninja on this machine ({error})") from error
    return torchac


def _as_int16(tables: np.ndarray) -> torch.Tensor:
    """[n, L + 1] integers 0..65536 as torchac wants them: modulo 2^16, so that 65536 becomes 0, in int16."""
    return torch.from_numpy((tables & 0xFFFF).astype(np.uint16).view(np.int16))


def encode_tables(tables: np.ndarray, symbols: np.ndarray) -> bytes:
    """Stream of symbols [n] under dense CDFs [n, L + 1], int64 in 0..65536 and strictly increasing."""
    return _torchac().encode_int16_normalized_cdf(_as_int16(tables), torch.from_numpy(symbols.astype(np.int16)))


def decode_tables(tables: np.ndarray, stream: bytes) -> np.ndarray:
    """Symbols [n] of a stream of ``encode_tables``; a damaged stream gives wrong symbols, not an error."""
    return _torchac().decode_int16_normalized_cdf(_as_int16(tables), stream).numpy().astype(np.int64)
