"""H2NMF: its steps against the formulas in numpy and scikit-learn's factorisation, clusters whose truth is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as scipy_nnls
from sklearn.decomposition import NMF

from modules.cone_pursuit.endmembers import Cluster, cluster_pixels, extract, rank_two, threshold


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape))


def groups(number: int, each: int, noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels [number * each, 30] in any order, of ``number`` spectra at any brightness, and which one each shows."""
    random = np.random.default_rng(seed)
    label = random.permutation(np.repeat(np.arange(number), each))
    spectra = random.random((number, 30)) + 0.1
    pixels = random.uniform(0.5, 2.0, (len(label), 1)) * spectra[label]
    return torch.from_numpy((pixels + noise * random.standard_normal(pixels.shape)).clip(0)), torch.from_numpy(label)


@pytest.mark.parametrize("number", [1, 2, 5, 8])
@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_one_pixel_of_every_group(number: int, noise: float) -> None:
    pixels, label = groups(number, 40, noise, seed=number)
    rows = extract(pixels, number, "h2nmf")
    assert sorted(label[rows].tolist()) == list(range(number))
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    if noise:
        assert sorted(order[extract(pixels[order], number, "h2nmf")].tolist()) == sorted(rows.tolist())


def test_pure_pixels_are_found_among_purer_than_mixed_ones() -> None:
    """With orthogonal spectra and mixtures symmetric around them the middle of a cluster is its pure pixel."""
    mixtures = 0.9 * torch.eye(3).double().repeat_interleave(2, 0) + 0.1 * torch.eye(3)[[1, 2, 0, 2, 0, 1]].double()
    spectra = torch.kron(torch.eye(3), torch.tensor([1.0, 3.0, 2.0])).double()
    pixels = torch.cat((mixtures, torch.eye(3).double())) @ spectra
    assert sorted(extract(pixels, 3, "h2nmf").tolist()) == [6, 7, 8]


def test_factorisation_of_rank_two_is_exact_and_elsewhere_as_good_as_scikit_learn() -> None:
    shares = draw(40, 2)
    pixels = shares @ draw(2, 12, seed=1)
    axes = torch.linalg.svd(pixels)[2][:2].T
    h = rank_two(pixels, axes)
    assert (h >= 0).all()
    assert float((h @ torch.linalg.lstsq(h, pixels).solution - pixels).norm()) < 1e-10
    pixels = (draw(40, 12, seed=1) - 0.5).clip(0) + 0.001  # its first two singular vectors need negative numbers
    h = rank_two(pixels, torch.linalg.svd(pixels)[2][:2].T)
    error = np.sqrt(sum(scipy_nnls(h.numpy(), band)[1] ** 2 for band in pixels.T.numpy()))
    peer = NMF(2, init="nndsvd", tol=1e-8, max_iter=2000)
    best = np.linalg.norm(pixels.numpy() - peer.fit_transform(pixels.numpy()) @ peer.components_)
    assert error < 1.0001 * best  # 1.002 after one sweep


@pytest.mark.parametrize("seed", range(5))
def test_threshold_minimises_the_papers_criterion(seed: int) -> None:
    random = np.random.default_rng(seed)
    x = np.concatenate((random.beta(1, 6, 70), random.beta(5, 1, 50), [0.0, 1.0]))
    cost = []
    for cut in np.arange(100) / 100:
        low, high = max(0.0, cut - 0.05), min(1.0, cut + 0.05)
        below, near = np.mean(x <= cut), np.mean((x >= low) & (x <= high)) / (high - low)
        cost.append(-np.log(below * (1 - below)) + np.exp(near))
    assert threshold(torch.from_numpy(x)) == pytest.approx(np.argmin(cost) / 100)


def test_threshold_separates_numbers_that_lie_close() -> None:
    ratios = torch.tensor([0.5012, 0.5014, 0.5019], dtype=torch.float64)
    assert 0.5012 <= threshold(ratios) < 0.5019


def test_gain_is_the_fall_of_the_squared_rank_one_errors() -> None:
    pixels, _ = groups(3, 20, 0.05)
    whole = Cluster(pixels, torch.arange(60))
    assert whole.halves is not None
    parts = [half.rows for half in whole.halves]
    assert sorted(torch.cat(parts).tolist()) == list(range(60))

    def missed(rows: torch.Tensor) -> float:
        return float(np.square(np.linalg.svd(pixels[rows].numpy(), compute_uv=False)[1:]).sum())

    assert whole.gain == pytest.approx(missed(whole.rows) - sum(missed(rows) for rows in parts))


def test_representative_has_the_smallest_angle_without_means() -> None:
    pixels = draw(50, 9, seed=3) + 5 * draw(50, 1, seed=4)
    u = np.linalg.svd(pixels.numpy())[2][0]
    angles = []
    for y in pixels.numpy():
        a, b = np.abs(u) - np.abs(u).mean(), y - y.mean()
        angles.append(np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert Cluster(pixels, torch.arange(50)).representative() == int(np.argmin(angles))
    assert Cluster(pixels, torch.tensor([7, 30])).representative() in (7, 30)


def test_flat_spectra_are_compared_with_their_means() -> None:
    pixels = torch.tensor([[1.2, 0.8, 1.0], [2.0, 2.0, 2.0], [0.8, 1.2, 1.0]], dtype=torch.float64)
    assert Cluster(pixels, torch.arange(3)).representative() == 1
    assert extract(pixels[1:2, :1].expand(4, 1), 1, "h2nmf").tolist() == [0]


def test_multiples_of_one_pixel_are_not_split() -> None:
    for seed in range(200):  # brightness over six decades, where round-off alone would split some
        pixels = 10 ** (6 * draw(7 + seed % 40, 1, seed=seed) - 3) * draw(1, 9 + seed % 19, seed=seed + 1000)
        assert Cluster(pixels, torch.arange(len(pixels))).halves is None


def test_fewer_spectra_than_clusters() -> None:
    pixels, _ = groups(3, 5, 0.0)
    with pytest.raises(ValueError, match="3 clusters"):
        cluster_pixels(pixels, 4)
    with pytest.raises(ValueError, match="0 clusters"):
        cluster_pixels(torch.zeros(4, 3, dtype=torch.float64), 1)
    pixels[::2] = 0
    assert not set(cluster_pixels(pixels, 3).tolist()) & set(range(0, 15, 2))
