"""Non-negative least squares against scipy's and the optimality conditions, for easy and hopeless dictionaries."""

from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.linalg import hilbert
from scipy.optimize import nnls as scipy_nnls
from torch import Tensor

from modules.cone_pursuit import nnls as module
from modules.cone_pursuit.active_set import active_set
from modules.cone_pursuit.nnls import misses, nnls


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scipys(atoms: Tensor, right: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([scipy_nnls(atoms.numpy(), y)[0] for y in right.numpy()]))


def residuals(atoms: Tensor, right: Tensor, coefficients: Tensor) -> Tensor:
    """|y - x| / |y|, [B]."""
    return (right - coefficients.to(right) @ atoms.T).norm(dim=1) / right.norm(dim=1)


def with_condition(condition: float) -> Tensor:
    """30 x 20, with singular values from 1 to 1 / condition."""
    left, right = torch.linalg.qr(gaussian(30, 20))[0], torch.linalg.qr(gaussian(20, 20, seed=1))[0]
    return left * torch.logspace(0, -float(np.log10(condition)), 20, dtype=torch.float64) @ right


def hard_dictionaries() -> dict[str, Tensor]:
    grid = torch.linspace(0, 1, 30, dtype=torch.float64)
    spectra = gaussian(20, 15, seed=2).abs()
    low_rank = gaussian(20, 5).abs() @ gaussian(5, 30, seed=1).abs()
    return {
        "rank 5": low_rank,
        "vandermonde": grid[:, None] ** torch.arange(10),
        "hilbert": torch.from_numpy(hilbert(8)),
        "condition 1e7": with_condition(1e7),
        "condition 1e9": with_condition(1e9),
        "pairs": torch.cat((spectra, spectra + 1e-5 * gaussian(20, 15, seed=3)), 1),
        "twins": torch.cat((spectra, spectra), 1),
    }


@pytest.mark.parametrize(("dim", "number"), [(15, 30), (30, 15)])
def test_nnls_is_scipys(dim: int, number: int) -> None:
    atoms, right = gaussian(dim, number), gaussian(12, dim, seed=1)
    right[3] = 0
    reference = scipys(atoms, right)
    solution = nnls(atoms, right)
    torch.testing.assert_close(solution.coefficients @ atoms.T, reference @ atoms.T, atol=1e-10, rtol=0)
    if number <= dim:  # otherwise a target inside of the cone has many codes
        torch.testing.assert_close(solution.coefficients, reference, atol=1e-10, rtol=0)
    gradient = (solution.coefficients @ atoms.T - right) @ atoms
    torch.testing.assert_close(solution.gradient, gradient, atol=1e-11, rtol=0)
    assert float(gradient.min()) >= -1e-9


def test_many_drops_and_targets_inside_of_the_cone() -> None:
    for seed in range(20):
        atoms, codes = gaussian(12, 25, seed=seed).abs(), gaussian(8, 25, seed=seed + 100).clamp_min(0)
        right = codes @ atoms.T
        right[4:] = gaussian(4, 12, seed=seed + 200)
        solution = nnls(atoms, right)
        torch.testing.assert_close(solution.coefficients @ atoms.T, scipys(atoms, right) @ atoms.T, atol=1e-9, rtol=0)
        assert float(solution.coefficients.min()) >= 0


def test_equal_and_zero_atoms() -> None:
    atoms = gaussian(6, 5).abs()
    right = gaussian(4, 6, seed=1).abs()
    more = torch.cat((atoms, atoms[:, :2], torch.zeros(6, 1, dtype=torch.float64)), 1)
    x = nnls(more, right).coefficients @ more.T
    torch.testing.assert_close(x, scipys(atoms, right) @ atoms.T, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", hard_dictionaries())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_targets_in_the_cone_of_dependent_atoms_are_met(name: str, dtype: torch.dtype) -> None:
    atoms = hard_dictionaries()[name].to(dtype)
    right = gaussian(50, atoms.shape[1], seed=5).abs().to(dtype) @ atoms.T
    solution = nnls(atoms, right)
    assert solution.coefficients.dtype == dtype and float(solution.coefficients.min()) >= 0
    # sqrt of eps where the condition forbids more; float32's inputs are outside of the cone by their round-off
    mass = 1 + (solution.coefficients @ atoms.norm(dim=0)) / right.norm(dim=1)
    limit = 1e-7 if dtype == torch.float64 else 8 * torch.finfo(dtype).eps * mass
    assert (residuals(atoms.double(), right.double(), solution.coefficients) < limit).all()


@pytest.mark.parametrize("name", hard_dictionaries())
def test_targets_outside_of_the_cone_meet_the_optimality_conditions(name: str) -> None:
    atoms = hard_dictionaries()[name]
    right = gaussian(50, len(atoms), seed=6)
    codes, gradient = nnls(atoms, right)
    cosines = gradient / atoms.norm(dim=0) / right.norm(dim=1, keepdim=True)
    mass = 1 + (codes @ atoms.norm(dim=0)) / right.norm(dim=1)  # round-off of x
    assert (cosines.amin(1) > -1e-13 * mass).all()
    assert ((cosines.abs() * (codes > 0)).amax(1) < 1e-13 * mass).all()
    assert (residuals(atoms, right, codes) <= 1 + 1e-13 * mass).all()


def test_an_atom_close_to_the_span_of_others_is_taken() -> None:
    atoms = torch.tensor([[1, 1], [0, 3e-6]], dtype=torch.float64)
    codes = nnls(atoms, torch.tensor([[1, 1.5e-6]], dtype=torch.float64)).coefficients
    torch.testing.assert_close(codes, torch.full((1, 2), 0.5, dtype=torch.float64), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("dim", "number"), [(12, 25), (40, 15), (1, 4), (4, 1)])
def test_the_active_set_method_alone_is_scipys(dim: int, number: int) -> None:
    """Targets inside and outside of the cone, one of them zero, by one thread and by more than there are targets."""
    for seed in range(10):
        atoms, right = gaussian(dim, number, seed=seed).abs(), gaussian(9, dim, seed=seed + 50)
        right[:4] = gaussian(4, number, seed=seed + 90).clamp_min(0) @ atoms.T
        atoms, right = atoms / atoms.norm(dim=0), right / right.norm(dim=1, keepdim=True).clamp_min(1e-9)
        right[8] = 0
        arrays = atoms.numpy(), right.numpy()
        codes = active_set(*arrays, threads=1)
        np.testing.assert_allclose(codes @ atoms.T.numpy(), scipys(atoms, right) @ atoms.T, atol=1e-10)
        assert codes.min() >= 0 and not codes[8].any() and not misses(*arrays, codes).any()
        assert ((codes > 0).sum(1) <= min(dim, number)).all()
        np.testing.assert_array_equal(active_set(*arrays, threads=11), codes)


def test_the_active_set_method_takes_no_atom_twice_and_none_that_others_span() -> None:
    for name in ("rank 5", "twins"):
        atoms = hard_dictionaries()[name]
        right = gaussian(9, atoms.shape[1], seed=5).abs() @ atoms.T
        codes = torch.from_numpy(active_set(atoms.numpy(), right.numpy(), threads=1))
        assert (residuals(atoms, right, codes) < 1e-10).all()
        assert ((codes > 0).sum(1) <= torch.linalg.matrix_rank(atoms)).all()


def test_what_the_active_set_method_misses_is_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second right-hand side comes back damaged; where scipy finds no end either, it stays."""
    atoms, right = gaussian(20, 12).abs(), gaussian(6, 20, seed=1).abs()
    reference = nnls(atoms, right).coefficients

    def damaged(*args: object, **kwargs: object) -> np.ndarray:
        codes = active_set(*args, **kwargs)  # type: ignore[arg-type]
        codes[::2] += 1
        return codes

    monkeypatch.setattr("modules.cone_pursuit.nnls.active_set", damaged)
    torch.testing.assert_close(nnls(atoms, right).coefficients, reference, atol=1e-12, rtol=0)

    def endless(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("modules.cone_pursuit.nnls.scipy_nnls", endless)
    found = nnls(atoms, right).coefficients
    torch.testing.assert_close(found[1::2], reference[1::2])
    assert (found[::2] > reference[::2]).all()
    assert (nnls(atoms, right[:1]).coefficients > reference[:1]).all()


def test_a_single_right_hand_side_is_scipys_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.cone_pursuit.nnls.active_set", None)
    atoms, right = gaussian(20, 30).abs(), gaussian(1, 20, seed=1).abs()
    solution = nnls(atoms, right)
    torch.testing.assert_close(solution.coefficients, scipys(atoms, right), atol=1e-12, rtol=0)
    gradient = (solution.coefficients @ atoms.T - right) @ atoms
    torch.testing.assert_close(solution.gradient, gradient, atol=1e-12, rtol=0)


def test_the_certificate_sees_each_fault() -> None:
    atoms, right = gaussian(12, 6).abs().numpy(), gaussian(4, 12, seed=1).abs().numpy()
    codes = scipys(torch.from_numpy(atoms), torch.from_numpy(right)).numpy()
    assert not misses(atoms, right, codes).any()
    codes[0] *= 1 + 1e-9
    codes[1, codes[1].argmax()] = 0
    codes[2, 0] = np.nan
    np.testing.assert_array_equal(misses(atoms, right, codes), [True, True, True, False])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_is_float64_rounded(dtype: torch.dtype) -> None:
    atoms, right = torch.tensor([[1.0, 1], [0, 1]], dtype=dtype), torch.tensor([[1.0, 0]], dtype=dtype)
    assert nnls(atoms, right).coefficients.tolist() == [[1, 0]]
    for seed in range(5):
        atoms, right = gaussian(30, 9, seed=seed).abs().to(dtype), gaussian(6, 30, seed=seed + 9).abs().to(dtype)
        atoms = torch.cat((atoms, atoms[:, :4]), 1)
        found, exact = nnls(atoms, right), nnls(atoms.double(), right.double())
        torch.testing.assert_close(found.coefficients, exact.coefficients.to(dtype), atol=0, rtol=0)
        assert found.gradient.dtype == dtype


def test_any_scale_is_exact() -> None:
    atoms, right = gaussian(8, 12).abs(), gaussian(5, 8, seed=1).abs()
    codes = nnls(atoms, right).coefficients
    for power in (-1000, -530, 530, 1000):
        assert torch.equal(nnls(atoms, torch.ldexp(right, torch.tensor(power))).coefficients, codes * 2.0**power)
        scaled = nnls(atoms * 2.0**power, right).coefficients
        assert torch.equal(scaled * 2.0**power, codes)
    powers = torch.tensor([-400.0, 0, 300] * 4).double()
    assert torch.equal(nnls(atoms * 2**powers, right).coefficients * 2**powers, codes)
    smallest = torch.tensor([[5e-324], [5e-324]], dtype=torch.float64)  # 1e-320 is 2024 of them
    assert float(nnls(smallest, torch.tensor([[1e-320, 1e-320]], dtype=torch.float64)).coefficients) == pytest.approx(
        2024
    )


def test_no_right_hand_sides_and_integers() -> None:
    codes, gradient = nnls(gaussian(4, 3), gaussian(0, 4))
    assert codes.shape == gradient.shape == (0, 3)
    found = nnls(torch.tensor([[2, 0], [0, 4]]), torch.tensor([[1, 3], [-1, 2]])).coefficients
    assert found.dtype == torch.float64 and found.tolist() == [[0.5, 0.75], [0, 0.5]]


def test_values_that_cannot_work() -> None:
    atoms, right = gaussian(5, 3), gaussian(2, 5)
    for bad in (gaussian(2, 4), gaussian(4), gaussian(2, 5, 1), gaussian(1, 2, 5)):
        with pytest.raises(ValueError, match="do not fit"):
            nnls(atoms, bad)
    with pytest.raises(ValueError, match="do not fit"):
        nnls(gaussian(5, 0), right)
    with pytest.raises(ValueError, match=r"one type.*float32.*float64"):
        nnls(atoms.float(), right)
    with pytest.raises(ValueError, match="must be real"):
        nnls(atoms.cfloat(), right.cfloat())
    for bad in (right / 0, right[:1] / 0, right[0] * float("nan")):
        with pytest.raises(ValueError, match="NaN or infinity"):
            nnls(atoms, bad)
    for kinds in ((atoms, right.numpy()), (atoms.numpy(), right), (atoms.tolist(), right.tolist())):
        with pytest.raises(ValueError, match="must be tensors or arrays, both of one kind"):
            nnls(*kinds)
    with pytest.raises(ValueError, match="must be real"):
        nnls(atoms.numpy().astype(object), right.numpy().astype(object))
    with pytest.raises(ValueError, match="exceed the range"):
        nnls(torch.full((2, 1), 1e-7, dtype=torch.float16), torch.full((1, 2), 6e4, dtype=torch.float16))


@pytest.mark.parametrize("number", [1, 2, 7])
def test_arrays_and_single_right_hand_sides(number: int) -> None:
    atoms, right = gaussian(9, 6), gaussian(number, 9, seed=1)
    codes, gradient = nnls(atoms, right)
    as_arrays = nnls(atoms.numpy(), right.numpy())
    assert all(isinstance(part, np.ndarray) for part in as_arrays)
    assert np.array_equal(as_arrays.coefficients, codes.numpy()) and np.array_equal(
        as_arrays.gradient, gradient.numpy()
    )
    one = nnls(atoms.numpy(), right[0].numpy())
    assert one.coefficients.shape == one.gradient.shape == (6,)
    np.testing.assert_allclose(one.coefficients, scipy_nnls(atoms.numpy(), right[0].numpy())[0], atol=1e-12)
    np.testing.assert_allclose(one.gradient, atoms.numpy().T @ (atoms.numpy() @ one.coefficients - right[0].numpy()))
    assert torch.equal(nnls(atoms, right[0]).coefficients, torch.from_numpy(one.coefficients))


def test_arrays_keep_their_precision_and_integers_become_float64() -> None:
    atoms, right = gaussian(9, 6).numpy(), gaussian(9, seed=1).numpy()
    single = nnls(atoms.astype(np.float32), right.astype(np.float32)).coefficients
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, nnls(atoms, right).coefficients, atol=1e-5)
    found = nnls(np.array([[2, 0], [0, 4]]), np.array([1, 3])).coefficients
    assert found.dtype == np.float64 and found.tolist() == [0.5, 0.75]


@pytest.mark.parametrize("power", [-400, -200, 200, 400])
def test_a_single_right_hand_side_at_any_scale(power: int) -> None:
    atoms, y = gaussian(9, 6).numpy(), gaussian(9, seed=1).numpy()
    plain = nnls(atoms, y).coefficients
    np.testing.assert_allclose(nnls(np.ldexp(atoms, power), np.ldexp(y, power)).coefficients, plain, rtol=1e-9)
    np.testing.assert_allclose(nnls(atoms, np.ldexp(y, power)).coefficients, np.ldexp(plain, power), rtol=1e-9)
    sizes = np.array([power, 0, 0, -power, 0, 0])
    np.testing.assert_allclose(np.ldexp(nnls(np.ldexp(atoms, sizes), y).coefficients, sizes), plain, rtol=1e-9)


@pytest.mark.parametrize(("atom", "scale"), [(0.0, 1.0), (1e-180, 1.0), (0.0, 1e-180), (0.0, 0.0)])
def test_a_zero_atom_needs_no_scaling_and_one_whose_square_vanishes_does(
    monkeypatch: pytest.MonkeyPatch, atom: float, scale: float
) -> None:
    """Its square is 0 as well, but it may be the one that the right-hand side needs."""
    atoms, y = gaussian(9, 4).abs().numpy(), gaussian(9, seed=1).abs().numpy()
    whole = np.column_stack([atoms, atom * y])
    solve = Mock(wraps=module._solve_scaled)
    monkeypatch.setattr(module, "_solve_scaled", solve)
    codes = nnls(whole, scale * y).coefficients
    assert solve.called == (1e-180 in (atom, scale))
    expected = np.append(np.zeros(4), 1e180) if atom else np.append(scale * scipy_nnls(atoms, y)[0], 0.0)
    np.testing.assert_allclose(codes, expected, rtol=1e-9, atol=1e-12 * scale)
