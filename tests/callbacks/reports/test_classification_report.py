"""The table per class, by hand and in files."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from callbacks.reports.classification_report import ClassificationReport, class_scores

CONFUSION = torch.tensor([[8, 2], [1, 9]])


def test_scores_by_hand() -> None:
    first, second = class_scores(CONFUSION, "ab")
    assert (first["class"], first["records"]) == ("a", 10)
    assert first["recall"] == pytest.approx(0.8) and first["precision"] == pytest.approx(8 / 9)
    assert first["f1"] == pytest.approx(16 / 19) and second["f1"] == pytest.approx(18 / 21)
    empty = class_scores(torch.tensor([[3, 0], [0, 0]]), "ab")[1]
    assert empty["recall"] is None and empty["f1"] is None


def test_a_test_leaves_its_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    trainer = SimpleNamespace(
        is_global_zero=True, fast_dev_run=False, default_root_dir=str(tmp_path), loggers=[], current_epoch=3
    )
    module = SimpleNamespace(matrices=lambda: {"test": CONFUSION})
    ClassificationReport("ab").on_test_epoch_end(trainer, module)  # type: ignore[arg-type]
    content = json.loads((tmp_path / "report.test.json").read_text())
    assert content["confusion"] == CONFUSION.tolist() and content["accuracy"] == pytest.approx(0.85)
    assert (tmp_path / "report.test.png").stat().st_size > 1000
    assert "0.8421" in capsys.readouterr().out
