"""Every count of the sheet for ResNet-18, and the rules layer by layer."""

import pytest
import torch
from torch import nn

from modules.strassen.conversion import Rule, SPNNetwork
from modules.strassen.counting import count, total
from modules.strassen.layers import SPNLSTM, SPNConv1d, SPNLinear
from modules.strassen.nets import SPNVGG7, VGG7, ResNet18, ResNet20, SPNResNet18, SPNResNet20

BASELINE = 1_816_557_056
# ratio, p, g -> multiplications in millions, reduction in percent, additions over the baseline's multiplications.
SHEET = {
    (6, 1, 1): (17.90, 99.01, 6.97),
    (6, 2, 1): (6.72, 99.63, 3.89),
    (6, 1, 4): (17.90, 99.01, 2.81),
    (4, 1, 1): (12.93, 99.29, 4.65),
    (4, 2, 1): (5.48, 99.70, 2.59),
    (4, 1, 4): (12.93, 99.29, 1.88),
    (2, 1, 1): (7.96, 99.56, 2.32),
    (2, 2, 1): (4.24, 99.77, 1.30),
    (2, 1, 4): (7.96, 99.56, 0.94),
    (1, 1, 1): (4.97, 99.73, 1.16),
    (1, 2, 1): (3.11, 99.83, 0.65),
    (1, 1, 4): (4.97, 99.73, 0.47),
    (0.5, 1, 1): (3.73, 99.79, 0.58),
    (0.5, 2, 1): (2.80, 99.85, 0.33),
    (0.5, 1, 4): (3.73, 99.79, 0.24),
}


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_of_the_networks() -> None:
    with torch.device("meta"):
        assert parameters(ResNet18()) == 11_689_512
        assert parameters(ResNet20()) == 272_442
        assert parameters(VGG7()) == 12_979_082
        for network in (ResNet20(), SPNResNet20(), VGG7(), SPNVGG7()):
            assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_the_baseline() -> None:
    with torch.device("meta"):
        costs = count(ResNet18(), torch.zeros(1, 3, 224, 224))
    assert total(costs).multiplications == BASELINE
    kinds = {
        kind: sum(c.multiplications for c in costs if c.kind == kind) for kind in ("Conv2d", "Linear", "BatchNorm2d")
    }
    assert kinds == {"Conv2d": 1_813_561_344, "Linear": 512_000, "BatchNorm2d": 2_483_712}
    assert total(costs).bits / 2**20 == pytest.approx(356.7, abs=0.05)


@pytest.mark.parametrize("setting", SHEET)
def test_every_count_of_the_sheet(setting: tuple[float, int, int]) -> None:
    ratio, patch, groups = setting
    with torch.device("meta"):  # sizes without numbers
        found = total(count(SPNResNet18(1000, ratio, patch, groups), torch.zeros(1, 3, 224, 224)))
    last = 512_000 if ratio >= 2 else 1000
    assert found.multiplications == 2_483_712 * (1 + ratio / patch**2) + last
    millions, reduction, additions = SHEET[setting]
    assert float(found.multiplications) / 1e6 == pytest.approx(millions, abs=0.005)
    assert 100 * (1 - float(found.multiplications) / BASELINE) == pytest.approx(reduction, abs=0.005)
    assert float(found.additions) / BASELINE == pytest.approx(additions, abs=0.0065)  # read off to 0.1 % of a plot
    if setting == (6, 2, 1):
        assert found.multiplications == 6_721_280


@pytest.mark.parametrize(("ratio", "patch"), [(1.0, 1), (2.0, 2), (6.0, 2)])
def test_resnet18_on_images_of_64_pixels(ratio: float, patch: int) -> None:
    """Maps have 64^2 / 224^2 = 1 / 12.25 of the pixels that they have in the paper."""
    with torch.device("meta"):  # sizes without numbers
        full, spn = ResNet18(200), SPNResNet18(200, ratio, patch)
        costs, x = total(count(full, torch.zeros(1, 3, 64, 64))), torch.zeros(3, 3, 64, 64)
        assert full.eval()(x).shape == spn.eval()(x).shape == (3, 200)
        found = total(count(spn, x[:1]))
    assert parameters(full) == 11_689_512 - 800 * 513
    assert costs.multiplications == 1_813_561_344 / 12.25 + 512 * 200 + 202_752
    last = 512 * 200 if ratio > 1 else 200
    assert found.multiplications == 202_752 * (1 + ratio / patch**2) + last
    expected = 9600 + (512 * 200 + 200 if ratio > 1 else 200 * 512 + 200 * 200 + 2 * 200 + 200)  # norms, last layer
    for layer in full.modules():
        if isinstance(layer, nn.Conv2d):
            units, wide = int(ratio * layer.out_channels), (patch - 1) * layer.stride[0] + layer.kernel_size[0]
            expected += units * (layer.in_channels * wide**2 + layer.out_channels * patch**2 + 2)
    assert parameters(spn) == expected


def test_a_convolution_by_hand() -> None:
    network = SPNNetwork(
        nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.BatchNorm2d(6)), [Rule(ratio=2.0, patch=2, groups=2)]
    )
    spn, norm = count(network, torch.zeros(1, 4, 14, 14))  # 7 x 7 outputs, k_B = 5, r = 12
    assert spn.multiplications == 12 * 49 / 4 and norm.multiplications == norm.additions == 6 * 49
    assert spn.additions == 12 * 2 * 25 * 49 / 4 + 6 * 12 * 49
    assert spn.bits == 2 * (12 * 2 * 25 + 12 * 6 * 4) + 32 * (12 + 6) and norm.bits == 32 * 12


def test_other_layers_by_hand() -> None:
    dense = nn.Sequential(nn.Linear(7, 5), SPNLinear(5, 3, 4))
    real, spn = count(dense, torch.zeros(1, 7))
    assert (real.multiplications, real.additions, real.bits) == (35, 35, 32 * 40)
    assert (spn.multiplications, spn.additions, spn.bits) == (4, 4 * (5 + 3), 2 * 32 + 32 * (4 + 3))
    assert [cost.layer for cost in count(dense, torch.zeros(1, 7))] == ["0", "1"]
    letters = nn.Sequential(nn.Conv1d(15, 50, 3), SPNConv1d(50, 6, 2))
    real, spn = count(letters, torch.zeros(1, 15, 9))
    assert real.multiplications == 15 * 3 * 50 * 7
    assert (spn.multiplications, spn.additions) == (6 * 6, 6 * 6 * 100) and spn.bits == 2 * 600 + 32 * 12


def test_the_lstm_of_the_sheet() -> None:
    [cost] = count(nn.Sequential(nn.LSTM(1100, 650, 2)), torch.zeros(1, 1, 1100))
    assert cost.multiplications == 4_550_000 + 3_380_000 + 3 * 650 * 2
    [cost] = count(nn.Sequential(SPNLSTM(1100, 650, 2, 325)), torch.zeros(1, 1, 1100))
    assert cost.multiplications == 16 * 325 + 3900
    widths = (1100, 650, 650, 650)
    assert cost.additions == sum(4 * 325 * (width + 650) for width in widths) + 3900
    assert cost.bits == 2 * sum(4 * 325 * (width + 650) for width in widths) + 32 * (16 * 325 + 16 * 650)


def test_what_is_applied_often_is_counted_often_and_what_is_unknown_is_told() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 3, bidirectional=True))
    embedding, lstm = count(model, torch.zeros(5, 1, dtype=torch.int64))
    assert embedding.multiplications == embedding.additions == 0 and embedding.bits == 32 * 36
    assert lstm.multiplications == lstm.additions == 5 * 2 * (4 * 3 * (4 + 3) + 3 * 3)
    model = nn.Sequential(nn.Linear(4, 6), SPNLinear(6, 2, 3), SPNLSTM(2, 2, 1, 2))
    dense, spn, recurrent = count(model, torch.zeros(7, 1, 4))
    assert dense.multiplications == 7 * 24 and spn.multiplications == 7 * 3 and spn.additions == 7 * 3 * 8
    assert recurrent.multiplications == 7 * (8 * 2 + 3 * 2)
    model = nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.GroupNorm(2, 6), nn.PReLU(), nn.LayerNorm(5), nn.Softmax(2))
    conv, group, unknown, layer = count(model, torch.zeros(1, 4, 7))
    assert conv.multiplications == 2 * 3 * 6 * 5
    assert group.multiplications == layer.multiplications == 30
    assert (unknown.kind, unknown.multiplications, unknown.bits) == ("PReLU (not counted)", 0, 32)


def test_counting_changes_nothing() -> None:
    network = SPNResNet20(width=4, blocks=1).train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    count(network, torch.zeros(1, 3, 16, 16))
    assert network.training and network.spn_layers()[0].inner.training
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks for module in network.modules())
