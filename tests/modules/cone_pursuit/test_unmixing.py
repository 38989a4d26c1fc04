"""Endmembers and abundances of mixtures whose truth is known."""

import csv
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as scipy_nnls

from datamodules.mixed_pixels import MixedPixels
from modules.cone_pursuit.endmembers import EXTRACTIONS, extract, hull_residuals, successive_projection, sum_to_one
from modules.cone_pursuit.unmixing import Unmixing, abundance_error, hals_sweep
from train import main

CONFIG = Path(__file__).parents[3] / "configs" / "cone_pursuit" / "unmixing.yaml"
CORNERS = sorted(set(EXTRACTIONS) - {"h2nmf"})  # H2NMF takes the middle of a cluster: see test_hierarchical.py


def uniform(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def polygon(number: int) -> torch.Tensor:
    """Corners [number, 3] of a regular polygon in the plane of sum 1: more rays than bands."""
    angles = 2 * torch.pi * torch.arange(number, dtype=torch.float64) / number
    across, up = torch.tensor([[1.0, -1.0, 0.0], [1.0, 1.0, -2.0]], dtype=torch.float64)
    return 1 / 3 + 0.1 * (angles.cos()[:, None] * across / across.norm() + angles.sin()[:, None] * up / up.norm())


def squared_distance(corners: np.ndarray, y: np.ndarray) -> float:
    """From y [d] to the hull of the origin and ``corners`` [r, d]: the best feasible solution over all supports, with
    the sum free and with the sum held at 1."""
    best = float(y @ y)
    for size in range(1, len(corners) + 1):
        for support in combinations(range(len(corners)), size):
            w = corners[list(support)].T
            free = np.linalg.lstsq(w, y, rcond=None)[0]
            rule = np.block([[w.T @ w, np.ones((size, 1))], [np.ones((1, size)), np.zeros((1, 1))]])
            held = np.linalg.lstsq(rule, np.append(w.T @ y, 1.0), rcond=None)[0][:-1]
            for x in (free, held):
                if x.min() >= -1e-12 and x.sum() <= 1 + 1e-12:
                    best = min(best, float(np.square(w @ x - y).sum()))
    return best


@pytest.mark.parametrize("name", CORNERS)
@pytest.mark.parametrize("seed", range(3))
def test_pure_pixels_are_found(name: str, seed: int) -> None:
    pixels, _ = MixedPixels(4, 30, 200, noise_db=300.0, seed=seed).load()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    assert sorted(order[extract(pixels[order], 4, name)].tolist()) == [0, 1, 2, 3]


@pytest.mark.parametrize("number, bands", [(1, 4), (4, 6), (6, 3)])
def test_distances_from_the_hull(number: int, bands: int) -> None:
    corners = sum_to_one(uniform(number, bands))
    inside = uniform(10, number, seed=1) / number @ corners
    pixels = torch.cat((inside, sum_to_one(uniform(20, bands, seed=2)), 2 * uniform(20, bands, seed=3) - 0.5, -inside))
    ours = hull_residuals(pixels, corners).square().sum(1)
    reference = [squared_distance(corners.numpy(), y) for y in pixels.numpy()]
    np.testing.assert_allclose(ours.numpy(), reference, rtol=1e-9, atol=1e-12)
    alone = [scipy_nnls(corners.T.numpy(), y)[1] ** 2 for y in pixels.numpy()]
    assert (np.array(reference) > np.array(alone) + 1e-6).sum() >= 10  # the rule on the sum matters


@pytest.mark.parametrize("name", ["xray", "snpa"])
@pytest.mark.parametrize("number", [4, 5, 6, 8])
def test_more_corners_than_bands(name: str, number: int) -> None:
    weights = torch.from_numpy(np.random.default_rng(number).dirichlet(np.full(number, 0.3), 300))
    beside = torch.eye(number, dtype=torch.float64)
    if name == "snpa":
        weights[:number] = 0.5 * (beside + beside.roll(1, 1))  # on the edges, where distances tie
    pixels = torch.cat((weights, beside)) @ polygon(number)
    assert sorted(extract(pixels, number, name).tolist()) == list(range(300, 300 + number))
    assert sorted(successive_projection(pixels, number).tolist()) != list(range(300, 300 + number))


@pytest.mark.parametrize("name", EXTRACTIONS)
def test_rows_are_different_whatever_the_pixels(name: str) -> None:
    pixels = uniform(6, 7)
    assert sorted(extract(pixels, 6, name).tolist()) == [0, 1, 2, 3, 4, 5]
    pixels[1] = 0
    assert len(set(extract(pixels, 5, name).tolist()) - {1}) == 5
    assert len(extract(pixels[1:3].float(), 1, name)) == 1
    alike = pixels[[0, 0, 0, 2, 2, 3]]
    assert {(0, 1, 2).count(row) + 3 * (3, 4).count(row) for row in extract(alike, 3, name).tolist()} == {0, 1, 3}
    if name != "h2nmf":
        assert len(set(extract(alike, 5, name).tolist())) == len(set(extract(0 * alike, 5, name).tolist())) == 5


def test_what_cannot_be_extracted() -> None:
    pixels = torch.rand(5, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="choose one of spa"):
        extract(pixels, 2, "ica")
    with pytest.raises(ValueError, match="negative"):
        extract(-pixels, 2, "spa")
    with pytest.raises(ValueError, match="4 endmembers are too many for spa on 3 bands: choose xray, h2nmf, snpa"):
        extract(pixels, 4, "spa")
    with pytest.raises(ValueError, match="6 endmembers cannot be taken from 5 pixels"):
        extract(pixels, 6, "snpa")
    with pytest.raises(ValueError, match="0 endmembers cannot be taken from 0 pixels"):
        extract(pixels[:0], 0, "snpa")


def test_hals_ends_at_nnls() -> None:
    random = torch.Generator().manual_seed(0)
    endmembers = torch.rand(8, 3, dtype=torch.float64, generator=random)
    pixels = torch.rand(5, 8, dtype=torch.float64, generator=random)
    codes = torch.zeros(5, 3, dtype=torch.float64)
    for _ in range(2000):
        codes = hals_sweep(codes, endmembers, pixels @ endmembers)
    reference = np.stack([scipy_nnls(endmembers.numpy(), y)[0] for y in pixels.numpy()])
    np.testing.assert_allclose(codes.numpy(), reference, atol=1e-8)


def test_abundances_are_compared_whatever_the_order_of_the_endmembers() -> None:
    truth = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.9, 0.1]], dtype=torch.float64)
    assert abundance_error(3 * truth.flip(1), truth) == pytest.approx(0, abs=1e-12)
    shifted = truth + torch.tensor([0.1, -0.1])
    assert abundance_error(shifted, truth) == pytest.approx(0.1)


def test_config_runs_on_tiny_data() -> None:
    sizes = ["num_endmembers=3", "bands=20", "num_pixels=50", "noise_db=200"]
    main(
        ["fit", f"--config={CONFIG}", "--run.dir=runs", "--model.init_args.num_endmembers=3"]
        + [f"--data.init_args.{option}" for option in sizes]
    )
    with Path("runs/000/table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * 6 * 11
    last = {(row["endmembers"], row["algorithm"]): row for row in rows if row["with_iteration"] == "10"}
    for extraction in EXTRACTIONS:
        for algorithm in ("nnls", "fcmp1") if extraction in CORNERS else ():
            assert float(last[extraction, algorithm]["error"]) < 1e-6
            assert float(last[extraction, algorithm]["abundance_rmse"]) < 1e-6
        for algorithm in ("nnmp", "amp", "pwmp", "hals"):
            curve = [float(r["error"]) for r in rows if (r["endmembers"], r["algorithm"]) == (extraction, algorithm)]
            assert curve[0] == pytest.approx(100) and (np.diff(curve) <= 1e-9).all() and curve[-1] < 20


def test_values_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="choose from"):
        Unmixing(algorithms=["omp"])
    with pytest.raises(ValueError, match="fit first"):
        Unmixing().predict_step({"points": torch.ones(2, 3)}, 0)
