"""Sizes of the networks, and that padding and the order of time mean what they should."""

import copy
import pickle

import pytest
import torch
from torch import nn

from modules.ecg.convolutions import ConvLayer, ConvStack
from modules.ecg.nets import CNN, CRNN, DirectedLSTM, last_outputs, masked_mean, reverse_by_length


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def expected_convolutions(num_blocks: int, depth: int, width: int = 32) -> int:
    """Weights, biases and two numbers of batch norm for each output channel, by the paper's channel counts."""
    total, channels = 0, 1
    for block in range(1, num_blocks + 1):
        for outputs in [width * block] * (depth - 1) + [width * (block + 1)]:
            total += 25 * channels * outputs + 3 * outputs
            channels = outputs
    return total


def test_parameters_of_the_cnn() -> None:
    with torch.device("meta"):  # sizes without numbers
        network, pooled = CNN(), CNN(downsample="max_pool")
    assert count(network) == expected_convolutions(6, 4) + 224 * 4 + 4 == 9840740
    assert network.features.num_features == 224
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 24
    assert count(pooled) == 9840740


def test_parameters_of_the_crnn() -> None:
    with torch.device("meta"):
        network = CRNN()
    lstm = 2 * (4 * 100 * (480 + 100 + 2) + 2 * 4 * 100 * (100 + 100 + 2))  # two biases, where TF has one
    assert count(network.features) == expected_convolutions(4, 6) == 4845344
    assert count(network.forward_lstm) + count(network.backward_lstm) == lstm == 788800
    assert count(network.dense) == 96200
    assert network.features.num_features == 480
    assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == 24


@pytest.mark.parametrize("downsample", ["stride", "max_pool"])
def test_sizes_after_each_block(downsample: str) -> None:
    stack = ConvStack(6, 1, width=2, downsample=downsample)  # type: ignore[arg-type]
    x, steps = torch.zeros(1, 1, 570, 33), torch.tensor([281])
    sizes = []
    for layer in stack.layers:
        x, steps = layer(x, steps, True)
        sizes.append((x.shape[2], x.shape[3], int(steps)))
    assert sizes == [(285, 17, 141), (143, 9, 71), (72, 5, 36), (36, 3, 18), (18, 2, 9), (9, 1, 5)]


def networks() -> list[nn.Module]:
    torch.manual_seed(0)
    small = {"width": 4, "layers_per_block": 2}
    made: list[nn.Module] = [
        CNN(**small, num_blocks=4),  # type: ignore[arg-type]
        CNN(**small, num_blocks=4, downsample="max_pool", dropout=0.15),  # type: ignore[arg-type]
        CRNN(**small, num_blocks=3, units=5),  # type: ignore[arg-type]
        CRNN(**small, num_blocks=3, units=5, summary="last"),  # type: ignore[arg-type]
        CRNN(**small, num_blocks=3, units=5, head="mean"),  # type: ignore[arg-type]
    ]
    for network in made:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):  # as after training: zero in does not mean zero out
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)  # type: ignore[arg-type]
    return [network.eval() for network in made]


@pytest.mark.parametrize("index", range(5))
def test_more_padding_changes_nothing(index: int) -> None:
    network = networks()[index]
    x = torch.randn(3, 90, 33)
    frames = torch.tensor([90, 37, 1])
    x[1, 37:], x[2, 1:] = 0.0, 0.0
    padded = nn.functional.pad(x, (0, 0, 0, 61), value=3.0)  # whatever stands there
    first, second = network(x, frames), network(padded, frames)
    assert torch.allclose(first.logits, second.logits, atol=1e-5)
    alone = network(x[1:2, :37], frames[1:2])
    assert torch.allclose(first.logits[1:2], alone.logits, atol=1e-5)
    for row, steps in enumerate(first.steps.tolist()):
        assert torch.allclose(first.over_time[row, :steps], second.over_time[row, :steps], atol=1e-5)
        assert not second.over_time[row, steps:].any()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_course_averages_to_the_result(index: int) -> None:
    output = networks()[index](torch.randn(2, 80, 33), torch.tensor([80, 50]))
    assert torch.allclose(masked_mean(output.over_time, output.steps), output.logits, atol=1e-5)


def test_masked_mean_by_hand() -> None:
    x = torch.tensor([[[1.0], [3.0], [100.0]], [[2.0], [4.0], [6.0]]])
    assert masked_mean(x, torch.tensor([2, 3])).tolist() == [[2.0], [4.0]]


def test_reversal_is_by_length() -> None:
    x = torch.arange(8.0).view(2, 4, 1)
    result = reverse_by_length(x, torch.tensor([3, 4]))
    assert result.flatten().tolist() == [2, 1, 0, 3, 7, 6, 5, 4]
    assert torch.equal(reverse_by_length(result, torch.tensor([3, 4])), x)


def test_last_outputs_of_both_directions() -> None:
    hidden = torch.arange(12.0).view(1, 3, 4)
    assert last_outputs(hidden, torch.tensor([2])).tolist() == [[0.0, 1.0, 6.0, 7.0]]


def test_the_lstms_look_in_their_direction_only() -> None:
    network = networks()[2]
    x, steps = torch.randn(1, 6, network.forward_lstm.lstm.input_size), torch.tensor([5])
    changed = x.clone()
    changed[0, 2] += 1.0
    forward = (network.forward_lstm(x, steps) != network.forward_lstm(changed, steps)).any(2)[0]
    backward = (network.backward_lstm(x, steps) != network.backward_lstm(changed, steps)).any(2)[0]
    assert forward.tolist() == [False, False, True, True, True, False]
    assert backward.tolist() == [True, True, True, False, False, False]


def test_an_lstm_is_a_packed_one() -> None:
    """torch's own way with sequences of different length."""
    stack = networks()[2].forward_lstm
    x, steps = torch.randn(2, 7, stack.lstm.input_size), torch.tensor([7, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, steps, batch_first=True)
    expected, _ = nn.utils.rnn.pad_packed_sequence(stack.lstm(packed)[0], batch_first=True)
    assert torch.allclose(stack(x, steps), expected, atol=1e-6)


def test_heads_and_gradients() -> None:
    network = CRNN(num_blocks=2, layers_per_block=1, width=2, units=3, head="mean")
    x, frames = torch.randn(2, 20, 33), torch.tensor([20, 12])

    def trained() -> set[str]:
        network.zero_grad()
        network(x, frames).logits.sum().backward()
        return {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}

    assert trained() == {"features", "dense", "classifier"}
    network.head, network.train_features = "lstm", False
    assert trained() == {"forward_lstm", "backward_lstm", "classifier"}
    network.train_features = True
    assert trained() == {"features", "forward_lstm", "backward_lstm", "classifier"}
    copy = CRNN(num_blocks=2, layers_per_block=1, width=2, units=3, head="mean")
    copy.load_state_dict(network.state_dict())
    assert copy.head == "lstm"
    for wrong in ({"head": "attention"}, {"summary": "first"}, {"downsample": "average"}):
        with pytest.raises(ValueError, match="must be"):
            CRNN(**wrong)  # type: ignore[arg-type]


def test_dropout_of_the_convolutions_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    stack = ConvStack(2, 2, width=8, dropout=0.4)
    x, frames = torch.randn(2, 60, 33), torch.tensor([60, 60])
    for layer in stack.layers:
        layer.norm.bias.data.fill_(100.0)  # type: ignore[union-attr]  # ReLU makes no zero
    shares = []
    for layer in stack.layers:
        layer.register_forward_hook(lambda layer, inputs, output: shares.append(output[0].eq(0).float().mean()))
    stack(x, frames)
    assert len(shares) == 4 and all(float(share) == pytest.approx(0.4, abs=0.03) for share in shares)
    first, second = stack(x, frames)[0], stack(x, frames)[0]
    assert not torch.equal(first, second)
    stack.eval()
    shares.clear()
    assert torch.equal(stack(x, frames)[0], stack(x, frames)[0]) and not any(shares)


def test_dropout_of_an_lstm_follows_every_layer() -> None:
    torch.manual_seed(0)
    stack = DirectedLSTM(4, 50, 2, 0.4, backward=False)
    x, steps = torch.randn(3, 40, 4), torch.tensor([40, 40, 40])
    assert float(stack(x, steps).eq(0).float().mean()) == pytest.approx(0.4, abs=0.03)
    assert stack.lstm.dropout == 0.4  # between its layers
    assert DirectedLSTM(4, 5, 1, 0.4, backward=False).lstm.dropout == 0.0
    stack.eval()
    assert stack(x, steps).ne(0).all() and torch.equal(stack(x, steps), stack(x, steps))


def test_initial_weights() -> None:
    """Glorot uniform, of an LSTM gate by gate, with a forget bias of 1."""
    torch.manual_seed(0)
    stack = DirectedLSTM(40, 30, 2, 0.0, backward=True)
    for name, parameter in stack.lstm.named_parameters():
        if "weight" in name:
            limit = (6 / (30 + parameter.shape[1])) ** 0.5
            assert 0.95 * limit < parameter.abs().max() <= limit
        else:
            gates = parameter.view(4, 30)  # input, forget, cell, output
            assert gates[1].eq(float("bias_ih" in name)).all() and not gates[[0, 2, 3]].any()
    network = CNN(num_blocks=1, layers_per_block=2, width=16, norm_momentum=0.3)
    convolution, norm = network.features.layers[1].conv, network.features.layers[1].norm
    limit = (6 / (25 * (16 + 32))) ** 0.5
    assert 0.95 * limit < convolution.weight.abs().max() <= limit and not convolution.bias.any()  # type: ignore[union-attr]
    assert (norm.eps, norm.momentum) == (1e-3, 0.3)


def test_padding_leaks_where_it_is_not_masked() -> None:
    torch.manual_seed(0)
    network = CNN(num_blocks=2, layers_per_block=1, width=2, mask_padding=False).eval()
    x, frames = torch.randn(1, 40, 33), torch.tensor([40])
    wide = nn.functional.pad(x, (0, 0, 0, 21), value=3.0)
    assert not torch.allclose(network(x, frames).logits, network(wide, frames).logits, atol=1e-4)


def test_summaries_are_of_the_hidden_states() -> None:
    torch.manual_seed(0)
    by_mean = CRNN(num_blocks=2, layers_per_block=1, width=2, units=3).eval()
    by_last = CRNN(num_blocks=2, layers_per_block=1, width=2, units=3, summary="last").eval()
    by_last.load_state_dict(by_mean.state_dict())
    x, frames = torch.randn(2, 40, 33), torch.tensor([40, 22])
    mean, last = by_mean(x, frames), by_last(x, frames)
    assert torch.equal(mean.over_time, last.over_time) and not torch.allclose(mean.logits, last.logits, atol=1e-4)


def test_the_head_in_use_survives_copies_and_states() -> None:
    network = CRNN(num_blocks=2, layers_per_block=1, width=2, units=3, head="mean")
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied.head == "mean"
    other = CRNN(num_blocks=2, layers_per_block=1, width=2, units=3, head="lstm")
    other.load_state_dict(network.state_dict())
    assert other.head == "mean" and not other.uses_lstm
    other.head = "lstm"
    assert bool(other.state_dict()["uses_lstm"]) and network.head == "mean"


@pytest.mark.parametrize("bins", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
def test_low_precision_convolves_narrow_spectrograms(kernel: int, bins: int) -> None:
    """Without other memory, which some CPUs take in: NaN lies about, and every run is as float32 would have it."""
    torch.manual_seed(0)
    layer = ConvLayer(96, 112, kernel, "stride", dropout=0.0, norm_momentum=0.1)
    x = torch.randn(20, 96, 7, bins).contiguous(memory_format=torch.channels_last).bfloat16()
    exact = layer.conv(x.float())
    for _ in range(5):
        trash = [torch.full((size,), torch.nan, dtype=torch.bfloat16) for size in (10**4, 10**5, 10**6)]
        del trash
        with torch.autocast("cpu", torch.bfloat16):
            found = layer.convolved(x)
        assert found.shape == exact.shape and found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.02)
