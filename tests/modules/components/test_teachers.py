"""Teachers of earlier runs: found in a checkpoint by the part that holds them, or refused in one line."""

from pathlib import Path

import pytest
import torch
from torch import nn

from modules.components.checkpoint_file import CheckpointError
from modules.components.frozen import Frozen
from modules.components.teachers import check_teacher, load_teacher


@pytest.mark.parametrize("part", ["student", "network"])
def test_a_part_of_a_checkpoint(part: str, tmp_path: Path) -> None:
    weights = {f"{part}.{name}": value for name, value in nn.Linear(3, 2).state_dict().items()}
    torch.save({"state_dict": weights | {"other.weight": torch.ones(2)}}, tmp_path / "a.ckpt")
    teacher = Frozen(nn.Linear(3, 2))
    load_teacher(teacher, tmp_path / "a.ckpt", part)
    assert torch.equal(teacher.network.weight, weights[f"{part}.weight"])  # type: ignore[arg-type]
    for wrong, name in ((nn.Linear(2, 2), part), (nn.Linear(3, 2), "other")):
        with pytest.raises(CheckpointError, match=rf"a\.ckpt holds no {name} that is this Linear") as told:
            load_teacher(Frozen(wrong), tmp_path / "a.ckpt", name)
        assert "\n" not in str(told.value)
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_teacher(teacher, tmp_path / "b.ckpt", part)
    torch.save({"weights": weights}, tmp_path / "c.ckpt")
    with pytest.raises(CheckpointError, match="no state_dict"):
        load_teacher(teacher, tmp_path / "c.ckpt", part)


def test_a_teacher_goes_with_its_weights() -> None:
    check_teacher(None, None)
    check_teacher(nn.Linear(2, 2), "a.ckpt")
    for teacher, weights in ((None, "a.ckpt"), (nn.Linear(2, 2), None)):
        with pytest.raises(ValueError, match="needs both"):
            check_teacher(teacher, weights)
