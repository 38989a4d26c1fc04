"""Algorithms in integers: the poster's and Strassen's, Brent's equations, blocks, files, tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.strassen import verify
from modules.strassen.additions import count_additions, plain_additions, share
from modules.strassen.algorithm_file import read_algorithms, to_json, to_table
from modules.strassen.bilinear import (
    Algorithm,
    defects,
    exact_starts,
    is_exact,
    multiplies_blocks,
    multiply,
    product_tensor,
    rounded,
    sides,
)
from modules.strassen.compose import compose
from modules.strassen.compose import main as main_of_compose
from modules.strassen.symmetry import canonical, change_basis, count_different, rank_pattern, signed_canonical

POSTER = Algorithm(
    (2, 2, 2),
    np.array(
        [[-1, -1, 0, 0], [0, 0, 0, 1], [-1, -1, 1, 1], [-1, 0, 1, 0], [-1, -1, 1, 0], [0, 0, 1, 0], [0, -1, 0, 0]]
    ),
    np.array([[-1, -1, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [1, 0, 1, 0], [-1, -1, -1, 0], [1, 1, 1, 1], [0, 0, -1, 0]]),
    np.array([[1, 0, 0, -1, -1, 0, 1], [0, 0, 1, 1, 1, 0, -1], [-1, 0, 0, 0, 1, 1, -1], [0, 1, 0, 0, 0, 0, 1]]),
)
# Strassen 1969; entries a11, a21, a12, a22 (column by column).
STRASSEN = Algorithm(
    (2, 2, 2),
    np.array([[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0], [-1, 1, 0, 0], [0, 0, 1, -1]]),
    np.array([[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, -1], [-1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]]),
    np.array([[1, 0, 0, 1, -1, 0, 1], [0, 1, 0, 1, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0], [1, -1, 1, 0, 0, 1, 0]]),
)


def schoolbook(n: int, m: int, p: int) -> Algorithm:
    terms = [(i, j, k) for i in range(n) for j in range(m) for k in range(p)]
    first, second = np.zeros((len(terms), n * m), np.int64), np.zeros((len(terms), m * p), np.int64)
    third = np.zeros((n * p, len(terms)), np.int64)
    for q, (i, j, k) in enumerate(terms):
        first[q, j * n + i] = second[q, k * m + j] = third[k * n + i, q] = 1
    return Algorithm((n, m, p), first, second, third)


@pytest.mark.parametrize("algorithm", [POSTER, STRASSEN, schoolbook(1, 2, 3), schoolbook(3, 2, 4)])
def test_known_algorithms_are_exact(algorithm: Algorithm) -> None:
    assert is_exact(algorithm) and multiplies_blocks(algorithm)


def test_the_tensor_has_a_one_for_each_term() -> None:
    tensor = product_tensor(2, 3, 4)
    assert tensor.shape == (8, 6, 12) and tensor.sum() == 24
    a, b = np.arange(6).reshape(3, 2).T, np.arange(12).reshape(4, 3).T  # numbered column by column
    expected = (a @ b).T.ravel()
    assert (np.einsum("oab,a,b->o", tensor, np.arange(6), np.arange(12)) == expected).all()


@pytest.mark.parametrize("part", [0, 1, 2])
def test_every_entry_matters(part: int) -> None:
    for index in np.ndindex(POSTER[part + 1].shape):
        parts = [matrix.copy() for matrix in POSTER[1:]]
        parts[part][index] += 1
        changed = Algorithm((2, 2, 2), *parts)
        assert not is_exact(changed)
    assert not multiplies_blocks(changed)


def test_blocks_do_not_commute() -> None:
    """b a in place of a b is right for numbers and wrong for blocks."""
    left, right = np.arange(4).reshape(1, 1, 2, 2), np.arange(4, 8).reshape(1, 1, 2, 2)
    assert (multiply(schoolbook(1, 1, 1), left, right)[0, 0] == left[0, 0] @ right[0, 0]).all()


def test_sides_follow_from_sizes() -> None:
    assert sides((6, 12, 8)) == (2, 3, 4)
    assert sides((4, 4, 4)) == (2, 2, 2)
    with pytest.raises(ValueError, match="no n, m, p"):
        sides((4, 5, 6))


def test_too_large_entries_are_refused() -> None:
    parts = [matrix.copy() for matrix in POSTER[1:]]
    parts[0][0, 0] = 1001
    with pytest.raises(ValueError, match="entries up to 1000"):
        is_exact(Algorithm((2, 2, 2), *parts))


def test_rounding_and_defects_of_many_starts() -> None:
    assert rounded(torch.tensor([-3.0, -0.6, -0.5, 0.4, 0.51, 1.4])).tolist() == [-1, -1, 0, 0, 1, 1]
    weights = [torch.from_numpy(part).double() for part in (POSTER.first, POSTER.second, POSTER.third.T)]
    noisy = [torch.stack([weight + 0.3, weight, weight * 0.4]) for weight in weights]
    assert exact_starts(*noisy).tolist() == [True, True, False]
    errors = defects(*noisy, torch.from_numpy(product_tensor(2, 2, 2)).double())
    expected = np.einsum("qo,qa,qb->oab", *(noisy[i][0].numpy() for i in (2, 0, 1))) - product_tensor(2, 2, 2)
    np.testing.assert_allclose(errors[0].numpy(), expected, atol=1e-12)
    assert errors[1].abs().max() == 0


def test_additions() -> None:
    assert count_additions(STRASSEN)[0] == 18
    assert sum(plain_additions(part) for part in POSTER[1:]) == 24
    assert count_additions(POSTER)[1] == 15  # the least that is possible with seven multiplications
    assert count_additions(schoolbook(2, 2, 2)) == (4, 4)


def test_shared_sums_give_the_same_forms() -> None:
    matrix = np.random.default_rng(0).integers(-1, 2, (12, 9))
    sharing = share(matrix, tries=3)
    variables = [*np.eye(9, dtype=np.int64)]
    for x, y, sign in sharing.pairs:
        variables.append(variables[x] + sign * variables[y])
    forms = [sum((sign * variables[v] for v, sign in form.items()), np.zeros(9, np.int64)) for form in sharing.forms]
    assert (np.stack(forms) == matrix).all()
    assert sharing.additions < plain_additions(matrix)


def test_the_best_of_several_tries_is_taken() -> None:
    matrix = np.random.default_rng(0).integers(-1, 2, (12, 9))
    each = [share(matrix, tries=1, seed=seed).additions for seed in range(8)]
    assert share(matrix, tries=20).additions <= min(each) < max(each)


def test_order_and_signs_do_not_count() -> None:
    order, signs = np.random.default_rng(1).permutation(7), np.array([1, -1, 1, 1, -1, -1, 1])
    same = Algorithm(
        (2, 2, 2), POSTER.first[order] * signs[:, None], -POSTER.second[order], -POSTER.third[:, order] * signs
    )
    assert is_exact(same) and canonical(same) == canonical(POSTER)
    assert canonical(POSTER) != canonical(STRASSEN)
    before = POSTER.first.copy()
    canonical(POSTER)
    assert (POSTER.first == before).all()


def test_change_of_basis() -> None:
    flip, swap = np.diag([1, -1]), np.array([[0, 1], [1, 0]])
    for algorithm in (POSTER, STRASSEN):
        other = change_basis(algorithm, swap, flip, swap @ flip)
        assert is_exact(other) and canonical(other) != canonical(algorithm)
        assert signed_canonical(other) == signed_canonical(algorithm)
        assert rank_pattern(other) == rank_pattern(algorithm)
    wide = schoolbook(2, 3, 1)
    assert is_exact(change_basis(wide, swap, np.eye(3, dtype=int)[[2, 0, 1]], np.array([[-1]])))
    counts = count_different([POSTER, other, STRASSEN, STRASSEN])
    assert counts == {"order_and_signs": 3, "ranks": 1, "signed_permutations": 2}
    assert count_different([POSTER, schoolbook(2, 2, 2)])["ranks"] == 2
    assert count_different([]) == {"order_and_signs": 0, "ranks": 0}


def test_files_come_back_and_are_proven(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = tmp_path / "algorithms.json"
    file.write_text(to_json([POSTER, STRASSEN], (2, 2, 2)))
    found = read_algorithms(file)
    assert all((a == b).all() for a, b in zip(found[1][1:], STRASSEN[1:], strict=True))
    assert verify.main([str(file)]) == 0
    output = capsys.readouterr().out
    assert "7 multiplications in -1, 0, 1, 24 additions, 15 with shared sums: exact" in output
    assert "2 of 2 are exact" in output


def test_a_wrong_algorithm_is_not_proven(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wrong = Algorithm(POSTER.shape, POSTER.first, POSTER.second, -POSTER.third)
    (tmp_path / "a.json").write_text(to_json([STRASSEN, wrong], (2, 2, 2)))
    assert verify.main([str(tmp_path / "a.json")]) == 1
    assert "NOT exact" in capsys.readouterr().out
    (tmp_path / "b.json").write_text(to_json([], (2, 2, 2)))
    assert verify.main([str(tmp_path / "b.json")]) == 1


def damaged(**changes: object) -> str:
    content = json.loads(to_json([POSTER], (2, 2, 2)))
    item = content["algorithms"][0]
    for name, value in changes.items():
        (item if name in item else content)[name] = value
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no file of bilinear"),
        (damaged(version=2), "version 1"),
        (damaged(n=17), "1 to 16"),
        (damaged(n=True), "1 to 16"),
        (damaged(order="row-major"), "column-major"),
        (damaged(algorithms=3), "no list"),
        (damaged(algorithms=[3]), "algorithm 0 is no object"),
        (damaged(first=[]), "first is not a matrix"),
        (damaged(first=[[1, 2], [3]]), "first is not a matrix"),
        (damaged(first=[[1, 2, 3]] * 7), "does not fit"),
        (damaged(second=[[0] * 4] * 6), "does not fit"),
        (damaged(third=[[0] * 6] * 4), "does not fit"),
        (damaged(first=[[1001, 0, 0, 0]] * 7), "magnitude up to 1000"),
        (damaged(first=[[0.5, 0, 0, 0]] * 7), "no integer"),
        (damaged(first=[[True, 0, 0, 0]] * 7), "no integer"),
        ("[" * 100_000, "no JSON"),
    ],
)
def test_damaged_files_are_refused_in_one_line(
    text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_algorithms(tmp_path / "a.json")
    assert verify.main([str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_large_algorithms_are_proven_without_sharing_sums(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    large = schoolbook(6, 6, 6)
    assert is_exact(large)
    (tmp_path / "a.json").write_text(to_json([large], large.shape))
    assert verify.main([str(tmp_path / "a.json")]) == 0
    assert "216 multiplications in -1, 0, 1, 180 additions: exact" in capsys.readouterr().out


def test_two_algorithms_make_one_for_larger_matrices() -> None:
    twice = compose(POSTER, STRASSEN)
    assert twice.shape == (4, 4, 4) and twice.rank == 49 and is_exact(twice) and multiplies_blocks(twice)
    wide = compose(schoolbook(2, 3, 1), schoolbook(1, 2, 3))
    assert wide.shape == (2, 6, 3) and wide.rank == 36 and is_exact(wide) and multiplies_blocks(wide)
    with pytest.raises(ValueError, match="sides up to 16"):
        compose(schoolbook(1, 1, 9), schoolbook(1, 1, 2))
    idle = Algorithm((1, 1, 1), *(np.zeros(shape, np.int64) for shape in ((70, 1), (70, 1), (1, 70))))
    with pytest.raises(ValueError, match=r"4900 products.* 4096 products"):
        compose(idle, idle)
    loud = Algorithm((1, 1, 1), np.array([[100]]), np.array([[1]]), np.array([[1]]))
    with pytest.raises(ValueError, match="entries up to 10000"):
        compose(loud, loud)


def test_composing_by_command(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    wrong = Algorithm(POSTER.shape, POSTER.first, POSTER.second, -POSTER.third)
    (tmp_path / "a.json").write_text(to_json([wrong, POSTER, STRASSEN], (2, 2, 2)))
    names = [str(tmp_path / name) for name in ("a.json", "a.json", "b.json")]
    assert main_of_compose(names) == 0
    assert "49 multiplications in -1, 0, 1, 474 additions, 163 with shared sums: exact" in capsys.readouterr().out
    [found] = read_algorithms(tmp_path / "b.json")
    assert canonical(found) == canonical(compose(POSTER, POSTER))  # 15 additions with shared sums against 18
    large = schoolbook(6, 6, 6)
    (tmp_path / "large.json").write_text(to_json([large], large.shape))
    assert main_of_compose([str(tmp_path / "a.json"), str(tmp_path / "large.json"), str(tmp_path / "c.json")]) == 0
    assert read_algorithms(tmp_path / "c.json")[0].shape == (12, 12, 12)
    (tmp_path / "none.json").write_text(to_json([wrong], (2, 2, 2)))
    for files, message in (
        (["a.json", "a.json", "a.json"], "one of the files to be read"),
        (["a.json", "none.json", "c.json"], "holds no exact algorithm"),
        (["a.json", "gone.json", "c.json"], "no file"),
        (["a.json", "b.json", "gone/c.json"], "No such file"),
    ):
        assert main_of_compose([str(tmp_path / file) for file in files]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1


def test_a_file_of_many_bytes_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modules.strassen.algorithm_file.MAX_BYTES", 10)
    (tmp_path / "a.json").write_text(to_json([POSTER], (2, 2, 2)))
    with pytest.raises(ValueError, match="more than 10 bytes"):
        read_algorithms(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert verify.main([str(tmp_path / "gone.json")]) == 2
    assert "no file" in capsys.readouterr().err


def test_a_table_computes_the_product() -> None:
    """The equations of the table, run as Python."""
    for algorithm in (POSTER, STRASSEN, schoolbook(2, 1, 3)):
        n, m, p = algorithm.shape
        lines = to_table(algorithm).splitlines()
        random = np.random.default_rng(0)
        left, right = random.integers(-9, 10, (n, m)), random.integers(-9, 10, (m, p))
        names = {f"a{i + 1}{j + 1}": left[i, j] for i in range(n) for j in range(m)}
        names |= {f"b{i + 1}{j + 1}": right[i, j] for i in range(m) for j in range(p)}
        for line in lines[1:]:
            name, form = line.split(" = ")
            names[name] = eval(form.replace(") (", ") * ("), {}, names)
        found = np.array([[names[f"c{i + 1}{k + 1}"] for k in range(p)] for i in range(n)])
        assert (found == left @ right).all()
    assert "15 with shared sums" in to_table(POSTER)
