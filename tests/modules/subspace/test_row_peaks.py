"""The compiled search and the compiled pursuit against numpy and the steps written with tensors."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.subspace import pursuits
from modules.subspace.blocks import Work
from modules.subspace.compiled_matching import REFRESH
from modules.subspace.pursuits import Atoms, Stop
from modules.subspace.row_peaks import CHUNK, first_largest


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("number", [1, 7, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_the_first_of_the_largest(dtype: torch.dtype, number: int) -> None:
    """Few distinct values, so that most rows have equals of both signs, in one chunk and across chunks."""
    random = np.random.default_rng(number)
    values = torch.from_numpy(random.integers(-3, 4, (50, number))).to(dtype)
    values[0] = 0
    values[1] = torch.from_numpy(random.standard_normal(number)) * 1e-30
    columns, found = first_largest(values)
    assert columns.tolist() == values.abs().numpy().argmax(1).tolist()
    assert found.tolist() == (values != 0).any(1).tolist()


def with_gram(points: Tensor) -> Atoms:
    return Atoms(points, points @ points.T, torch.empty(len(points), len(points), dtype=points.dtype))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "stop", [Stop(1, 50, 0.0), Stop(5, 50, 0.0), Stop(2 * REFRESH + 30, 50, 0.0), Stop(500, 6, 0.0), Stop(500, 50, 2.5)]
)
def test_compiled_pursuit_is_the_one_of_tensors(stop: Stop, threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(50, 40, dtype=torch.float64, generator=generator)
    points[4] = 0
    points[9] *= 0.01  # below the bound before the first step
    own = torch.arange(50)[:, None]
    atoms = with_gram(points)
    with patch.object(torch, "get_num_threads", return_value=threads):
        ours = pursuits.mp_block(atoms, points, own, stop)
    reference = pursuits.mp_block(atoms._replace(gram=None), points, own, stop)
    assert torch.equal(ours.picks, reference.picks)
    torch.testing.assert_close(ours.values, reference.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.residuals, reference.residuals, rtol=0, atol=1e-12)


def test_compiled_pursuit_of_other_points() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(30, 8, generator=generator)  # single precision
    queries = torch.cat((torch.randn(5, 8, generator=generator), torch.zeros(1, 8)))
    none = torch.empty(6, 0, dtype=torch.int64)
    atoms, stop = with_gram(points), Stop(4, 30, 0.0)
    ours = pursuits.mp_block(atoms, queries, none, stop)
    reference = pursuits.mp_block(atoms._replace(gram=None), queries, none, stop)
    assert torch.equal(ours.picks, reference.picks) and (ours.picks[5] == -1).all()
    torch.testing.assert_close(ours.values, reference.values, rtol=0, atol=1e-5)


def test_coordinates_in_the_span_keep_inner_products_and_zeros() -> None:
    points = torch.randn(6, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    points[2] = 0
    work = Work(points, None, None, 1.0)
    assert work.shorten() == 6
    assert not work.points[2].any()
    torch.testing.assert_close(work.points @ work.points.T, points @ points.T, rtol=0, atol=1e-12)
    assert Work(points, points, None, 1.0).shorten() == 40  # queries need not lie in the span


def test_a_step_by_the_gram_matrix_is_the_one_by_the_residual() -> None:
    """What devices without the compiled pursuit do."""
    points = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    pick, amount, atoms = torch.arange(20).roll(3), torch.linspace(-1, 2, 20).double(), with_gram(points)
    residual = points - amount[:, None] * points[pick]
    for step in (1, REFRESH):
        out = points @ points.T
        pursuits._mp_correlations(atoms, residual, pick, amount, step, out)
        torch.testing.assert_close(out, residual @ points.T, rtol=0, atol=1e-12)
