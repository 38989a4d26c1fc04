import numpy as np
import pytest

from modules.components.coding.rans import (
    LOWER,
    TOTAL,
    CorruptStreamError,
    check_exhausted,
    decode_uniform,
    encode_intervals,
    encode_uniform,
    open_stream,
    uniform_edge,
)


def reference_encode(starts: list[int], frequencies: list[int]) -> bytes:
    """The textbook recursion on Python's unbounded integers, word by word."""
    state, words = 1 << 31, []
    for start, frequency in zip(reversed(starts), reversed(frequencies), strict=True):
        if state >= frequency << 47:
            words.insert(0, state & 0xFFFFFFFF)
            state >>= 32
        state = (state // frequency << 16) + state % frequency + start
    return state.to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in words)


def test_stream_equals_the_recursion_on_exact_integers():
    rng = np.random.default_rng(0)
    frequencies = np.concatenate([rng.integers(1, 3000, 300), [1, 1, 65281, TOTAL - 1]])
    starts = np.array([int(rng.integers(0, TOTAL - f + 1)) for f in frequencies])
    stream = encode_intervals(starts.astype(np.uint16), frequencies.astype(np.uint16))
    assert stream == reference_encode(starts.tolist(), frequencies.tolist())


@pytest.mark.parametrize("num_symbols", [2, 25, 256, 1000])
@pytest.mark.parametrize("count", [0, 1, 5, 4096])
def test_uniform_round_trip_and_length(num_symbols, count):
    symbols = np.random.default_rng(count).integers(0, num_symbols, count)
    stream = encode_uniform(symbols, num_symbols)
    assert np.array_equal(decode_uniform(stream, count, num_symbols), symbols)
    assert 8 * len(stream) <= count * np.log2(num_symbols) * 1.01 + 64 + 32


def test_uniform_intervals_cover_everything_once():
    edges = uniform_edge(np.arange(26), 25)
    assert edges[0] == 0 and edges[-1] == TOTAL and np.all(np.diff(edges) > 0)


def test_golden_bytes():
    assert encode_uniform(np.arange(25), 25).hex() == "5d024fc9868d0800c839ed14ca7eba8f98c9d76e"


@pytest.mark.parametrize("damage", ["cut", "append", "ragged", "empty", "state"])
def test_damage_is_noticed(damage):
    stream = encode_uniform(np.random.default_rng(1).integers(0, 25, 500), 25)
    damaged = {
        "cut": stream[:-4],
        "append": stream + b"\0\0\0\0",
        "ragged": stream[:-1],
        "empty": b"",
        "state": bytes(8) + stream[8:],
    }[damage]
    with pytest.raises(CorruptStreamError):
        decode_uniform(damaged, 500, 25)


def test_a_stream_ends_in_the_first_state_with_no_word_left():
    words = np.zeros(3, np.uint32)
    check_exhausted(LOWER, 3, words)
    for state, position in ((LOWER + np.uint64(1), 3), (LOWER - np.uint64(1), 3), (LOWER, 2), (LOWER, 4)):
        with pytest.raises(CorruptStreamError, match="end where"):
            check_exhausted(state, position, words)


@pytest.mark.parametrize(("state", "possible"), [(0, False), ((1 << 31) - 1, False), (1 << 31, True), (1 << 63, False)])
def test_states_that_no_encoder_ends_in_are_refused(state, possible):
    stream = state.to_bytes(8, "little")
    if possible:
        assert open_stream(stream)[0] == state
    else:
        with pytest.raises(CorruptStreamError, match="impossible state"):
            open_stream(stream)
