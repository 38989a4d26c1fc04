"""Arrays that a fit leaves behind: which file, which names, and when nothing is written."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from callbacks.fitted_arrays import FittedArrays

ARRAYS = {"mode_0": torch.arange(6.0).reshape(2, 3), "mode_1": torch.ones(4, dtype=torch.float64)}


def finish(file: str, folder: Path, arrays: dict[str, Tensor] | None, rank: int = 0, fast: bool = False) -> None:
    trainer = SimpleNamespace(is_global_zero=rank == 0, fast_dev_run=fast, default_root_dir=str(folder))
    FittedArrays(file).on_fit_end(trainer, SimpleNamespace(fitted_arrays=lambda: arrays))  # type: ignore[arg-type]


def test_several_arrays_by_name_and_one_alone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    finish("factors.npz", folder, ARRAYS)
    with np.load(folder / "factors.npz", allow_pickle=False) as found:
        assert sorted(found) == ["mode_0", "mode_1"]
        assert all(np.array_equal(found[name], array.numpy()) for name, array in ARRAYS.items())
    finish("one.npy", folder, {"endmembers": ARRAYS["mode_0"]})
    assert np.array_equal(np.load(folder / "one.npy", allow_pickle=False), ARRAYS["mode_0"].numpy())
    assert sorted(path.name for path in folder.iterdir()) == ["factors.npz", "one.npy"]


def test_nothing_is_written_by_other_ranks_by_a_trial_and_before_a_fit(tmp_path: Path) -> None:
    finish("a.npz", tmp_path, ARRAYS, rank=1)
    finish("a.npz", tmp_path, ARRAYS, fast=True)
    finish("a.npz", tmp_path, None)
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_the_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.npy or \.npz, not to a\.mat"):
        FittedArrays("a.mat")
    with pytest.raises(ValueError, match=r"a\.npy takes one array, not mode_0, mode_1: name a \.npz file"):
        finish("a.npy", tmp_path, ARRAYS)
