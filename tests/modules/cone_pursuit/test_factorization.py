"""The matrix and tensor experiments through the command line, and the codes of new items."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from scipy.optimize import minimize
from scipy.optimize import nnls as scipy_nnls
from scipy.special import kl_div

from datamodules.low_rank_tensors import LowRankTensor
from modules.cone_pursuit.factorization import Factorization
from modules.cone_pursuit.factors import compose
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "cone_pursuit"


@pytest.mark.parametrize(("config", "shape"), [("nmf", "[9,7]"), ("tensor", "[6,5,4]")])
def test_configs_run_on_tiny_data(config: str, shape: str) -> None:
    tiny = [f"--data.init_args.{option}" for option in (f"shape={shape}", "rank=2", "noise=0", "zeros=0")]
    tiny += ["--model.init_args.ranks=[1,2]", "--model.init_args.restarts=3", "--run.dir=runs"]
    data = "--data=datamodules.low_rank_tensors.LowRankTensor"
    main(["fit", f"--config={CONFIGS / config}.yaml", data, *tiny])
    with Path("runs/000/table.csv").open() as file:
        errors = {(row["algorithm"], row["with_rank"]): float(row["relative_error"]) for row in csv.DictReader(file)}
    assert len(errors) == 10
    for name in ("nnmp", "amp", "pwmp", "fcmp1", "hals"):
        assert errors[name, "2"] < 0.05 < errors[name, "1"] < 0.5
    assert Path("runs/000/curves.png").is_file()


def test_kullback_leibler_runs_on_tiny_data() -> None:
    tiny = [f"--data.init_args.{option}" for option in ("shape=[9,7]", "rank=2", "noise=0.01", "zeros=0")]
    options = ("ranks=[1,2]", "restarts=3", "correction=1000", "steps={'nnmp': 1.0e-5}")
    tiny += [f"--model.init_args.{option}" for option in options] + ["--run.dir=runs"]
    main(["fit", f"--config={CONFIGS / 'nmf_kl'}.yaml", "--data=datamodules.low_rank_tensors.LowRankTensor", *tiny])
    with Path("runs/000/table.csv").open() as file:
        ends = {(row["algorithm"], row["with_rank"]): float(row["objective"]) for row in csv.DictReader(file)}
    whole = LowRankTensor([9, 7], rank=2, noise=0.01, zeros=0).load()[0].numpy()
    alone = kl_div(whole, np.outer(whole.sum(1), whole.sum(0)) / whole.sum()).sum()
    names = {"nnmp", "amp", "pwmp", "fcmp0", "fcmp1", "multiplicative", "ccd"}
    assert {name for name, _ in ends} == names
    for name in names:
        assert ends[name, "1"] == pytest.approx(alone, rel=1e-6)
        assert 0 < ends[name, "2"] < 0.01 * alone
    assert Path("runs/000/curves.png").is_file()


def codes_after_reload(model: Factorization, data: LowRankTensor, folder: Path) -> np.ndarray:
    """Fit, save, load and predict: codes [N, K]."""
    options = {"logger": False, "enable_progress_bar": False, "default_root_dir": folder}
    run = Trainer(max_epochs=1, accelerator="cpu", **options)  # type: ignore[arg-type]
    run.fit(model, data)
    run.save_checkpoint(folder / "last.ckpt")
    loaded = Factorization.load_from_checkpoint(folder / "last.ckpt", weights_only=True)
    return torch.cat(run.predict(loaded, data)).numpy()  # type: ignore[arg-type]


def test_kullback_leibler_codes_of_new_items(tmp_path: Path) -> None:
    data = LowRankTensor([7, 5, 4], rank=2, noise=0.1, batch_size=3)
    model = Factorization([2], ["fcmp0", "ccd"], loss="kullback_leibler", restarts=2)
    codes = codes_after_reload(model, data, tmp_path)
    terms = compose([factor[None] for factor in model.factors[1:]])[0].flatten(1).numpy()
    whole = data.load()[0].flatten(1).numpy()

    def value(w: np.ndarray, row: np.ndarray) -> float:
        return float(kl_div(row, w @ terms).sum())

    for code, row in zip(codes, whole, strict=True):
        best = minimize(value, np.ones(2), (row,), method="L-BFGS-B", bounds=[(1e-12, None)] * 2, tol=1e-12)
        assert value(code, row) <= best.fun + 1e-9
    lowest = min(record["objective"] for record in model.records)
    assert kl_div(whole, codes @ terms).sum() <= lowest * (1 + 1e-9)


def test_codes_of_new_items_by_the_best_factors(tmp_path: Path) -> None:
    data = LowRankTensor([7, 5, 4], rank=2, noise=0.1, batch_size=3)
    model = Factorization([2], ["fcmp1", "hals"], restarts=2)
    codes = codes_after_reload(model, data, tmp_path)
    terms = compose([factor[None] for factor in model.factors[1:]])[0].flatten(1).T.numpy()
    whole = data.load()[0].flatten(1).numpy()
    np.testing.assert_allclose(codes, np.stack([scipy_nnls(terms, row)[0] for row in whole]), atol=1e-9)
    lowest = min(record["objective"] for record in model.records)
    assert 0.5 * np.square(codes @ terms.T - whole).sum() <= lowest * (1 + 1e-9)


def test_values_that_cannot_work(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match="choose from"):
        Factorization([2], ["mu"])
    with pytest.raises(ValueError, match="ranks >= 1"):
        Factorization([])
    with pytest.raises(ValueError, match="restarts must be at least 1"):
        Factorization([1], restarts=0)
    with pytest.raises(ValueError, match="choose from"):
        Factorization([2], ["hals"], loss="kullback_leibler")
    with pytest.raises(ValueError, match="unknown loss"):
        Factorization([2], loss="itakura_saito")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no algorithm under this loss"):
        Factorization([2], steps={"nnmp": 0.1})
    for steps in ({"fcmp1": 0.1}, {"nnmp": 0.0}):
        with pytest.raises(ValueError, match="steps > 0 of"):
            Factorization([2], loss="kullback_leibler", steps=steps)
    with pytest.raises(ValueError, match="fit first"):
        Factorization([1]).predict_step({"points": torch.ones(2, 3)}, 0)
    np.save(tmp_path / "a.npy", -np.ones((3, 3)))
    with pytest.raises(SystemExit):
        data = ["--data=datamodules.array_file.ArrayFile", f"--data.init_args.file={tmp_path / 'a.npy'}"]
        main(["fit", f"--config={CONFIGS / 'nmf'}.yaml", *data, "--run.dir=runs"])
    assert "negative numbers" in capfd.readouterr().err


def test_relative_error_is_of_norms() -> None:
    """The objective is half a square: |Y - X| / |Y|."""
    target = torch.tensor([[3.0, 0], [0, 4]], dtype=torch.float64)
    assert Factorization([1]).measures(0.5 * 2.0**2, target) == {"objective": 2.0, "relative_error": 2.0 / 5.0}
    assert Factorization([1], loss="kullback_leibler").measures(2.0, target) == {"objective": 2.0}
