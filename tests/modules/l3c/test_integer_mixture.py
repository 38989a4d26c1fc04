import numpy as np
import pytest
import torch

from benchmarks.torchac_tables import decode_mixture_tables, encode_mixture_tables
from modules.components.coding.rans import CorruptStreamError
from modules.l3c.integer_mixture import Grid, decode_mixture, encode_mixture, mixture_tables
from modules.l3c.losses import mixture_log_likelihood
from modules.l3c.nets import RGB, Alphabet

Z = Alphabet(5, 25, -1.0, 1 / 12, is_rgb=False)
K = 10


def example(alphabet: Alphabet, height: int = 9, width: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Symbols [h, w, C] drawn near the means of parameters [h, w, Q]."""
    rng = np.random.default_rng(seed)
    types, c = (4 if alphabet.is_rgb else 3), alphabet.channels
    symbols = rng.integers(0, alphabet.num_symbols, (height, width, c)).astype(np.uint16)
    p = rng.normal(size=(height, width, types, c, K)).astype(np.float32)
    spread = alphabet.step * alphabet.num_symbols / 8
    p[:, :, 1] = (alphabet.low + alphabet.step * symbols)[..., None] + spread * p[:, :, 1]
    p[:, :, 2] += np.log(spread)
    return p.reshape(height, width, -1), symbols


@pytest.mark.parametrize("alphabet", [RGB, Z])
def test_integer_cdf_follows_the_float64_likelihood(alphabet):
    """Each symbol's interval is its probability, up to the rounding of parameters and one unit for the floor."""
    p, symbols = example(alphabet)
    grid = Grid.of(alphabet, K)
    flat_p, known = p.reshape(-1, p.shape[-1]), symbols.reshape(-1, alphabet.channels)
    parameters = torch.from_numpy(flat_p.T[None, :, :, None].astype(np.float64))
    for channel in range(alphabet.channels):
        tables = mixture_tables(flat_p, known, channel, grid)
        assert np.all(tables[:, 0] == 0) and np.all(tables[:, -1] == 65536)
        frequencies = np.diff(tables, axis=1)
        assert frequencies.min() >= 1
        for symbol in range(0, alphabet.num_symbols, 3):
            trial = known.astype(np.float64)
            trial[:, channel] = symbol
            x = torch.from_numpy(alphabet.low + alphabet.step * trial).T[None, :, :, None].contiguous()
            probability = mixture_log_likelihood(parameters, x, alphabet, K)[0, channel, :, 0].exp().numpy()
            expected = probability * (65536 - alphabet.num_symbols) + 1
            assert np.all(np.abs(frequencies[:, symbol] - expected) < 0.08 * expected + 2)


@pytest.mark.parametrize("alphabet", [RGB, Z])
@pytest.mark.parametrize("coder", [(encode_mixture, decode_mixture), (encode_mixture_tables, decode_mixture_tables)])
def test_round_trip(alphabet, coder):
    encode, decode = coder
    p, symbols = example(alphabet)
    grid = Grid.of(alphabet, K)
    stream = encode(p, symbols, grid)
    assert np.array_equal(decode(stream, p, symbols.shape, grid), symbols)


def test_both_coders_use_the_same_cdfs():
    p, symbols = example(RGB, 40, 40)
    grid = Grid.of(RGB, K)
    assert abs(len(encode_mixture(p, symbols, grid)) - len(encode_mixture_tables(p, symbols, grid))) < 40


def test_length_is_the_entropy_of_the_tables():
    p, symbols = example(Z, 32, 32)
    grid = Grid.of(Z, K)
    bits = 0.0
    for channel in range(5):
        tables = mixture_tables(p.reshape(1024, -1), symbols.reshape(1024, 5), channel, grid)
        frequency = np.diff(tables, axis=1)[np.arange(1024), symbols.reshape(1024, 5)[:, channel]]
        bits += np.log2(65536 / frequency).sum()
    assert bits < 8 * len(encode_mixture(p, symbols, grid)) <= bits + 65


@pytest.mark.parametrize("alphabet", [RGB, Z])
@pytest.mark.parametrize("fill", [0.0, -1e30, 1e30, np.inf, -np.inf, np.nan])
def test_every_symbol_can_be_coded_under_any_parameters(alphabet, fill):
    grid = Grid.of(alphabet, K)
    n = alphabet.num_symbols
    symbols = np.repeat(np.arange(n, dtype=np.uint16)[None, :, None], alphabet.channels, 2)
    p = np.full((1, n, alphabet.num_parameters(K)), fill, np.float32)
    assert np.array_equal(decode_mixture(encode_mixture(p, symbols, grid), p, symbols.shape, grid), symbols)


def test_the_first_and_last_symbol_own_the_tails():
    alphabet = Alphabet(1, 256, 0.0, 1.0, is_rgb=False)
    p = np.zeros((2, 3), np.float32)
    p[:, 1] = [-40.0, 300.0]
    tables = mixture_tables(p, np.zeros((2, 1), np.uint16), 0, Grid.of(alphabet, 1))
    assert tables[0, 1] > 65000 and tables[1, 255] < 500


def test_gray_codes_the_first_channel_only():
    p, symbols = example(RGB)
    grid = Grid.of(RGB, K)
    first = np.ascontiguousarray(symbols[..., :1])
    stream = encode_mixture(p, first, grid)
    assert len(stream) < 0.5 * len(encode_mixture(p, symbols, grid))
    assert np.array_equal(decode_mixture(stream, p, first.shape, grid), first)


def test_golden_bytes():
    """Bytes on disk must never change within a format version."""
    p = (np.arange(2 * 2 * 120, dtype=np.float32).reshape(2, 2, 120) * 37 % 101 - 50) / 8
    p[..., 30:60] *= 20
    symbols = (np.arange(12, dtype=np.uint16).reshape(2, 2, 3) * 83) % 256
    stream = encode_mixture(p, symbols, Grid.of(RGB, K))
    assert stream.hex() == "4840a8b62c000000808bf0d7367e949956ab9d71"


@pytest.mark.parametrize("cut", [4, 12, 100])
def test_damage_is_noticed(cut):
    p, symbols = example(RGB)
    grid = Grid.of(RGB, K)
    stream = encode_mixture(p, symbols, grid)
    for damaged in (stream[:-cut], stream + bytes(cut)):
        with pytest.raises(CorruptStreamError):
            decode_mixture(damaged, p, symbols.shape, grid)


def test_too_many_mixtures_are_refused():
    with pytest.raises(ValueError, match="33 mixtures"):
        Grid.of(RGB, 33)


@pytest.mark.parametrize("alphabet", [RGB, Z])
def test_log_scales_below_the_clamp_are_the_clamp(alphabet):
    """Of latents the clamp lies inside the table, at 2.5 log bins above its end; of RGB it is the end."""
    p, symbols = example(alphabet, 3, 3)
    grid, shape = Grid.of(alphabet, K), (3, 3, -1, alphabet.channels, K)
    tables = []
    for log_scale in (-9.0, -7.0, -6.9):
        scaled = p.reshape(shape).copy()
        scaled[:, :, 2] = log_scale
        known = symbols.reshape(9, -1)
        tables.append(mixture_tables(scaled.reshape(9, -1), known, 0, grid))
    assert np.array_equal(tables[0], tables[1])
    if alphabet is Z:
        assert not np.array_equal(tables[1], tables[2])
