import numpy as np
import pytest

from benchmarks.torchac_tables import as_int16, decode_tables, encode_tables


def test_cdf_values_above_32767_keep_their_bits():
    tables = np.array([[0, 1, 32767, 32768, 65535, 65536]])
    assert as_int16(tables).numpy().view(np.uint16).tolist() == [[0, 1, 32767, 32768, 65535, 0]]


@pytest.mark.parametrize("num_symbols", [2, 256])
def test_round_trip_and_length(num_symbols):
    rng = np.random.default_rng(0)
    frequencies = rng.integers(1, 100, (500, num_symbols))
    edges = np.cumsum(frequencies, 1) * (65536 - num_symbols) // frequencies.sum(1, keepdims=True)
    tables = np.concatenate([np.zeros((500, 1), np.int64), edges + np.arange(1, num_symbols + 1)], 1)
    symbols = rng.integers(0, num_symbols, 500)
    stream = encode_tables(tables, symbols)
    assert np.array_equal(decode_tables(tables, stream), symbols)
    chosen = np.diff(tables, axis=1)[np.arange(500), symbols]
    assert 8 * len(stream) == pytest.approx(np.log2(65536 / chosen).sum(), abs=32)
