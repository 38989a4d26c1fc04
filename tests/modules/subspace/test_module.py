"""The modules through the trainer and the command line, alone and in two processes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer

from datamodules.unions_of_subspaces import UnionGrid, UnionOfSubspaces
from modules.subspace.estimator import SubspaceClusterer
from modules.subspace.module import SubspaceClustering
from modules.subspace.study import ClusteringStudy, StoppingStudy
from train import main

CONFIGS = Path(__file__).parents[3] / "configs" / "subspace"
SMALL = {"ambient": 30, "dims": [3, 3], "shared": 0, "density": 8.0, "noise": 0.05}


def trainer(path: Path, **options: object) -> Trainer:
    quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=str(path), max_epochs=1, **quiet, **options)  # type: ignore[arg-type]


def test_fit_then_predict_from_the_checkpoint(tmp_path: Path) -> None:
    data = UnionOfSubspaces(**SMALL, batch_size=7)  # type: ignore[arg-type]
    model = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2)
    run = trainer(tmp_path)
    run.fit(model, data)
    assert run.callback_metrics["train/error"] == 0
    assert run.callback_metrics["train/num_clusters"] == 2
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = SubspaceClustering.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    clusters = torch.cat(trainer(tmp_path).predict(again, data))
    assert len(clusters.unique()) == 2
    assert torch.equal(clusters, model.fitted["clusters"])


def test_predict_before_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fit first"):
        trainer(tmp_path).predict(SubspaceClustering(), UnionOfSubspaces(**SMALL))  # type: ignore[arg-type]


class Remember(SubspaceClustering):
    """Leaves what it found in a file, since a forked process cannot hand it back."""

    def __init__(self, file: str) -> None:
        super().__init__("mp", {"max_steps": 4}, 2)
        self.file = file

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        np.savez(f"{self.file}.{self.global_rank}", **{k: v.numpy() for k, v in self.fitted.items()})


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    data = {**SMALL, "density": 8.34, "batch_size": 7}  # an odd number of points in all
    trainer(tmp_path).fit(Remember(str(tmp_path / "one")), UnionOfSubspaces(**data))  # type: ignore[arg-type]
    two = trainer(tmp_path, devices=2, strategy="ddp_fork")
    two.fit(Remember(str(tmp_path / "two")), UnionOfSubspaces(**data))  # type: ignore[arg-type]
    one = np.load(tmp_path / "one.0.npz")
    for rank in range(2):
        other = np.load(tmp_path / f"two.{rank}.npz")
        assert all(np.array_equal(one[name], other[name]) for name in ("points", "clusters"))


def test_a_study_expands_lists_and_keeps_its_records(tmp_path: Path) -> None:
    grid = UnionGrid(30, [3, 3], [0], [6.0], [0.0, 0.1], repeats=2)
    study = ClusteringStudy({"omp": {"max_atoms": [2, 3]}, "fast": {"solver": "mp", "max_steps": 3}}, restarts=3)
    run = trainer(tmp_path)
    run.fit(study, grid)
    assert len(study.records) == 4 * 3
    assert {record.get("with_max_atoms") for record in study.records} == {2, 3, None}
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = ClusteringStudy.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    assert again.records == study.records


def test_stopping_by_the_residual_counts_as_the_solver_does() -> None:
    from datamodules.unions_of_subspaces import Setting, draw_union
    from modules.subspace import metrics, solvers

    points, label = draw_union(Setting(40, (4, 6), 1, 4.0, 0.2, False, False), [1])
    bounds = [0.5, 0.2]
    for record in StoppingStudy({"omp": bounds, "mp": bounds}).examine(points, label.numpy()):
        codes = solvers.SOLVERS[record["algorithm"]](points, tolerance=record["with_tolerance"])
        true, false = metrics.true_false_positives(codes, label.numpy())
        own = label.numpy() == record["with_cluster"]
        assert record["true_positives"] == pytest.approx(true[own].mean())
        assert record["false_positives"] == pytest.approx(false[own].mean())


def test_estimator() -> None:
    data = UnionOfSubspaces(**SMALL)  # type: ignore[arg-type]
    points, label = data.load()
    labels = SubspaceClusterer("omp", {"max_atoms": 3}, 2).fit_predict(points.numpy())
    assert len(set(zip(labels, label.tolist(), strict=True))) == 2
    with pytest.raises(ValueError, match="NaN"):
        SubspaceClusterer().fit(np.full((5, 3), np.nan))


FEW = {
    "phase_density": ["--data.init_args.shared=[8]", "--data.init_args.density=[0.9,1.5]"],
    "phase_noise": ["--data.init_args.shared=[8,9]", "--data.init_args.noise=[0.5]"],
    "phase_noise_density": ["--data.init_args.density=[0.9]", "--data.init_args.noise=[0.5,1.0]"],
    "sensitivity": [],
    "stopping": ["--data.init_args.dims=[5,6]", "--data.init_args.noise=[0.2]", "--data.init_args.ambient=40"],
}


@pytest.mark.parametrize("name", FEW)
def test_shipped_studies(name: str) -> None:
    main(["fit", f"--config={CONFIGS / name}.yaml", "--data.init_args.repeats=1", "--run.dir=runs", *FEW[name]])
    assert "train/" in json.dumps(json.loads(Path("runs/000/result.json").read_text()))
    assert len(Path("runs/000/table.csv").read_text().splitlines()) > 1
    assert name.startswith("phase") == Path("runs/000/phases.png").is_file()
    assert (name == "sensitivity") == Path("runs/000/curves.png").is_file()
    assert (name == "stopping") == Path("runs/000/stopping.png").is_file()


def test_shipped_clustering() -> None:
    main(["fit", f"--config={CONFIGS / 'union.yaml'}", "--run.dir=runs"])
    metrics = json.loads(Path("runs/000/result.json").read_text())["fit"]["metrics"]
    assert metrics["train/error"] < 0.05
