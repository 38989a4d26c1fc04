"""Sizes of the DenseNets, a unit and a transition against the formula, recomputation, starting anew."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.born_again.densenet import DenseNet, DenseUnit, Sizing, Transition


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def sized(**arguments: object) -> int:
    with torch.device("meta"):  # sizes without numbers
        return count(DenseNet(**arguments))  # type: ignore[arg-type]


def expected(num_classes: int, units: int, growth: int, third: bool, stem: int | None = None) -> int:
    """Weights by hand: two numbers for each channel of a batch norm, no bias but the last."""
    channels = stem or 2 * growth
    total = 27 * channels
    for block in range(3):
        for _ in range(units):
            total += 2 * channels + 4 * growth * channels + 8 * growth + 36 * growth**2
            channels += growth
        if block < 2 or third:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    return total + 2 * channels + (channels + 1) * num_classes


@pytest.mark.parametrize(
    ("units", "growth", "textbook", "printed"),
    [
        (17, 33, (6.27, 6.36), (6.76, 6.81)),
        (14, 60, (15.05, 15.19), (16.17, 16.24)),
        (12, 80, (20.95, 21.10), (22.42, 22.50)),
        (12, 120, (47.05, 47.28), (50.36, 50.48)),
    ],
)
def test_parameters_of_the_papers_networks(
    units: int, growth: int, textbook: tuple[float, float], printed: tuple[float, float]
) -> None:
    for sizing, sizes in (("textbook", textbook), ("printed", printed)):
        for num_classes, millions in zip((10, 100), sizes, strict=True):
            size = sized(num_classes=num_classes, units=units, growth=growth, sizing=sizing)
            assert size == expected(num_classes, units, growth, sizing == "printed")
            assert size / 1e6 == pytest.approx(millions, abs=0.0051)


@pytest.mark.parametrize(("units", "growth", "millions"), [(28, 30, 13.74), (42, 20, 12.95), (56, 15, 12.60)])
def test_parameters_of_students_with_the_teachers_widths(units: int, growth: int, millions: float) -> None:
    size = sized(num_classes=100, units=units, growth=growth, stem_channels=120)
    assert size == expected(100, units, growth, True, stem=120)
    assert size / 1e6 == pytest.approx(millions, abs=0.005)
    with torch.device("meta"):
        student, teacher = DenseNet(100, units, growth, stem_channels=120), DenseNet(100)
    widths = [[m.conv.out_channels for m in net.blocks if isinstance(m, Transition)] for net in (student, teacher)]
    assert widths[0] == widths[1] == [480, 660, 750]


def test_parameters_of_other_students() -> None:
    """Sizes that the docstring states; the paper's (21.2, 5.1, 10.1 and 80.5 M) are reproduced by the second alone."""
    half_depth = {"num_classes": 100, "units": 7, "growth": 120}
    assert sized(**half_depth, stem_channels=120) == 21346120
    assert sized(**half_depth, sizing="textbook") == 21213220
    by_compression = [sized(num_classes=100, compression=c) for c in (0.25, 0.375, 0.75)]
    assert by_compression == [12429124, 14146336, 21948784]


@pytest.mark.parametrize(("sizing", "channels"), [("textbook", 20), ("printed", 10)])
def test_shapes_and_gradients(sizing: Sizing, channels: int) -> None:
    torch.manual_seed(0)
    network = DenseNet(7, units=2, growth=5, sizing=sizing)  # 10, (10 + 10) / 2, 10, 20
    assert network.norm.num_features == channels
    x = torch.randn(2, 3, 32, 32)
    assert network.blocks(network.stem(x)).shape == (2, channels, 8, 8)
    logits = network(x)
    assert logits.shape == (2, 7)
    functional.cross_entropy(logits, torch.tensor([1, 6])).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def reference_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch statistics by their definition."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = x.var((0, 2, 3), keepdim=True, unbiased=False)
    weight, bias = norm.weight[None, :, None, None], norm.bias[None, :, None, None]  # type: ignore[index]
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def test_a_block_by_its_formula() -> None:
    torch.manual_seed(0)
    network = DenseNet(2, units=3, growth=2).double()
    block, x = network.blocks[0], torch.randn(2, 4, 8, 8, dtype=torch.double)
    joined = x
    for unit in block.units:  # type: ignore[union-attr]
        inner = reference_norm(joined, unit.norm1).clamp(min=0)
        inner = torch.einsum("nchw,kc->nkhw", inner, unit.conv1.weight[:, :, 0, 0])
        added = functional.conv2d(reference_norm(inner, unit.norm2).clamp(min=0), unit.conv2.weight, padding=1)
        joined = torch.cat([joined, added], dim=1)
    assert joined.shape == (2, 10, 8, 8)
    assert torch.allclose(block(x), joined, atol=1e-12)


@pytest.mark.parametrize("pool", [False, True])
def test_a_transition_by_its_formula(pool: bool) -> None:
    torch.manual_seed(0)
    layer, x = Transition(6, 3, pool).double(), torch.randn(2, 6, 4, 4, dtype=torch.double)
    mixed = torch.einsum("nchw,kc->nkhw", reference_norm(x, layer.norm).clamp(min=0), layer.conv.weight[:, :, 0, 0])
    pooled = mixed.reshape(2, 3, 2, 2, 2, 2).mean((3, 5)) if pool else mixed
    assert torch.allclose(layer(x), pooled, atol=1e-12)


def test_recomputing_changes_nothing() -> None:
    """Outputs, gradients and running statistics of two steps, to the bit."""
    torch.manual_seed(0)
    kept, recomputed = DenseNet(3, units=3, growth=4), DenseNet(3, units=3, growth=4, recompute=True)
    recomputed.load_state_dict(kept.state_dict())
    for _ in range(2):
        x, label = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
        outputs = [network(x) for network in (kept, recomputed)]
        assert torch.equal(*outputs)
        for output in outputs:
            functional.cross_entropy(output, label).backward()
    for (name, first), second in zip(kept.named_parameters(), recomputed.parameters(), strict=True):
        assert first.grad is not None and second.grad is not None and torch.equal(first.grad, second.grad), name
    for (name, buffer), other in zip(kept.named_buffers(), recomputed.buffers(), strict=True):
        assert torch.equal(buffer, other), name
    assert int(recomputed.norm.num_batches_tracked) == 2  # type: ignore[arg-type]
    assert torch.equal(kept.eval()(x), recomputed.eval()(x))


def test_recomputing_saves_memory() -> None:
    """Numbers that a unit keeps for the backward pass: its parts alone, not their joined copy."""

    def kept_numbers(recompute: bool) -> int:
        unit, sizes = DenseUnit(32, 4, recompute), []
        parts = [torch.randn(2, 4, 8, 8, requires_grad=True) for _ in range(8)]
        owned = {p.data_ptr() for p in (*unit.parameters(), *parts)}

        def pack(x: Tensor) -> Tensor:
            if x.data_ptr() not in owned:
                owned.add(x.data_ptr())
                sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            unit(*parts)
        return sum(sizes)

    joined, inner = 2 * 32 * 64, 2 * 16 * 64
    assert kept_numbers(False) > 2 * joined + inner  # before and behind the first norm
    assert kept_numbers(True) < 3 * inner


def test_channels_last_changes_the_layout_alone() -> None:
    torch.manual_seed(0)
    network, x = DenseNet(5, units=2, growth=4).eval(), torch.randn(2, 3, 32, 32)
    plain = network(x)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = x.contiguous(memory_format=torch.channels_last)
    assert network.blocks(network.stem(x)).is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(network(x), plain, atol=1e-5)


def test_first_weights_follow_the_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(DenseNet(3, units=2, growth=4).state_dict())
    first, again, other = states
    for name, value in first.items():
        constant = "norm" in name or name == "classifier.bias"
        assert torch.equal(value, again[name]), name
        assert torch.equal(value, other[name]) == constant, name
    assert not first["classifier.bias"].any()
    assert 0.9 < float(first["classifier.weight"].abs().max()) * len(first["classifier.weight"][0]) ** 0.5 <= 1


@pytest.mark.parametrize("wrong", [{"units": 0}, {"growth": 0}, {"compression": 0.0}, {"stem_channels": 0}])
def test_impossible_sizes(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be (at least 1|above 0), got 0"):
        DenseNet(**wrong)  # type: ignore[arg-type]


def test_a_transition_keeps_a_channel() -> None:
    with pytest.raises(ValueError, match=r"compression 0\.1 leaves none of 8 channels"):
        DenseNet(growth=4, compression=0.1)


def test_unknown_sizing() -> None:
    with pytest.raises(ValueError, match="textbook or printed, got 'large'"):
        DenseNet(sizing="large")  # type: ignore[arg-type]
