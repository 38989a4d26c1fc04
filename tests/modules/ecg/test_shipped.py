"""The five shipped networks: they load, vote without an option, and say of made-up signals what they said before."""

import json
from pathlib import Path

import pytest
import torch

from modules.ecg import predict
from modules.ecg.inference import CLASSES, load_classifier
from modules.ecg.views import log_mean_probabilities, outputs_of_views
from tests.modules.ecg.wfdb_files import beats, write_record

FILES = sorted(predict.SHIPPED.glob("*.pt"))
PINNED = {
    "regular": [
        [0.8555, 0.0068, 0.1373, 0.0003],
        [0.8298, 0.0018, 0.1681, 0.0003],
        [0.8203, 0.0054, 0.1738, 0.0006],
        [0.8093, 0.0052, 0.1851, 0.0004],
        [0.8869, 0.0022, 0.1105, 0.0005],
    ],
    "irregular": [
        [0.0102, 0.5618, 0.4240, 0.0040],
        [0.0112, 0.4309, 0.5565, 0.0014],
        [0.0162, 0.2996, 0.6788, 0.0054],
        [0.0090, 0.7599, 0.2297, 0.0015],
        [0.0150, 0.1561, 0.8266, 0.0024],
    ],
}
"""Probabilities of N, A, O, ~ by each network, for 20 s of made-up beats."""


@pytest.fixture(scope="module")
def said() -> dict[str, torch.Tensor]:
    """[5, K] of each signal."""
    torch.set_num_threads(1)
    networks = [load_classifier(file) for file in FILES]
    found = {}
    for name in PINNED:
        signal = torch.from_numpy(beats(20, 7, name == "irregular")).float()[None]
        with torch.no_grad():
            outputs = [outputs_of_views(network, signal, torch.tensor([6000]), network.views) for network in networks]
        found[name] = torch.cat([log_mean_probabilities(views).exp() for views in outputs])
    return found


def test_a_file_for_each_fold() -> None:
    assert [file.name for file in FILES] == [f"fold{fold}.pt" for fold in range(5)]
    assert sum(file.stat().st_size for file in FILES) < 4 << 20
    assert {sum(p.numel() for p in load_classifier(file).network.parameters()) for file in FILES} == {342376}
    assert {load_classifier(file).views for file in FILES} == {(0.85, 1.0, 1.15)}


@pytest.mark.parametrize("name", PINNED)
def test_their_outputs_stay_what_they_are(said: dict[str, torch.Tensor], name: str) -> None:
    assert torch.allclose(said[name], torch.tensor(PINNED[name]), atol=2e-3)


def test_a_record_needs_no_option(
    said: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """In the working folder: its files are in predictions/."""
    monkeypatch.chdir(tmp_path)
    write_record(tmp_path, "mine", beats(20, 7, irregular=True))
    assert predict.main(["mine"]) == 0
    result = json.loads((tmp_path / "predictions" / "mine.json").read_text())
    mean = said["irregular"].mean(0)
    assert list(result["probabilities"].values()) == pytest.approx(mean.tolist(), abs=1e-3)
    votes = said["irregular"].argmax(1)
    assert result["class"] == CLASSES[int(torch.mode(votes).values)]
    assert capsys.readouterr().out.startswith(f"mine: {result['class']} (")
    assert (tmp_path / "predictions" / "mine.png").stat().st_size > 10000


def test_without_the_folder_predict_asks_for_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(predict, "SHIPPED", tmp_path)
    with pytest.raises(SystemExit, match="2"):
        predict.main(["mine"])
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith(f"no networks in {tmp_path}: give --checkpoint")
