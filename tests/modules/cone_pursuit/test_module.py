"""The cone modules through the trainer and the command line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from scipy.optimize import nnls as scipy_nnls

from datamodules.point_sets import PointFiles
from modules.cone_pursuit.module import ConeCoding
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "cone_pursuit"


def test_synthetic_study() -> None:
    main(["fit", f"--config={CONFIGS / 'synthetic.yaml'}", "--data.init_args.repeats=2", "--run.dir=runs"])
    lines = Path("runs/000/table.csv").read_text().splitlines()
    assert len(lines) == 1 + 5 * 51
    assert Path("runs/000/curves.png").stat().st_size < 200_000


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


def test_missing_dictionary() -> None:
    with pytest.raises(FileNotFoundError, match="an atom in each column"):
        ConeCoding("absent.npy")
