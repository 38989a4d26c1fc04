"""Splits of two-class sets, and the two forms in which sonar comes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.binary_splits import BinarySplits, read_classes


def test_splits_are_drawn_by_seed_and_repeat_alone() -> None:
    data, again = BinarySplits(repeats=3), BinarySplits(repeats=5)
    for one in (data, again):
        one.setup("fit")
    items = list(data.train_dataloader())
    assert len(items) == 3 and items[0]["points"].shape == (442, 10)
    torch.testing.assert_close(items[0]["points"].norm(dim=1), torch.ones(442, dtype=torch.float64))
    assert items[0]["is_train"].sum() == round(0.7 * 442)
    for item, other in zip(items, again.train_dataloader(), strict=False):
        assert torch.equal(item["is_train"], other["is_train"])
    assert not torch.equal(items[0]["is_train"], items[1]["is_train"])
    assert abs(float(items[0]["label"].double().mean()) - 0.5) < 0.01


def test_sonar_in_both_forms(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((4, 60)).round(4)
    lines = [",".join(map(str, row)) for row in values]
    (tmp_path / "sonar.all-data").write_text("\n".join(f"{line},{c}" for line, c in zip(lines, "RMMR", strict=True)))
    points, label = read_classes("sonar", tmp_path)
    np.testing.assert_array_equal(points.numpy(), values)
    assert label.tolist() == [0, 1, 1, 0]
    classes = (-1, 1, 1, -1)
    (tmp_path / "sonar.csv").write_text("\n".join(f"{line},{c}" for line, c in zip(lines, classes, strict=True)))
    assert read_classes("sonar", tmp_path)[1].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("classes", ["1 2", "nan 1", "1 1", "M 0", "0 -1", "inf 0", "M R 1"])
def test_sonar_has_two_classes_of_one_kind(tmp_path: Path, classes: str) -> None:
    line = ",".join(["0.5"] * 60)
    (tmp_path / "sonar.csv").write_text("".join(f"{line},{c}\n" for c in classes.split()))
    with pytest.raises(
        ValueError, match=r"sonar\.csv has the classes .*Expected is sonar\.csv \(60 numbers and a class"
    ):
        read_classes("sonar", tmp_path)


def test_sonar_of_a_spreadsheet(tmp_path: Path) -> None:
    line = ", ".join(["0.5"] * 60)
    (tmp_path / "sonar.csv").write_text(f"{line}, 1.0\n\n{line}, 0\n", encoding="utf-8-sig")
    points, label = read_classes("sonar", tmp_path)
    assert points.shape == (2, 60) and label.tolist() == [1, 0]
    for content in (b"\xff\xfe0\x00", f"{line},1\n{line.replace('0.5', 'nan')},0\n".encode(), b""):
        (tmp_path / "sonar.csv").write_bytes(content)
        with pytest.raises(ValueError, match=r"sonar\.csv"):
            read_classes("sonar", tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.9999])
def test_a_share_leaves_samples_on_both_sides(share: float) -> None:
    with pytest.raises(ValueError, match=f"share {share} of 442 samples leaves none"):
        BinarySplits(share=share).setup("fit")


def test_what_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Connectionist Bench"):
        BinarySplits("sonar", root=str(tmp_path)).setup("fit")
    for content in ("1,2,R\n", "1,x,R\n", "1,2,3,R\n1,2,R\n", "1,2,Q\n"):
        (tmp_path / "sonar.csv").write_text(content)
        with pytest.raises(ValueError, match="60"):
            read_classes("sonar", tmp_path)
    with pytest.raises(ValueError, match="unknown set iris"):
        read_classes("iris", tmp_path)
    with pytest.raises(ValueError, match="0 < share < 1"):
        BinarySplits(share=1.0)
