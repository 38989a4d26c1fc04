"""Whole numbers: the parallel pass against int64 by hand, the kernel that decodes against the parallel pass."""

import numpy as np
import pytest
import torch

from modules.components.coding.rans import CorruptStreamError, encode_intervals
from modules.components.exact import InexactWeightsError
from modules.cpm import exact_context
from modules.cpm.exact_context import ExactContext, all_logits, intervals, logits
from modules.cpm.incremental import decode
from modules.cpm.losses import symbol_bits
from tests.modules.cpm.small import network


def draw(shape: tuple[int, int, int], num_symbols: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_symbols, shape, dtype=np.uint8)


def shifted(sums: np.ndarray, bits: int) -> np.ndarray:
    return (sums + (1 << (bits - 1))) >> bits


def by_hand(context: ExactContext, symbols: np.ndarray) -> np.ndarray:
    """Logits [K, h, w, L] in int64, tap by tap."""
    channels, height, width = symbols.shape
    centers = context.centers.numpy().astype(np.int64)
    values = np.full((1, channels + 4, height + 8, width + 8), centers[0])
    values[0, 4:, 4:-4, 4:-4] = centers[symbols]

    def sums(x: np.ndarray, layer: exact_context.IntegerLayer) -> np.ndarray:
        weight = layer.weight.numpy().astype(np.int64)
        depth, rows, columns = (side - cut for side, cut in zip(x.shape[1:], (1, 2, 2), strict=True))
        total = np.zeros((len(weight), depth, rows, columns), np.int64)
        for d in range(2):
            for y in range(3):
                for z in range(3):
                    if (d, y, z) > (1, 1, 1):
                        continue
                    part = x[:, d : d + depth, y : y + rows, z : z + columns]
                    total += np.tensordot(weight[:, :, d, y, z], part, 1)
        return total + layer.bias.numpy().astype(np.int64)[:, None, None, None]

    a = shifted(sums(values, context.first), context.first.bits + 1).clip(0, 2047)
    b = shifted(sums(a, context.second), context.second.bits).clip(0, 2047)
    c = sums(b, context.third) + (a[:, 2:, 2:-2, 2:-2] << context.third.bits)
    c = shifted(c, context.third.bits).clip(-2047, 2047)
    out = shifted(sums(c, context.last), context.last.bits).transpose(1, 2, 3, 0)
    return out.clip(min=0) if context.relu_logits else out


OPTIONS = [{}, {"relu_logits": True}, {"num_centers": 2, "features": 1}, {"num_centers": 11, "features": 24}]


@pytest.mark.parametrize("options", OPTIONS)
def test_the_parallel_pass_is_the_formula_in_int64(options: dict[str, int]):
    context = ExactContext.of(network(**options))
    symbols = draw((3, 5, 4), len(context.centers))
    (found,) = all_logits(context, symbols)
    assert found.dtype == np.int64 and np.array_equal(found, by_hand(context, symbols))


def test_double_precision_and_channels_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch):
    context = ExactContext.of(network())
    symbols = draw((5, 4, 6))
    (whole,) = all_logits(context, symbols)
    monkeypatch.setattr(exact_context, "VALUES_AT_ONCE", 7 * 10 * 12 * 2)
    parts = list(all_logits(context, symbols))
    assert [len(part) for part in parts] == [2, 2, 1] and np.array_equal(np.concatenate(parts), whole)
    layers = [layer._replace(weight=layer.weight.double(), bias=layer.bias.double()) for layer in context[1:5]]
    wide = ExactContext(context.centers.double(), *layers, False)
    values = context.centers[:1].double().expand(9, 12, 14).clone()
    values[4:, 4:-4, 4:-4] = wide.centers[torch.from_numpy(symbols.astype(int))]
    assert np.array_equal(logits(wide, values).long().numpy(), whole)


def test_autocast_does_not_reach_the_exact_pass():
    context, symbols = ExactContext.of(network()), draw((3, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = all_logits(context, symbols)
    assert np.array_equal(found, by_hand(context, symbols))


def test_whole_numbers_are_near_the_float_model():
    net = network()
    with torch.no_grad():
        net.context.last.weight.mul_(0.1)  # logits of a trained model's size
    symbols = draw((5, 9, 8))
    values = net.quantizer.levels[torch.from_numpy(symbols.astype(int))][None]
    expected = net.context_logits(values).detach()[0].permute(1, 2, 3, 0).numpy()
    (found,) = all_logits(ExactContext.of(net), symbols)
    assert np.abs(found / 32 - expected).max() < 0.03 * np.abs(expected).max()
    bits = float(symbol_bits(net.context_logits(values), torch.from_numpy(symbols.astype(int))[None]).detach().sum())
    _, frequencies = intervals(ExactContext.of(net), symbols)
    assert float((16 - np.log2(frequencies.astype(float))).sum()) == pytest.approx(bits, rel=0.01)


def test_intervals_share_out_the_whole_and_follow_the_probabilities():
    scores = np.array([[0, 0, 0], [320, 0, -5], [10_000, -10_000, 9_990], [-7, -8, -9]])
    starts, frequencies = np.empty((2, 4, 3), np.int64)
    for symbol in range(3):
        wanted = np.full(4, symbol)
        exact_context._intervals(scores, wanted, starts[:, symbol], frequencies[:, symbol])
    assert np.array_equal(starts, np.cumsum(frequencies, 1) - frequencies)
    assert (frequencies.sum(1) == 65536).all() and (frequencies >= 1).all()
    p = np.exp((scores - scores.max(1, keepdims=True)) / 32)
    assert np.abs(frequencies / 65536 - p / p.sum(1, keepdims=True)).max() < 1e-4


SHAPES = [(1, 1, 1), (1, 3, 1), (4, 1, 5), (3, 2, 2), (5, 9, 12)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS[:3])
def test_streams_decode_to_their_symbols(shape: tuple[int, int, int], options: dict[str, int]):
    context = ExactContext.of(network(**options))
    symbols = draw(shape, len(context.centers))
    stream = encode_intervals(*intervals(context, symbols))
    decoded = decode(stream, shape, context)
    assert decoded.dtype == np.uint8 and np.array_equal(decoded, symbols)


def test_the_full_size_context_model_decodes_likely_symbols_and_others():
    context = ExactContext.of(network(features=24, channels=6))
    for seed in range(2):
        symbols = draw((6, 10, 11), seed=seed) * draw((6, 10, 11), 2, seed + 9) ** seed
        assert np.array_equal(decode(encode_intervals(*intervals(context, symbols)), symbols.shape, context), symbols)


def test_large_activations_are_clipped_alike():
    net = network()
    with torch.no_grad():
        for parameter in net.context.parameters():
            parameter.mul_(8)
    context = ExactContext.of(net)
    symbols = draw((4, 6, 5))
    assert min(layer.bits for layer in context[1:5]) < 9
    (found,) = all_logits(context, symbols)
    assert np.array_equal(found, by_hand(context, symbols))
    assert np.array_equal(decode(encode_intervals(*intervals(context, symbols)), symbols.shape, context), symbols)


def test_streams_of_another_length_or_shape_are_refused():
    context = ExactContext.of(network())
    stream = encode_intervals(*intervals(context, draw((3, 6, 6))))
    for damaged in (stream[:-4], stream + bytes(4), stream[:7], stream[:-1], b""):
        with pytest.raises(CorruptStreamError):
            decode(damaged, (3, 6, 6), context)
    for shape in ((3, 6, 7), (3, 5, 6), (4, 6, 6)):
        with pytest.raises(CorruptStreamError):
            decode(stream, shape, context)


def test_weights_and_centres_that_cannot_be_exact_are_refused():
    for name, value, message in (
        ("second.weight", 1e3, "second layer"), ("last.bias", float("nan"), "last layer"),
        ("first.weight", 1e6, "first"),
    ):  # fmt: skip
        net = network()
        with torch.no_grad():
            net.context.get_parameter(name).fill_(value)
        with pytest.raises(InexactWeightsError, match=message):
            ExactContext.of(net)
    for value in (33.0, float("nan")):
        net = network()
        with torch.no_grad():
            net.quantizer.levels[2] = value
        with pytest.raises(InexactWeightsError, match="centres must be numbers of at most 31"):
            ExactContext.of(net)


def test_bits_leave_room_for_the_skip_and_for_negative_centres():
    net = network()
    with torch.no_grad():
        for parameter in net.context.parameters():
            parameter.zero_()
        for name, value in (("first", 4.0), ("second", 1.5), ("third", 1.5)):
            getattr(net.context, name).weight[0, 0, 0, 0, 0] = value
        net.quantizer.levels.fill_(0.1)[3] = -31
    context = ExactContext.of(net)
    assert [layer.bits for layer in context[1:4]] == [11, 12, 11]
