"""Weights for sharing keep what predictions need, in half the bytes, and nothing is overwritten by mistake."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from modules.ecg import export
from modules.ecg.inference import load_classifier
from modules.ecg.module import ECG
from modules.ecg.nets import CRNN

NETWORK = {"num_blocks": 2, "layers_per_block": 1, "width": 4, "units": 3, "head": "mean"}
VIEWS = [0.9, 1.0]


def finished_run(folder: Path, fold: int, **state: torch.Tensor) -> Path:
    torch.manual_seed(fold)
    module = ECG(CRNN(**NETWORK), views=VIEWS)  # type: ignore[arg-type]
    settings = {
        "network": {"class_path": "modules.ecg.nets.CRNN", "init_args": NETWORK},
        "truncate_spectrogram": True,
        "views": VIEWS,
        "reduction": "sum",
    }
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": module.state_dict() | state, "hyper_parameters": settings, "optimizer_states": []}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    (folder / "config.fit.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"fold": fold}}}))
    (folder / "result.json").write_text(json.dumps({"fit": {"metrics": {}}}))
    return folder


def test_exported_networks_are_the_trained_ones(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [finished_run(tmp_path / name, fold) for name, fold in (("a", 4), ("b", 1))]
    assert export.main([*map(str, runs), "--output", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["fold1.pt", "fold4.pt"]
    assert "fold4.pt: " in capsys.readouterr().out
    for run, fold in zip(runs, (4, 1), strict=True):
        trained = load_classifier(run / "checkpoints" / "best.ckpt")
        shared = load_classifier(tmp_path / "out" / f"fold{fold}.pt")
        assert shared.views == tuple(VIEWS) and shared.spectrogram.truncate and shared.network.head == "mean"
        for (name, ours), theirs in zip(shared.state_dict().items(), trained.state_dict().values(), strict=True):
            assert ours.equal(theirs.half().to(theirs.dtype) if theirs.is_floating_point() else theirs), name
        content = torch.load(tmp_path / "out" / f"fold{fold}.pt", weights_only=True)
        assert set(content) == {"hyper_parameters", "state_dict"}
        assert set(content["hyper_parameters"]) == {"network", "truncate_spectrogram", "views"}
        assert {t.dtype for t in content["state_dict"].values()} == {torch.float16, torch.int64, torch.bool}


def test_mistakes_are_one_line_and_leave_no_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run, twin = finished_run(tmp_path / "a", 2), finished_run(tmp_path / "b", 2)
    large = finished_run(tmp_path / "c", 3, **{"network.classifier.bias": torch.full((4,), 1e6)})
    out = tmp_path / "out"

    def refused(*words: object) -> str:
        assert export.main([*map(str, words), "--output", str(out)]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1 and printed.startswith("error: ")
        return printed

    assert "same test fold" in refused(run, twin)
    assert "holds no finished fit" in refused(tmp_path / "absent")
    assert "hold NaN or infinity" in refused(large)
    assert not [*out.glob("*")]
    out.mkdir(exist_ok=True)
    (out / "fold2.pt").write_text("mine")
    assert "fold2.pt exists; --force overwrites it" in refused(run)
    assert (out / "fold2.pt").read_text() == "mine"
    assert export.main([str(run), "--output", str(out), "--force"]) == 0
    assert load_classifier(out / "fold2.pt")
