"""The cone modules through the trainer and the command line."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from scipy.optimize import nnls as scipy_nnls

from datamodules.point_files import PointFiles
from modules.cone_pursuit.module import ConeCoding, ConvergenceStudy
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "cone_pursuit"


def test_synthetic_study() -> None:
    main(["fit", f"--config={CONFIGS / 'synthetic.yaml'}", "--data.init_args.repeats=2", "--run.dir=runs"])
    lines = Path("runs/000/table.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 * 51
    assert Path("runs/000/curves.png").stat().st_size < 200_000
    with Path("runs/000/draws.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["algorithm"] == "pwmp" and row["draw"] == "0"]
    atoms = [float(row["atoms"]) for row in rows]
    assert [int(row["with_iteration"]) for row in rows] == list(range(51))
    assert atoms[:2] == [0, 1] and atoms[-1] > 2
    assert [row["drops"] != "" for row in rows] == [False] * 50 + [True]


@pytest.mark.parametrize("algorithm", ["nnls", "fcmp1"])
def test_coding(tmp_path: Path, algorithm: str) -> None:
    random = np.random.default_rng(0)
    atoms, points = random.random((8, 5)), random.random((6, 8))
    np.save(tmp_path / "atoms.npy", atoms)
    np.save(tmp_path / "points.npy", points)
    model = ConeCoding(str(tmp_path / "atoms.npy"), algorithm)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    run = Trainer(max_epochs=1, accelerator="cpu", **quiet)  # type: ignore[arg-type]
    data = PointFiles("points.npy", root=str(tmp_path), batch_size=4)
    run.fit(model, data)
    relative_error = float(run.callback_metrics["train/relative_error"])
    codes = torch.cat(run.predict(model, data)).numpy()
    reference = np.stack([scipy_nnls(atoms, y)[0] for y in points])
    np.testing.assert_allclose(codes, reference, atol=1e-8)
    error = np.linalg.norm(reference @ atoms.T - points) / np.linalg.norm(points)
    assert relative_error == pytest.approx(error)


@pytest.mark.parametrize("algorithm", ["nnmp", "nnls"])
def test_what_is_logged_by_its_definition(tmp_path: Path, algorithm: str) -> None:
    """Before a pursuit has converged some atom still descends; behind the exact solution none does."""
    random = np.random.default_rng(1)
    atoms, points = random.random((8, 5)), random.random((6, 8))
    np.save(tmp_path / "atoms.npy", atoms)
    np.save(tmp_path / "points.npy", points)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    run = Trainer(max_epochs=1, accelerator="cpu", **quiet)  # type: ignore[arg-type]
    model = ConeCoding(str(tmp_path / "atoms.npy"), algorithm, max_iterations=2)
    run.fit(model, PointFiles("points.npy", root=str(tmp_path), batch_size=4))
    index, codes = model.fitted_outputs()  # type: ignore[misc]
    assert index.tolist() == list(range(6))
    rest = codes.numpy() @ atoms.T - points
    logged = {name.removeprefix("train/"): float(value) for name, value in run.callback_metrics.items()}
    assert logged["relative_error"] == pytest.approx(np.linalg.norm(rest) / np.linalg.norm(points))
    assert logged["atoms"] == pytest.approx(np.mean((codes.numpy() > 0).sum(1)))
    assert logged["certificate"] == pytest.approx(max(0.0, -(rest @ atoms).min()), abs=1e-14)
    assert (logged["certificate"] > 1e-3) == (algorithm == "nnmp")


def test_missing_dictionary() -> None:
    with pytest.raises(FileNotFoundError, match="an atom in each column"):
        ConeCoding("absent.npy")


def test_dictionaries_that_cannot_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "good.npy", np.ones((3, 2)))
    np.savez(tmp_path / "a.npz", np.ones((3, 2)))
    (tmp_path / "text.npy").write_text("1 2 3")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good.npy").read_bytes()[:-8])
    np.save(tmp_path / "object.npy", np.array([[{}]]), allow_pickle=True)
    np.save(tmp_path / "complex.npy", np.ones((3, 2)) * 1j)
    np.save(tmp_path / "vector.npy", np.ones(3))
    np.save(tmp_path / "nan.npy", np.full((3, 2), np.nan))
    for name in ("a.npz", "text.npy", "cut.npy", "object.npy", "complex.npy", "vector.npy", "nan.npy"):
        with pytest.raises(ValueError, match=name):
            ConeCoding(str(tmp_path / name))


@pytest.mark.parametrize("algorithm", ["nnls", "pwmp"])
def test_points_of_another_dimension_or_precision(tmp_path: Path, algorithm: str) -> None:
    np.save(tmp_path / "atoms.npy", np.eye(3, dtype=np.int64))
    model = ConeCoding(str(tmp_path / "atoms.npy"), algorithm)
    whole = torch.tensor([[1, 2, 0], [0, 3, 1]])
    for points in (whole, whole.float(), whole.double()):
        torch.testing.assert_close(model.code(points), whole.double())
    for points in (whole[:, :2].double(), whole[0].double(), whole[:0, :2].double()):
        with pytest.raises(ValueError, match=r"atoms\.npy"):
            model.code(points)


def test_points_of_nothing_but_zeros(tmp_path: Path) -> None:
    np.save(tmp_path / "atoms.npy", np.eye(3))
    np.save(tmp_path / "points.npy", np.zeros((4, 3)))
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    run = Trainer(max_epochs=1, accelerator="cpu", **quiet)  # type: ignore[arg-type]
    run.fit(ConeCoding(str(tmp_path / "atoms.npy")), PointFiles("points.npy", root=str(tmp_path)))
    assert float(run.callback_metrics["train/relative_error"]) == 0


def test_options_that_cannot_work(tmp_path: Path) -> None:
    np.save(tmp_path / "atoms.npy", np.eye(3))
    with pytest.raises(ValueError, match="max_atoms >= 1"):
        ConeCoding(str(tmp_path / "atoms.npy"), max_atoms=0)
    for names in (["omp"], []):
        with pytest.raises(ValueError, match="choose from nnmp"):
            ConvergenceStudy(names)
    with pytest.raises(ValueError, match="at least 1"):
        ConvergenceStudy(max_iterations=0)
