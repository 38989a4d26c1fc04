"""Non-negative least squares against scipy's and the optimality conditions, for easy and hopeless dictionaries."""

import itertools
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from scipy.linalg import hilbert
from scipy.optimize import nnls as scipy_nnls
from torch import Tensor

from modules.cone_pursuit import active_set as active_set_module
from modules.cone_pursuit import nnls as module
from modules.cone_pursuit.active_rounds import _is_flat, _is_optimal, _steepest, solve_few
from modules.cone_pursuit.active_set import active_set
from modules.cone_pursuit.nnls import nnls


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scipys(atoms: Tensor, right: Tensor) -> Tensor:
    return torch.from_numpy(np.stack([scipy_nnls(atoms.numpy(), y)[0] for y in right.numpy()]))


def residuals(atoms: Tensor, right: Tensor, coefficients: Tensor) -> Tensor:
    """|y - x| / |y|, [B]."""
    return (right - coefficients.to(right) @ atoms.T).norm(dim=1) / right.norm(dim=1)


def solved(atoms: np.ndarray, right: np.ndarray, threads: int = 1) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Coefficients, gradient and misses of ``active_set``, which finds all numbers safe."""
    found = active_set(atoms, right, threads)
    assert found is not None
    return found[0], found[1], [*found[2]]


def misses(atoms: np.ndarray, right: np.ndarray, codes: np.ndarray, factor: float = 1) -> np.ndarray:
    """bool [B]: which codes [B, n] miss the optimality conditions of ``active_set``, by so many times the slack."""
    difference = codes @ atoms.T - right
    gradient = difference @ atoms
    slack = 16 * 2**-52 * np.linalg.norm(right, axis=1) + 1e-11 * np.linalg.norm(difference, axis=1)
    excess = np.where(codes > 0, np.abs(gradient), -gradient) - factor * slack[:, None] * np.linalg.norm(atoms, axis=0)
    return ~(excess.max(1) <= 0)


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
def test_the_active_set_method_alone_is_scipys(dim: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets inside and outside of the cone and a zero one; alone, by one thread, by more than there are targets."""
    monkeypatch.setattr("modules.cone_pursuit.active_set.THREADED", 0)
    for seed in range(10):
        atoms, right = gaussian(dim, number, seed=seed).abs(), gaussian(9, dim, seed=seed + 50)
        right[:4] = gaussian(4, number, seed=seed + 90).clamp_min(0) @ atoms.T
        atoms, right = atoms / atoms.norm(dim=0), right / right.norm(dim=1, keepdim=True).clamp_min(1e-9)
        right[8] = 0
        arrays = atoms.numpy(), right.numpy()
        codes, gradient, missed = solved(*arrays)
        np.testing.assert_allclose(codes @ atoms.T.numpy(), scipys(atoms, right) @ atoms.T, atol=1e-10)
        assert codes.min() >= 0 and not codes[8].any() and not missed and not misses(*arrays, codes).any()
        assert ((codes > 0).sum(1) <= min(dim, number)).all()
        np.testing.assert_allclose(gradient, (codes @ arrays[0].T - arrays[1]) @ arrays[0], atol=1e-14)
        for y, code, slopes in zip(arrays[1], codes, gradient, strict=True):
            one = solved(arrays[0], y[None])
            np.testing.assert_allclose(one[0][0] @ arrays[0].T, code @ arrays[0].T, atol=1e-13)
            np.testing.assert_allclose(one[1][0], slopes, atol=1e-13)
            assert not one[2]
        for threads in (2, 11):
            for found, expected in zip(solved(*arrays, threads), (codes, gradient, missed), strict=True):
                np.testing.assert_array_equal(found, expected)


def test_the_active_set_method_takes_no_atom_twice_and_none_that_others_span() -> None:
    for name in ("rank 5", "twins"):
        atoms = hard_dictionaries()[name]
        right = gaussian(9, atoms.shape[1], seed=5).abs() @ atoms.T
        codes = torch.from_numpy(solved(atoms.numpy(), right.numpy())[0])
        assert (residuals(atoms, right, codes) < 1e-10).all()
        assert ((codes > 0).sum(1) <= torch.linalg.matrix_rank(atoms)).all()


@pytest.mark.parametrize(("number", "num_atoms", "shares"), [(3, 9, []), (4, 80, [True]), (4, 81, [False])])
def test_the_gram_matrix_of_all_atoms_changes_nothing_but_time(
    number: int, num_atoms: int, shares: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made for right-hand sides in proportion to the atoms, and never for three."""
    kernel = Mock(wraps=active_set_module.solve_rows)
    monkeypatch.setattr(active_set_module, "solve_rows", kernel)
    atoms, right = gaussian(15, num_atoms).abs().numpy(), gaussian(number, 15, seed=1).numpy()
    codes, gradient, _ = solved(atoms, right)
    assert [len(call.args[1]) > 0 for call in kernel.call_args_list] == shares
    for b in range(number):
        one = solved(atoms, right[b : b + 1])
        np.testing.assert_allclose(one[0][0] @ atoms.T, codes[b] @ atoms.T, atol=1e-13)
        np.testing.assert_allclose(one[1][0], gradient[b], atol=1e-13)


def test_threads_start_for_much_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    in_threads = Mock(wraps=active_set_module._in_threads)
    monkeypatch.setattr(active_set_module, "_in_threads", in_threads)
    atoms, right = gaussian(6, 5).numpy(), gaussian(4, 6, seed=1).numpy()
    for limit, threads, count in ((120, 2, 1), (121, 2, 0), (0, 1, 0)):
        monkeypatch.setattr(active_set_module, "THREADED", limit)
        in_threads.reset_mock()
        solved(atoms, right, threads)
        assert in_threads.call_count == count
    shares = Mock(wraps=active_set_module.solve_rows)
    monkeypatch.setattr(active_set_module, "solve_rows", shares)
    solved(atoms, right, 2)
    assert [len(call.args[3]) for call in shares.call_args_list] == [2, 2]
    hopeless = with_condition(1e9).numpy()
    targets = gaussian(4, 20, seed=5).abs().numpy() @ hopeless.T
    assert solved(hopeless, targets, 2)[2] == solved(hopeless, targets)[2] != []
    right[3] *= 1e120
    monkeypatch.setattr(active_set_module, "THREADED", 0)
    assert active_set(atoms, right, 2) is None


@pytest.mark.parametrize("number", [1, 6])
def test_what_the_active_set_method_misses_is_scipys(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second right-hand side comes back damaged; where scipy finds no end either, it stays."""
    monkeypatch.setattr(module, "IS_COMPILED", False)
    atoms, right = gaussian(20, 12).abs(), gaussian(number, 20, seed=1).abs()
    reference, slopes = nnls(atoms, right)

    def damaged(*args: Any) -> Any:
        codes, gradient, _ = solved(*args)
        codes[::2], gradient[::2] = codes[::2] + 1, np.nan
        return codes, gradient, [*range(0, len(codes), 2)]

    monkeypatch.setattr(module, "active_set", damaged)
    found = nnls(atoms, right)
    torch.testing.assert_close(found.coefficients, reference, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.gradient, slopes, atol=1e-12, rtol=0)

    def endless(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(module, "scipy_nnls", endless)
    codes, gradient = nnls(atoms, right)
    torch.testing.assert_close(nnls(atoms, right[0]).coefficients, codes[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(codes[1::2], reference[1::2])
    assert (codes[::2] > reference[::2]).all()
    torch.testing.assert_close(gradient, (codes @ atoms.T - right) @ atoms, atol=1e-12, rtol=0)


def test_scipy_is_not_needed_for_good_dictionaries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "scipy_nnls", None)
    atoms = gaussian(20, 30).abs()
    for right in (gaussian(20, seed=1).abs(), gaussian(1, 20, seed=2), gaussian(9, 20, seed=3), 1e150 * gaussian(20)):
        for solution in (nnls(atoms, right), nnls(atoms.numpy(), right.numpy())):
            codes = np.atleast_2d(solution.coefficients)
            assert not misses(atoms.numpy() * 1e-150, np.atleast_2d(right) * 1e-150, codes).any()


def by_brute_force(atoms: np.ndarray, y: np.ndarray) -> float:
    """The smallest |x - y| over least squares on all sets of atoms that need no negative coefficient."""
    best = float(np.linalg.norm(y))
    for size in range(1, min(atoms.shape) + 1):
        for some in itertools.combinations(range(atoms.shape[1]), size):
            code = np.linalg.lstsq(atoms[:, some], y)[0]
            if (code >= -1e-12).all():
                best = min(best, float(np.linalg.norm(atoms[:, some] @ code - y)))
    return best


@pytest.mark.parametrize(("dim", "number"), [(1, 1), (5, 1), (1, 6), (3, 6), (6, 6), (9, 5)])
def test_one_right_hand_side_is_the_best_of_all_sets_of_atoms(dim: int, number: int) -> None:
    for seed in range(12):
        atoms, y = gaussian(dim, number, seed=seed).numpy(), gaussian(dim, seed=seed + 100).numpy()
        if seed % 3 == 1 and number > 4:
            atoms[:, 3], atoms[:, 4], atoms[:, 0] = 2 * atoms[:, 1], atoms[:, 1], 0
        if seed % 3 == 2:
            y = atoms @ gaussian(number, seed=seed).clamp_min(0).numpy()
        code, gradient = nnls(atoms, y)
        assert np.linalg.norm(atoms @ code - y) == pytest.approx(by_brute_force(atoms, y), abs=1e-12)
        assert code.min() >= 0 and not misses(atoms, y[None], code[None]).any()
        np.testing.assert_allclose(gradient, (atoms @ code - y) @ atoms, atol=1e-13)
        as_tensors = nnls(torch.from_numpy(atoms), torch.from_numpy(y))
        assert np.array_equal(as_tensors.coefficients, code) and np.array_equal(as_tensors.gradient, gradient)


def test_whatever_meets_the_conditions_is_told_from_what_misses_them() -> None:
    """On badly conditioned dictionaries, with and without the Gram matrix; both kinds occur."""
    counts = np.zeros(2, int)
    for condition in (1e3, 1e5, 1e7, 1e9):
        atoms = with_condition(condition).numpy()
        right = np.concatenate((gaussian(4, 20, seed=5).abs().numpy() @ atoms.T, gaussian(4, 30, seed=6).numpy()))
        ones = [solved(atoms, y[None]) for y in right]
        for codes, missed in (
            (solved(atoms, right)[0], solved(atoms, right)[2]),
            (np.concatenate([one[0] for one in ones]), [b for b, one in enumerate(ones) if one[2]]),
        ):
            is_missed = np.isin(np.arange(8), missed)
            counts += is_missed.sum(), (~is_missed).sum()
            assert not misses(atoms, right, codes, 1.5)[~is_missed].any() and codes.min() >= 0
            assert misses(atoms, right, codes, 1 / 1.5)[is_missed].all()
    assert counts.min() > 10


@pytest.mark.parametrize("number", [1, 5, 8, 9, 40])
def test_the_steepest_atoms_are_those_of_the_largest_cosines(number: int) -> None:
    """At most eight, none below half of the first, the slack, a length of 0, active or shut out."""
    for seed in range(20):
        cosines, lengths = gaussian(number, seed=seed).abs().numpy(), 1 + gaussian(number, seed=seed + 99).abs().numpy()
        is_shut, picks = np.zeros(number, bool), np.zeros(8, int)
        lengths[2:3], is_shut[3:4] = 0, True
        active = np.arange(number)[4:5]
        args = active, len(active), is_shut, picks, np.empty(number)
        found = _steepest(cosines * np.where(lengths > 0, lengths, 1), lengths, 0.2, *args)
        left = np.delete(np.arange(number), [i for i in (2, 3, 4) if i < number])
        ranked = left[np.argsort(-cosines[left])]
        expected = [i for i in ranked if cosines[i] > 0.2 and cosines[i] >= 0.5 * cosines[ranked[0]]][:8]
        assert picks[:found].tolist() == expected


@pytest.mark.parametrize(
    ("descent", "is_flat", "is_optimal"),
    [
        ([0, 0, 0], True, True),
        ([-5, 1.9, -1.9], True, True),
        ([-5, 2.1, 0], False, False),
        ([-5, 0, -2.1], False, False),
        ([0.9, 0, 0], True, True),
        ([1.1, 0, 0], True, False),
        ([0, np.nan, 0], False, False),
        ([np.nan, 0, 0], True, False),
    ],
)
def test_conditions_of_active_and_other_atoms(descent: list[float], is_flat: bool, is_optimal: bool) -> None:
    """Atoms 1 and 2 are active, of length 2, the first is not, of length 1; the slack is 1."""
    args = np.array(descent, float), np.array([1.0, 2, 2]), 1.0, np.array([2, 1]), 2
    assert (_is_flat(*args), _is_optimal(*args)) == (is_flat, is_optimal)


def layouts() -> dict[str, Callable[[Tensor], Any]]:
    """Ways to hold the same numbers."""
    return {
        "columns": lambda x: x.mT.contiguous().mT if x.ndim > 1 else x,
        "columns of an array": lambda x: np.asfortranarray(x.numpy()),
        "every second": lambda x: x.repeat_interleave(2, dim=-1)[..., ::2],
        "backwards": lambda x: np.flip(np.flip(x.numpy()).copy()),
        "read-only": lambda x: np.frombuffer(x.numpy().tobytes()).reshape(x.shape),
        "unaligned": lambda x: np.frombuffer(bytearray(b"0" + x.numpy().tobytes()), offset=1).reshape(x.shape),
        "other bytes": lambda x: x.numpy().astype(">f8"),
        "gradients": lambda x: x.clone().requires_grad_(),
        "parameter": lambda x: torch.nn.Parameter(x.clone()),
        "negated": lambda x: torch._neg_view(-x),
    }


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("shape", [(9,), (1, 9), (3, 9), (5, 9)])
def test_layouts_change_nothing_and_nothing_is_written(name: str, shape: tuple[int, ...]) -> None:
    atoms, right = gaussian(9, 14), gaussian(*shape, seed=1)
    expected = nnls(atoms, right)
    held = layouts()[name](atoms), layouts()[name](right)
    found = nnls(*held)
    for part, reference, kind in zip(found, expected, ("coefficients", "gradient"), strict=True):
        assert isinstance(part, np.ndarray) == isinstance(held[0], np.ndarray) and part.shape == (*shape[:-1], 14)
        np.testing.assert_array_equal(part, reference, err_msg=kind)
    kinds = {tuple(str(kind) for kind in each if "Array" in str(kind)) for each in getattr(solve_few, "signatures", [])}
    assert len(kinds) <= 1  # one kind of array is compiled for; solve_at brings a second form with a constant
    for after, before in zip(held, (gaussian(9, 14), gaussian(*shape, seed=1)), strict=True):
        np.testing.assert_array_equal(after.detach().resolve_neg() if isinstance(after, Tensor) else after, before)


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
    slopes = nnls(atoms, right).gradient
    assert torch.equal(nnls(atoms * 2**powers, right * 2.0**-500).gradient, slopes * 2**powers * 2.0**-500)
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
    for empty in ((gaussian(0, 3), gaussian(0)), (gaussian(5, 0), gaussian(5))):
        with pytest.raises(ValueError, match="do not fit"):
            nnls(*empty)
    for kinds in ((atoms, right.numpy()), (atoms.numpy(), right), (atoms.tolist(), right.tolist())):
        with pytest.raises(ValueError, match="must be tensors or arrays, both of one kind"):
            nnls(*kinds)
    for values in (atoms, atoms.requires_grad_()):
        with pytest.raises(ValueError, match=r"must be real, not .*complex64"):
            nnls(values.cfloat(), right.cfloat())
    with pytest.raises(ValueError, match="one type and one device"):
        nnls(gaussian(5, 3).requires_grad_(), right.float())
    with pytest.raises(ValueError, match="must be dense"):
        nnls(gaussian(5, 3).to_sparse(), right)
    with pytest.raises(ValueError, match="must be real"):
        nnls(gaussian(5, 3).numpy().astype(object), right.numpy().astype(object))
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
    slopes = atoms.numpy().T @ (atoms.numpy() @ one.coefficients - right[0].numpy())
    np.testing.assert_allclose(one.gradient, slopes, atol=1e-14)
    assert torch.equal(nnls(atoms, right[0]).coefficients, torch.from_numpy(one.coefficients))
    torch.testing.assert_close(nnls(atoms, right[0]).gradient, gradient[0], atol=1e-13, rtol=0)


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
