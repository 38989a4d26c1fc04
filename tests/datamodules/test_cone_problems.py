"""The synthetic problems of the cone pursuits."""

import numpy as np
import pytest
import torch

from datamodules.cone_problems import ConeProblems


def test_problems_follow_from_the_seed_in_the_order_of_the_authors_code() -> None:
    random = np.random.default_rng(3)
    items = list(ConeProblems(5, 8, 4, 2.0, repeats=2, seed=3).train_dataloader())
    for item in items:
        atoms = random.random((5, 8))
        atoms /= np.sqrt(np.square(atoms).sum(0))
        y = np.c_[np.zeros(5), atoms] @ (2.0 * random.random(9))  # the first atom is 0
        for flip in set(random.integers(0, 5, 4).tolist()):
            y[flip] *= -1
        np.testing.assert_allclose(item["atoms"].numpy(), atoms)
        np.testing.assert_allclose(item["points"][0].numpy(), y)
    assert not torch.equal(items[0]["points"], items[1]["points"])


def test_sizes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="repeats must be at least 1"):
        ConeProblems(repeats=0)
    with pytest.raises(ValueError, match="scale must be above 0"):
        ConeProblems(scale=float("nan"))
