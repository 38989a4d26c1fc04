"""Settings without points or without any value."""

import math

import pytest

from datamodules.unions_of_subspaces import UnionGrid, UnionOfSubspaces


@pytest.mark.parametrize("density", [0.0001, 0.0, -1.0, math.nan, math.inf])
def test_densities_without_points(density: float) -> None:
    with pytest.raises(ValueError, match="density"):
        UnionOfSubspaces(density=density)
    with pytest.raises(ValueError, match="density"):
        UnionGrid(30, [4, 8], [1], [3.0, density], [0.5])


def test_each_subspace_has_a_point() -> None:
    assert UnionOfSubspaces(30, [4, 8], 1, density=0.125).load()[1].tolist() == [0, 1]
    with pytest.raises(ValueError, match="no point of 4 dimensions"):
        UnionOfSubspaces(30, [4, 8], 1, density=0.12)


def test_noise_and_grid_need_values() -> None:
    for noise in (math.nan, math.inf, -0.1):
        with pytest.raises(ValueError, match="noise"):
            UnionOfSubspaces(noise=noise)
    with pytest.raises(ValueError, match=r"need a value each, not \[1\], \[\]"):
        UnionGrid(30, [4], [1], [], [0.5])
