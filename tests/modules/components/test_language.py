"""Sizes of the language models, their state over windows, causality, and words from characters by brute force."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.components.language import CharacterCNN, CNNLSTMLanguageModel, Highway, LSTMLanguageModel


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("layers", "tied", "millions"), [(2, True, 51.0), (1, True, 33.0), (1, False, 48.0), (2, False, 66.0)]
)
def test_parameters_of_the_lstm(layers: int, tied: bool, millions: float) -> None:
    with torch.device("meta"):  # sizes without numbers
        network = LSTMLanguageModel(layers=layers, tied=tied)
    lstm = layers * (4 * 1500 * (1500 + 1500) + 2 * 4 * 1500)
    assert count(network) == (1 if tied else 2) * 10000 * 1500 + lstm + 10000
    assert count(network) / 1e6 == pytest.approx(millions, abs=0.05)


def test_two_tied_layers_are_the_default() -> None:
    with torch.device("meta"):
        assert count(LSTMLanguageModel()) == 51034000


def test_parameters_of_the_cnn_lstm() -> None:
    with torch.device("meta"):
        network = CNNLSTMLanguageModel()
    filters = [min(200, 50 * width) for width in range(1, 8)]
    cnn = 15 * sum(width * channels for width, channels in enumerate(filters, 1)) + 1100
    lstm = 4 * 650 * (1100 + 650 + 2) + 4 * 650 * (650 + 650 + 2)
    assert network.words.num_features == sum(filters) == 1100
    assert count(network) == 51 * 15 + cnn + 2 * 2 * (1100**2 + 1100) + lstm + 651 * 10000
    assert count(network) / 1e6 == pytest.approx(19.4, abs=0.05)


def small(kind: str, dropout: float = 0.5) -> LSTMLanguageModel | CNNLSTMLanguageModel:
    torch.manual_seed(0)
    if kind == "tied":
        return LSTMLanguageModel(13, 6, 2, dropout)
    if kind == "untied":
        return LSTMLanguageModel(13, 6, 1, dropout, tied=False)
    return CNNLSTMLanguageModel(13, 9, 3, (4, 2, 3), 2, 6, 2, dropout)


def window(kind: str, steps: int, streams: int) -> Tensor:
    """Words, or characters of words of 1 to 5 characters and padding."""
    if kind != "characters":
        return torch.randint(13, (steps, streams))
    chars = torch.randint(1, 9, (steps, streams, 5))
    return chars * (torch.arange(5) < torch.randint(1, 6, (steps, streams, 1)))


KINDS = pytest.mark.parametrize("kind", ["tied", "untied", "characters"])


@KINDS
def test_shapes_and_gradients(kind: str) -> None:
    network = small(kind)
    logits, state = network(window(kind, 7, 3))
    assert logits.shape == (7, 3, 13)
    layers = 1 if kind == "untied" else 2
    assert isinstance(state, tuple) and [part.shape for part in state] == [(layers, 3, 6)] * 2
    functional.cross_entropy(logits.flatten(0, 1), torch.randint(13, (21,))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


@KINDS
def test_two_windows_are_one_long_window(kind: str) -> None:
    network, inputs = small(kind).eval(), window(kind, 9, 2)
    whole, last = network(inputs)
    first, state = network(inputs[:4])
    second, state = network(inputs[4:], state)
    assert torch.allclose(torch.cat([first, second]), whole, atol=1e-6)
    for part, expected in zip(state, last, strict=True):
        assert torch.allclose(part, expected, atol=1e-6)
    assert not torch.allclose(network(inputs[4:])[0], second, atol=1e-4)  # the state does matter


@KINDS
def test_words_to_come_have_no_influence(kind: str) -> None:
    network, inputs = small(kind).eval(), window(kind, 6, 2)
    changed = inputs.clone()
    changed[3, 0] = (inputs[3, 0] + 1) % 9
    differs = (network(inputs)[0] != network(changed)[0]).any(2)
    assert differs.tolist() == [[False, False]] * 3 + [[True, False]] * 3


def test_tied_weights_are_one_tensor() -> None:
    tied = small("tied")
    assert tied.decoder.weight is tied.embedding.weight  # type: ignore[union-attr]
    assert sum(p is tied.decoder.weight for p in tied.parameters()) == 1


def test_the_lstm_by_its_equations() -> None:
    """One layer, two steps, gates in torch's order i, f, g, o."""
    network = small("untied").double().eval()
    tokens = torch.tensor([[4], [7]])
    w = {name: p.detach() for name, p in network.lstm.named_parameters()}
    h = c = torch.zeros(6, dtype=torch.double)
    for step, token in enumerate(tokens.flatten().tolist()):
        x = network.embedding.weight[token]  # type: ignore[union-attr, index]
        gates = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
        i, f, g, o = gates.view(4, 6)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        expected = network.decoder.weight @ h + network.decoder.bias
        assert torch.allclose(network(tokens)[0][step, 0], expected, atol=1e-12)


def test_dropout_of_the_words_and_of_the_output() -> None:
    everything = LSTMLanguageModel(13, 6, 1, dropout=1.0)
    nn.init.ones_(everything.decoder.bias)
    assert torch.equal(everything(window("tied", 3, 2))[0], torch.ones(3, 2, 13))  # nothing reaches the output
    seen: list[Tensor] = []
    network = LSTMLanguageModel(13, 200, 2, dropout=0.65)
    network.lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(window("tied", 20, 5))
    assert (seen[0] == 0).double().mean().item() == pytest.approx(0.65, abs=0.02)
    assert network.lstm.dropout == 0.65
    characters = small("characters")
    characters.lstm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    inputs = window("characters", 4, 2)
    characters(inputs), characters(inputs)
    assert torch.equal(seen[1], seen[2])  # none on words made of characters
    assert characters.lstm.dropout == 0.5 and not torch.equal(characters(inputs)[0], characters(inputs)[0])


def test_dropout_of_the_cnn_lstms_output() -> None:
    """One layer of LSTM, in which there is no other dropout."""
    network = CNNLSTMLanguageModel(13, 9, 3, (4, 2, 3), 2, 6, 1, dropout=1.0)
    nn.init.ones_(network.decoder.bias)
    inputs = window("characters", 3, 2)
    assert torch.equal(network(inputs)[0], torch.ones(3, 2, 13))
    assert not torch.equal(network.eval()(inputs)[0], torch.ones(3, 2, 13))


@torch.no_grad()
def brute_force_word(word: list[int], cnn: CharacterCNN) -> Tensor:
    """Loops over widths, channels, positions and characters."""
    vector = []
    for width, convolution in enumerate(cnn.convolutions, 1):
        for weight, bias in zip(convolution.weight, convolution.bias, strict=True):  # type: ignore[arg-type]
            best = -math.inf
            for start in range(len(word)):
                score = bias.item()
                for offset, char in enumerate(word[start : start + width]):
                    score += float(weight[:, offset] @ cnn.embedding.weight[char])
                best = max(best, score)
            vector.append(math.tanh(best))
    return torch.tensor(vector, dtype=torch.double)


@pytest.mark.parametrize("length", [1, 2, 6])
def test_words_from_characters_by_brute_force(length: int) -> None:
    torch.manual_seed(length)
    cnn = CharacterCNN(9, 3, (4, 2, 3)).double()
    word = torch.randint(1, 9, (length,)).tolist()
    expected = brute_force_word(word, cnn)
    for padding in (0, 1, 7):  # of no influence
        chars = torch.tensor([word + [0] * padding])
        assert torch.allclose(cnn(chars)[0], expected, atol=1e-12)


def test_no_word_at_all_is_harmless() -> None:
    cnn = CharacterCNN(9, 3, (4, 2))
    vectors = cnn(torch.tensor([[0, 0, 0], [4, 5, 0]]))
    assert torch.equal(vectors[0], -torch.ones(6))
    vectors.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in cnn.parameters())


def test_a_highway_by_its_formula() -> None:
    torch.manual_seed(0)
    layer, x = Highway(4).double(), torch.randn(3, 4, dtype=torch.double)
    gate = 1 / (1 + torch.exp(-(x @ layer.gate.weight.T + layer.gate.bias)))
    changed = (x @ layer.transform.weight.T + layer.transform.bias).clamp(min=0)
    assert torch.allclose(layer(x), gate * changed + (1 - gate) * x, atol=1e-12)


@KINDS
def test_only_the_output_bias_starts_at_zero(kind: str) -> None:
    for name, value in small(kind).state_dict().items():
        assert bool(value.any()) != (name == "decoder.bias" and kind != "characters"), name


def test_ranges_of_the_first_weights() -> None:
    torch.manual_seed(0)
    words = LSTMLanguageModel(400, 100, 2, tied=False)
    for weight, bound in ((words.embedding.weight, 0.1), (words.decoder.weight, 0.1), (words.lstm.weight_hh_l1, 0.1)):
        assert 0.99 * bound < weight.abs().max().item() <= bound  # 1 / sqrt(100) in the LSTM
    characters = CNNLSTMLanguageModel(400, 9, units=100)
    assert not characters.words.embedding.weight[0].any()
    for name, parameter in characters.named_parameters():
        centre = -2.0 if name.endswith("gate.bias") else 0.0
        assert (parameter - centre).abs().max().item() <= 0.050001, name
        assert parameter.numel() < 1000 or (parameter - centre).abs().max().item() > 0.0495, name


@KINDS
def test_half_precision(kind: str) -> None:
    network, inputs = small(kind).eval(), window(kind, 4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        logits, state = network(inputs)
        network(inputs, state)
    assert torch.allclose(logits.float(), network(inputs)[0], atol=0.01)


@pytest.mark.parametrize("wrong", [{"units": 0}, {"layers": 0}, {"vocabulary": 0}])
def test_impossible_sizes(wrong: dict[str, int]) -> None:
    for model in (LSTMLanguageModel, CNNLSTMLanguageModel):
        with pytest.raises(ValueError, match="must be at least 1, got"):
            model(**wrong)  # type: ignore[arg-type]
    for filters in ((), (3, 0)):
        with pytest.raises(ValueError, match="filters must be at least 1 each, got"):
            CNNLSTMLanguageModel(filters=filters)
