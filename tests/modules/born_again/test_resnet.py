"""Sizes of the residual networks, one unit against the formula, and starting anew."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from modules.born_again.densenet import DenseNet, Transition
from modules.born_again.resnet import BottleneckUnit, ResNetStudent, WideResNet, WideUnit


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def expected_wide(num_classes: int, units: int, width: int, base: int = 16) -> int:
    """Weights by hand: two numbers for each channel of a batch norm, no bias but the last."""
    total, channels = 27 * base, base
    for stage in range(3):
        outputs = base * width * 2**stage
        for _ in range(units):
            total += 2 * channels + 9 * channels * outputs + 2 * outputs + 9 * outputs**2
            total += channels * outputs if channels != outputs else 0
            channels = outputs
    return total + 2 * channels + channels * num_classes + num_classes


@pytest.mark.parametrize(("width", "millions"), [(1, 0.375), (2, 1.479), (5, 9.162), (10, 36.54)])
def test_parameters_of_wide_resnet_28(width: int, millions: float) -> None:
    with torch.device("meta"):  # sizes without numbers
        hundred, ten = WideResNet(100, 28, width), WideResNet(10, 28, width)
    assert count(hundred) == expected_wide(100, 4, width) == pytest.approx(1e6 * millions, rel=1e-3)
    assert count(ten) == expected_wide(10, 4, width)


@pytest.mark.parametrize(("depth", "units"), [(10, 1), (16, 2), (40, 6)])
def test_depth_counts_its_layers(depth: int, units: int) -> None:
    with torch.device("meta"):
        network = WideResNet(10, depth, 1, base_channels=8)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert len(layers) == 6 * units + 1 == depth - 3  # the name counts three shortcuts too
    assert count(network) == expected_wide(10, units, 1, base=8)


@pytest.mark.parametrize("depth", [4, 12, 27])
def test_impossible_depths(depth: int) -> None:
    with pytest.raises(ValueError, match=f"6 n \\+ 4.*got {depth}"):
        WideResNet(depth=depth)


@pytest.mark.parametrize("wrong", [{"width": 0}, {"base_channels": 0}])
def test_impossible_widths(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be at least 1, got 0"):
        WideResNet(**wrong)  # type: ignore[arg-type]


def reference_norm(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch statistics by their definition."""
    mean = x.mean((0, 2, 3), keepdim=True)
    variance = x.var((0, 2, 3), keepdim=True, unbiased=False)
    weight, bias = norm.weight[None, :, None, None], norm.bias[None, :, None, None]  # type: ignore[index]
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (6, 1), (4, 2), (6, 2)])
def test_a_unit_by_its_formula(inputs: int, stride: int) -> None:
    torch.manual_seed(0)
    unit = WideUnit(inputs, 6, stride).double()
    for norm in (unit.norm1, unit.norm2):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(3, inputs, 8, 8, dtype=torch.double)
    active = reference_norm(x, unit.norm1).clamp(min=0)
    inner = functional.conv2d(active, unit.conv1.weight, stride=stride, padding=1)
    inner = functional.conv2d(reference_norm(inner, unit.norm2).clamp(min=0), unit.conv2.weight, padding=1)
    if inputs == 6 and stride == 1:
        assert unit.shortcut is None
        expected = x + inner
    else:
        assert unit.shortcut is not None
        mixed = torch.einsum("nchw,kc->nkhw", active[:, :, ::stride, ::stride], unit.shortcut.weight[:, :, 0, 0])
        expected = mixed + inner
    assert torch.allclose(unit(x), expected, atol=1e-12)


def test_dropout_stands_between_the_convolutions() -> None:
    unit = WideUnit(4, 4, dropout=1.0)
    x = torch.randn(2, 4, 8, 8)
    assert torch.equal(unit(x), x)
    assert not torch.equal(unit.eval()(x), x)


def small() -> WideResNet:
    return WideResNet(7, 10, 1, dropout=0.1, base_channels=4)


def test_shapes_and_gradients() -> None:
    torch.manual_seed(0)
    network = small()
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    functional.cross_entropy(logits, torch.tensor([1, 6])).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_channels_last_changes_the_layout_alone() -> None:
    torch.manual_seed(0)
    network, x = small().eval(), torch.randn(2, 3, 32, 32)
    expected = network(x)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert torch.allclose(network(x.contiguous(memory_format=torch.channels_last)), expected, atol=1e-5)


def test_first_weights_follow_the_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(small().state_dict())
    first, again, other = states
    for name, value in first.items():
        constant = "norm" in name or name == "classifier.bias"
        assert torch.equal(value, again[name]), name
        assert torch.equal(value, other[name]) == constant, name
        assert name != "classifier.bias" or not value.any()


def test_convolutions_are_drawn_with_hes_variance() -> None:
    torch.manual_seed(0)
    network = WideResNet(10, 10, 4)
    unit = network.stages[2][0]  # type: ignore[index]
    for convolution in (unit.conv1, unit.conv2):  # over the outputs: the first has 128 inputs
        assert convolution.weight.std().item() == pytest.approx((2.0 / (9 * 256)) ** 0.5, rel=0.01)
    assert unit.shortcut.weight.std().item() == pytest.approx((2.0 / 256) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("units", "ratio", "trainable", "printed"),
    [(1, 1.0, 20990580, 20.9), (2, 1.0, 43111140, 43.1), (4, 0.5, 24329265, 24.3), (4, 1.0, 87352260, 87.3)],
)
def test_parameters_of_wide_students(units: int, ratio: float, trainable: int, printed: float) -> None:
    with torch.device("meta"):
        student, teacher = ResNetStudent(100, units, ratio), DenseNet(100)
    whole = count(student)
    student.inherit(teacher)
    assert sum(p.numel() for p in student.parameters() if p.requires_grad) == trainable
    assert whole - trainable == 27 * 120 + 751 * 100 == count(teacher.stem) + count(teacher.classifier)
    assert int(trainable / 1e5) / 10 == printed  # the paper cuts


@pytest.mark.parametrize(("ratio", "trainable"), [(1.0, 20331386), (0.5, 5652173)])
def test_parameters_of_bottleneck_students(ratio: float, trainable: int) -> None:
    """By hand. The paper prints 17.7 and 7.3 M."""
    with torch.device("meta"):
        student = ResNetStudent(100, 14, ratio, unit="bottleneck")
    total, channels = 27 * 120 + 2 * 750 + 75100, 120
    for width in (480, 660, 750):
        outputs = int(ratio * width)
        inner = outputs // 4
        for _ in range(14):
            total += 2 * channels + 4 * inner + channels * inner + 9 * inner**2 + inner * outputs
            total += channels * outputs if channels != outputs else 0
            channels = outputs
        total += 2 * channels + channels * width
        channels = width
    assert count(student) == total == trainable + 27 * 120 + 75100


@pytest.mark.parametrize("inputs", [5, 12])
def test_a_bottleneck_by_its_formula(inputs: int) -> None:
    torch.manual_seed(0)
    unit, x = BottleneckUnit(inputs, 12).double(), torch.randn(2, inputs, 4, 4, dtype=torch.double)
    active = reference_norm(x, unit.norm1).clamp(min=0)
    inner = torch.einsum("nchw,kc->nkhw", active, unit.conv1.weight[:, :, 0, 0])
    inner = functional.conv2d(reference_norm(inner, unit.norm2).clamp(min=0), unit.conv2.weight, padding=1)
    inner = reference_norm(inner, unit.norm3).clamp(min=0)
    assert inner.shape[1] == 3
    skipped = x
    if inputs == 5:
        assert unit.shortcut is not None
        skipped = torch.einsum("nchw,kc->nkhw", active, unit.shortcut.weight[:, :, 0, 0])
    expected = skipped + torch.einsum("nchw,kc->nkhw", inner, unit.conv3.weight[:, :, 0, 0])
    assert torch.allclose(unit(x), expected, atol=1e-12)


def small_student(unit: str = "wide") -> ResNetStudent:
    return ResNetStudent(5, 2, 0.5, unit, stem_channels=8, widths=(12, 14, 14))  # type: ignore[arg-type]


def small_teacher() -> DenseNet:
    return DenseNet(5, units=4, growth=4)  # 8 channels, then (8 + 16) / 2, (12 + 16) / 2, (14 + 16) / 2 = 15


@pytest.mark.parametrize("unit", ["wide", "bottleneck"])
def test_student_shapes_and_gradients(unit: str) -> None:
    torch.manual_seed(0)
    student = small_student(unit)
    sizes = [layer.conv.out_channels for layer in student.blocks if isinstance(layer, Transition)]  # type: ignore
    assert sizes == [12, 14, 14]
    features = student.blocks(student.stem(torch.randn(2, 3, 32, 32)))
    assert features.shape == (2, 14, 8, 8)
    logits = student(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    functional.cross_entropy(logits, torch.tensor([1, 4])).backward()
    assert [name for name, p in student.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_students_inherit_the_first_and_the_last_layer() -> None:
    torch.manual_seed(0)
    teacher = small_teacher()
    student = ResNetStudent(5, 1, stem_channels=8, widths=(12, 14, 15))
    student.inherit(teacher)
    inherited = {"stem.weight", "classifier.weight", "classifier.bias"}
    assert {name for name, p in student.named_parameters() if not p.requires_grad} == inherited
    assert all(p.requires_grad for p in teacher.parameters())
    student(torch.randn(2, 3, 32, 32)).sum().backward()
    for name, parameter in student.named_parameters():
        assert (parameter.grad is None) == (name in inherited)
        if name in inherited:
            assert torch.equal(parameter, teacher.get_parameter(name))
    with torch.no_grad():
        teacher.stem.weight.zero_()
    assert student.stem.weight.any()  # a copy


def test_a_reloaded_student_keeps_what_it_inherited() -> None:
    student, other = small_student(), small_student()
    student.inherit(small_student())
    assert all(p.requires_grad for p in other.parameters())
    other.load_state_dict(student.state_dict())
    assert torch.equal(other.stem.weight, student.stem.weight)
    assert not other.stem.weight.requires_grad and not other.classifier.bias.requires_grad
    alone = small_student()
    alone.load_state_dict(small_student().state_dict())
    assert all(p.requires_grad for p in alone.parameters())


def test_teachers_that_do_not_fit() -> None:
    student = small_student()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    with pytest.raises(ValueError, match=r"classifier.weight is \(5, 14\) in the student and \(5, 15\) in the teacher"):
        student.inherit(small_teacher())
    with pytest.raises(ValueError, match="a Linear has no stem to inherit"):
        student.inherit(nn.Linear(1, 1))
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(p.requires_grad for p in student.parameters())


@pytest.mark.parametrize("wrong", [{"unit": "plain"}, {"units": 0}, {"ratio": 0.0}, {"widths": (4, 4)}])
def test_impossible_students(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}.* must be|three widths"):
        ResNetStudent(**wrong)  # type: ignore[arg-type]
