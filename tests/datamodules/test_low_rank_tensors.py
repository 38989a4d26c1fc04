"""Generated arrays of known rank."""

import pytest
import torch

from datamodules.low_rank_tensors import LowRankTensor


def test_a_generated_tensor_has_its_rank_and_noise() -> None:
    clean, _ = LowRankTensor([9, 8, 7], rank=3, noise=0.0).load()
    assert torch.linalg.matrix_rank(clean.flatten(1)) == 3 and float(clean.min()) == 0
    noisy, _ = LowRankTensor([9, 8, 7], rank=3, noise=0.1).load()
    assert float((noisy - clean).norm() / clean.norm()) == pytest.approx(0.1)
    assert float(noisy.min()) >= 0
    with pytest.raises(ValueError, match="two or more sizes"):
        LowRankTensor([5])
    with pytest.raises(ValueError, match="noise >= 0"):
        LowRankTensor(noise=float("nan"))
