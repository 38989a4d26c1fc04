"""Endmembers and abundances of mixtures whose truth is known."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import nnls as scipy_nnls

from datamodules.mixed_pixels import MixedPixels
from modules.cone_pursuit.endmembers import EXTRACTIONS, extract
from modules.cone_pursuit.unmixing import Unmixing, abundance_error, hals_sweep
from train import main

CONFIG = Path(__file__).parents[3] / "configs" / "cone_pursuit" / "unmixing.yaml"


@pytest.mark.parametrize("name", EXTRACTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_pure_pixels_are_found(name: str, seed: int) -> None:
    pixels, _ = MixedPixels(4, 30, 200, noise_db=300.0, seed=seed).load()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(seed))
    assert sorted(order[extract(pixels[order], 4, name)].tolist()) == [0, 1, 2, 3]


def test_what_cannot_be_extracted() -> None:
    pixels = torch.rand(5, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="choose one of spa"):
        extract(pixels, 2, "ica")
    with pytest.raises(ValueError, match="negative"):
        extract(-pixels, 2, "spa")
    with pytest.raises(ValueError, match="4 endmembers"):
        extract(pixels, 4, "spa")


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
    assert len(rows) == 3 * 6 * 11
    last = {(row["endmembers"], row["algorithm"]): row for row in rows if row["with_iteration"] == "10"}
    for extraction in EXTRACTIONS:
        for algorithm in ("nnls", "fcmp1"):
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
