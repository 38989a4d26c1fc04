"""What every solver accepts: tensors, magnitudes, rows and the ranges of its options."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.subspace import solvers
from modules.subspace.blocks import check_points, check_rows, safe_scale
from modules.subspace.solvers import SOLVERS, nsn, omp_path, ssc_lasso, ssc_mp, ssc_omp, tsc

EVERY: list[tuple[str, dict[str, Any]]] = [
    ("omp", {"max_atoms": 3}),
    ("mp", {"max_steps": 6}),
    ("tsc", {"num_neighbors": 3}),
    ("nsn", {"num_neighbors": 4, "max_dimension": 3}),
    ("lasso", {"alpha": 5.0}),
    ("elastic_net", {"alpha": 5.0, "tolerance": 1e-10}),
    ("lasso", {"alpha": 5.0, "outliers": True, "tolerance": 0.0, "max_iterations": 30}),
]
POWERS = [
    (torch.float32, 70),
    (torch.float32, -85),
    (torch.float64, 600),
    (torch.float64, -600),
    (torch.float64, -1000),
]


def random_points(number: int = 20, dim: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(number, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "options"), EVERY)
@pytest.mark.parametrize(("dtype", "power"), POWERS)
def test_magnitude_does_not_matter(name: str, options: dict, dtype: torch.dtype, power: int) -> None:
    """Squares of all these points over- or underflow; the factor is a power of two, so results are the same bits."""
    points = random_points().to(dtype)
    factor = torch.tensor(2.0, dtype=torch.float64) ** power
    moved = (points.double() * factor).to(dtype)
    whole = SOLVERS[name](points, **options).toarray()
    assert whole.any()
    if name == "omp":  # lengths move with the points
        options = {"max_atoms": 4, "tolerance": 2.0}
        whole = SOLVERS[name](points, **options).toarray()
        options = options | {"tolerance": 2.0 * float(factor)}
    np.testing.assert_allclose(SOLVERS[name](moved, **options).toarray(), whole, rtol=0, atol=1e-6)


def test_residuals_are_in_the_unit_of_the_points() -> None:
    points = random_points()
    [plain], [large] = list(omp_path(points, 3)), list(omp_path(points * 2.0**600, 3))
    torch.testing.assert_close(large.residuals, plain.residuals * 2.0**600, rtol=1e-12, atol=0)
    assert torch.equal(large.picks, plain.picks)


def test_points_too_far_apart_in_size_are_refused() -> None:
    points = random_points()
    assert safe_scale(points) == 1 and safe_scale(points * 0) == 1
    points[4] *= 1e-160
    with pytest.raises(ValueError, match=r"too far apart for torch.float64: normalise"):
        ssc_omp(points, 3)
    single = random_points().float()
    with pytest.raises(ValueError, match=r"too far apart for torch.float32"):
        ssc_mp(single, 3, queries=single * 1e20)
    with pytest.raises(ValueError, match=r"queries exceed the range of torch.float32"):
        ssc_mp(single, 3, queries=random_points() * 1e100)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int32])
def test_other_precisions_become_double(dtype: torch.dtype) -> None:
    points = (random_points() * 9).to(dtype)
    for name, options in EVERY:
        ours = SOLVERS[name](points, **options).toarray()
        np.testing.assert_array_equal(ours, SOLVERS[name](points.double(), **options).toarray())


@pytest.mark.parametrize(("name", "options"), EVERY)
def test_gradients_are_left_behind(name: str, options: dict) -> None:
    points = random_points()
    expected = SOLVERS[name](points, **options).toarray()
    np.testing.assert_array_equal(SOLVERS[name](points.clone().requires_grad_(), **options).toarray(), expected)


@pytest.mark.parametrize("points", [np.ones((4, 3)), [[1.0, 2.0], [2.0, 1.0]], torch.ones(4, 3, dtype=torch.complex64)])
def test_what_is_no_real_tensor_is_refused(points: Any) -> None:
    with pytest.raises(ValueError, match="points must be a torch tensor of real numbers"):
        check_points(points)
    with pytest.raises(ValueError, match="queries must be a torch tensor of real numbers"):
        tsc(random_points(), queries=points)


@pytest.mark.parametrize("name", [*SOLVERS])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([-1]), "rows go from -1 to -1; they must be in 0 .. 19"),
        (torch.tensor([3, 20]), "rows go from 3 to 20"),
        (torch.ones(20, dtype=torch.bool), "a mask has them in"),
        (torch.tensor([1.0]), "rows must be a tensor"),
        (torch.tensor([[1]]), "rows must be a tensor"),
        ([1, 2], "rows must be a tensor"),
    ],
)
def test_rows_that_are_no_indices(name: str, rows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SOLVERS[name](random_points(), **dict(EVERY)[name], rows=rows)


def test_rows_of_queries_and_small_integers() -> None:
    points = random_points()
    with pytest.raises(ValueError, match=r"must be in 0 \.\. 1"):
        tsc(points, queries=points[:2], rows=torch.tensor([2]))
    assert check_rows(torch.tensor([3], dtype=torch.int32), 4).dtype is torch.int64
    assert len(check_rows(torch.arange(0), 4)) == 0


NAN, INF = float("nan"), float("inf")
NO_COUNTS = [0, -3, 3.0, 2.5, "five", True, NAN]
OUT_OF_RANGE = [
    *[(ssc_omp, "max_atoms", value) for value in NO_COUNTS],
    *[(ssc_mp, name, value) for name in ("max_steps", "max_atoms") for value in NO_COUNTS],
    *[(tsc, "num_neighbors", value) for value in [*NO_COUNTS, None]],
    *[(nsn, name, value) for name in ("num_neighbors", "max_dimension") for value in [*NO_COUNTS, None]],
    *[(nsn, "slack", value) for value in (-1, NAN, INF, 1, 2, "no", None)],
    *[(ssc_lasso, "max_iterations", value) for value in NO_COUNTS],
    *[(ssc_lasso, name, value) for name in ("alpha", "penalty") for value in (0, -1.0, NAN, INF, "no")],
    *[(solve, "tolerance", value) for solve in (ssc_omp, ssc_mp, ssc_lasso) for value in (-1, NAN, INF, "no", None)],
    *[(solve, "memory_gib", value) for solve in SOLVERS.values() for value in (0, -1.0, NAN, INF, "no", None)],
]


@pytest.mark.parametrize(("solve", "name", "value"), OUT_OF_RANGE)
def test_a_value_out_of_range_is_named(solve: Any, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} (must be|is)"):
        solve(random_points(), **(dict(EVERY)["nsn"] if solve is nsn else {}) | {name: value})


def test_whole_numbers_of_numpy_count() -> None:
    points = random_points()
    expected = ssc_mp(points, 5, 3, 0.5).toarray()
    np.testing.assert_array_equal(ssc_mp(points, np.int64(5), np.int32(3), np.float32(0.5)).toarray(), expected)  # type: ignore[arg-type]


def test_matching_pursuit_without_a_bound_is_short() -> None:
    points = random_points(60, 12)
    np.testing.assert_array_equal(ssc_mp(points).toarray(), ssc_mp(points, solvers.MP_STEPS).toarray())


def test_steps_count_as_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of S steps for B points stays within the bound: more steps, smaller blocks."""
    sizes = []
    inner = solvers.pursuits.mp_block

    def spy(atoms: Any, block: Tensor, own: Tensor, stop: Any) -> Any:
        path = inner(atoms, block, own, stop)
        sizes.append((len(block), sum(table.numel() for table in path)))
        return path

    monkeypatch.setattr(solvers.pursuits, "mp_block", spy)
    points, bound = random_points(60, 6), 2**20
    whole = ssc_mp(points, 400)
    assert [size for size, _ in sizes] == [60]
    sizes.clear()
    np.testing.assert_allclose(ssc_mp(points, 400, memory_gib=bound / 2**30).toarray(), whole.toarray(), atol=1e-12)
    assert sum(size for size, _ in sizes) == 60 and max(8 * numbers for _, numbers in sizes) <= bound
    assert len(sizes) > 1
