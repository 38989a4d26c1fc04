"""Every command on every config of the methods without gradients leaves a product, or one line that says why not."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import nnls as scipy_nnls

from train import main

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ["--data=datamodules.low_rank_tensors.LowRankTensor", "--data.init_args.shape=[9,7]"]
TINY += ["--model.init_args.ranks=[1,2]", "--model.init_args.restarts=2", "--model.init_args.correction=5"]
PIXELS = ["--data.init_args.num_endmembers=3", "--data.init_args.bands=12", "--data.init_args.num_pixels=30"]
PIXELS += ["--model.init_args.num_endmembers=3", "--model.init_args.extractions=[spa,vca]"]
STUDIES = [
    path.relative_to(CONFIGS).with_suffix("").as_posix()
    for method in ("cone_pursuit", "subspace")
    for path in sorted((CONFIGS / method).glob("*.yaml"))
    if "Study\n" in path.read_text()
]


def run(command: str, config: str, *options: str) -> None:
    main([command, f"--config={CONFIGS / config}.yaml", "--run.dir=runs", "--trainer.accelerator=cpu", *options])


def load(name: str) -> np.ndarray:
    return np.load(f"runs/000/{name}", allow_pickle=False)


def test_codes_of_a_dictionary(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    atoms, points = random.random((6, 4)), random.random((5, 6))
    np.savetxt(tmp_path / "atoms.csv", atoms, delimiter=",")
    np.save(tmp_path / "points.npy", points)
    own = [f"--model.init_args.dictionary={tmp_path / 'atoms.csv'}", "--data.init_args.batch_size=2"]
    own += ["--model.init_args.algorithm=nnls", f"--data.init_args.points={tmp_path / 'points.npy'}"]
    run("fit", "cone_pursuit/coding", *own)
    np.testing.assert_allclose(load("codes.npy"), [scipy_nnls(atoms, y)[0] for y in points], atol=1e-12)
    run("predict", "cone_pursuit/coding", "--ckpt_path=last", *own)
    np.testing.assert_allclose(load("codes.predict.npy"), load("codes.npy"), atol=1e-12)


@pytest.mark.parametrize("config", ["nmf", "nmf_kl", "tensor"])
def test_factors(config: str) -> None:
    run("fit", f"cone_pursuit/{config}", *TINY)
    factors = load("factors.npz")
    assert [factors[f"mode_{m}"].shape for m in range(2)] == [(9, 2), (7, 2)]
    assert min(factors[f"mode_{m}"].min() for m in range(2)) >= 0
    run("predict", f"cone_pursuit/{config}", "--ckpt_path=last", *TINY)
    codes = load("codes.predict.npy")
    assert codes.shape == (9, 2)  # of the terms that the other modes make, as mode_0 is
    np.testing.assert_allclose(codes, factors["mode_0"], atol=0.2 * codes.max())


def test_endmembers_and_abundances() -> None:
    run("fit", "cone_pursuit/unmixing", *PIXELS)
    endmembers, abundances = load("endmembers.npy"), load("abundances.npy")
    assert endmembers.shape == (12, 3) and abundances.shape == (30, 3)
    run("predict", "cone_pursuit/unmixing", "--ckpt_path=last", *PIXELS)
    np.testing.assert_allclose(load("abundances.predict.npy"), abundances, atol=1e-12)


@pytest.mark.parametrize("config", STUDIES)
def test_a_study_says_what_to_do_instead_of_predict(
    config: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("datamodules.labelled_images.ImageSubsets.setup", lambda *_, **__: None)  # without its files
    with pytest.raises(SystemExit) as stop:
        run("predict", config)
    assert stop.value.code == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if "nothing to predict" in line]
    assert "Study measures and has nothing to predict: `train.py fit` leaves draws.csv and table.csv" in line


def test_a_trial_leaves_nothing() -> None:
    run("fit", "cone_pursuit/synthetic", "--data.init_args.repeats=2", "--trainer.fast_dev_run=true")
    run("fit", "cone_pursuit/unmixing", *PIXELS, "--trainer.fast_dev_run=true")
    assert not [path.name for path in Path("runs").rglob("*") if path.suffix in (".csv", ".png", ".npy", ".npz")]
