"""The character language model: the sheet's counts, stages, and one window of training."""

import pytest
import torch
from torch import nn

from modules.components.language import CNNLSTMLanguageModel
from modules.strassen.counting import count, total
from modules.strassen.language import SPNLanguageModel
from modules.strassen.layers import SPNLSTM, SPNConv1d, SPNLinear

WORD = torch.ones(1, 1, 21, dtype=torch.int64)
BASELINE = 20_556_300


def test_the_baseline_of_the_sheet() -> None:
    with torch.device("meta"):
        costs = count(CNNLSTMLanguageModel(), WORD.to("meta"))
    assert total(costs).multiplications == BASELINE
    assert sum(c.multiplications for c in costs if c.kind == "Conv1d") == 1_278_000
    assert sum(c.multiplications for c in costs if c.kind == "Highway") == 4400
    assert sum(c.multiplications for c in costs if c.layer.startswith("highways") and c.kind == "Linear") == 4_840_000
    assert next(c.multiplications for c in costs if c.kind == "LSTM") == 4_550_000 + 3_380_000 + 3900
    assert next(c.multiplications for c in costs if c.layer == "decoder") == 6_500_000


# rho -> multiplications, reduction in percent, additions over the baseline's multiplications.
SHEET = {
    8: (164_000, 99.20, 17.8),
    6: (130_400, 99.37, 13.4),
    4: (96_800, 99.53, 8.9),
    2: (63_200, 99.69, 4.5),
    1: (46_400, 99.77, 2.3),
    0.5: (38_000, 99.82, 1.2),
    0.25: (33_800, 99.84, 0.62),
}


@pytest.mark.parametrize("ratio", SHEET)
def test_every_count_of_the_sheet(ratio: float) -> None:
    with torch.device("meta"):  # sizes without numbers
        costs = count(SPNLanguageModel(CNNLSTMLanguageModel(), ratio), WORD.to("meta"))
    found = total(costs)
    assert found.multiplications == 29_600 + 4 * int(1100 * ratio) + 16 * int(650 * ratio) + 2000 * ratio
    multiplications, reduction, additions = SHEET[ratio]
    assert float(found.multiplications) == pytest.approx(multiplications, abs=50)
    assert 100 * (1 - float(found.multiplications) / BASELINE) == pytest.approx(reduction, abs=0.0051)
    assert float(found.additions) / BASELINE == pytest.approx(additions, abs=0.06)  # read off a plot
    by_kind = {kind: sum(c.multiplications for c in costs if c.kind == kind) for kind in ("SPNConv1d", "BatchNorm1d")}
    assert by_kind == {"SPNConv1d": 19_100, "BatchNorm1d": 2200}


def small() -> SPNLanguageModel:
    torch.manual_seed(0)
    network = CNNLSTMLanguageModel(
        vocabulary=10, characters=6, embedding=3, filters=(4, 4), highways=1, units=5, layers=1, dropout=0.0
    )
    return SPNLanguageModel(network)


def test_layers_and_stages() -> None:
    network = small()
    kinds = [type(layer) for layer in network.spn_layers()]
    assert kinds.count(SPNConv1d) == 2 and kinds.count(SPNLinear) == 3 and kinds.count(SPNLSTM) == 1
    assert sum(isinstance(m, nn.BatchNorm1d) and m.affine for m in network.modules()) == 1
    gates = [value for name, value in network.named_parameters() if "gate" in name and name.endswith(".bias")]
    assert len(gates) == 1 and (gates[0] < -1.9).all()
    chars = torch.randint(1, 6, (3, 2, 4))
    for stage in ("full", "quantized", "frozen"):
        network.stage = stage
        network.zero_grad()
        logits, state = network(chars)
        assert logits.shape == (3, 2, 10)
        again, _ = network(chars, state)
        assert not torch.allclose(logits, again)
        logits.square().mean().backward()
        learns = {name for name, value in network.named_parameters() if value.grad is not None}
        assert any(name.endswith("lstm.first.0") for name in learns) == (stage != "frozen")
        assert any(name.endswith("lstm.scale.0") for name in learns)
    lstm = next(layer for layer in network.spn_layers() if isinstance(layer, SPNLSTM))
    assert all(len(gate.unique()) <= 3 for name in ("first", "second") for gate in lstm.matrices(name))


def test_another_network_is_refused() -> None:
    with pytest.raises(ValueError, match="a Linear has no words, highways, lstm, decoder"):
        SPNLanguageModel(nn.Linear(2, 2))
