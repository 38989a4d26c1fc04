"""The modules through the trainer and the command line, alone and in two processes."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, Trainer
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor
from torch.utils.data import DataLoader

from callbacks.checkpoint_on_signal import CheckpointOnSignal
from callbacks.predictions import Predictions
from datamodules.arrays.point_sets import Points
from datamodules.unions_of_subspaces import UnionGrid, UnionOfSubspaces
from modules.components.checkpoint_file import CheckpointError
from modules.subspace.estimator import COMMON, SubspaceClusterer
from modules.subspace.labelling import UNCONNECTED
from modules.subspace.module import SubspaceClustering, assignment_error
from modules.subspace.solvers import SOLVERS
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


class Stop(Callback):
    """At a batch raises an error, or sends its own process a signal."""

    def __init__(self, batch: int, number: int | None = None) -> None:
        self.batch, self.number = batch, number

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.batch:
            if self.number is None:
                raise RuntimeError("stopped")
            os.kill(os.getpid(), signal.Signals(self.number))


@pytest.mark.parametrize("batch", [3, 6])  # the last one of them: Lightning stops after the epoch's end
def test_a_stopped_epoch_goes_on_with_all_points(tmp_path: Path, batch: int) -> None:
    data = {**SMALL, "batch_size": 7}
    whole = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2)
    trainer(tmp_path).fit(whole, UnionOfSubspaces(**data))  # type: ignore[arg-type]
    halted = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2)
    saver = CheckpointOnSignal(str(tmp_path))
    with pytest.raises(SystemExit):
        run = trainer(tmp_path, callbacks=[Stop(batch, signal.SIGTERM), saver])
        run.fit(halted, UnionOfSubspaces(**data))  # type: ignore[arg-type]
    again = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2)
    run = trainer(tmp_path, callbacks=[Predictions("labels.csv")])
    run.fit(again, UnionOfSubspaces(**data), ckpt_path=str(tmp_path / "last.ckpt"))  # type: ignore[arg-type]
    assert len(again.fitted["points"]) == 48
    assert all(torch.equal(again.fitted[name], whole.fitted[name]) for name in whole.fitted)
    assert (again.graph != whole.graph).nnz == 0  # type: ignore[union-attr]
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 49


def test_a_fit_begins_without_what_a_failed_one_gathered(tmp_path: Path) -> None:
    model = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2)
    with pytest.raises(RuntimeError, match="stopped"):
        first = UnionOfSubspaces(**SMALL, batch_size=7, seed=5)  # type: ignore[arg-type]
        trainer(tmp_path, callbacks=[Stop(5)]).fit(model, first)
    second = UnionOfSubspaces(**SMALL, batch_size=7)  # type: ignore[arg-type]
    trainer(tmp_path).fit(model, second)
    assert torch.equal(model.fitted["points"], second.load()[0])


class Unlabelled(Points):
    """As a set of the user's own may be: points and nothing else."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"points": self.points[index]}


def test_points_alone_are_enough(tmp_path: Path) -> None:
    points, label = UnionOfSubspaces(**SMALL).load()  # type: ignore[arg-type]
    model, run = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2), trainer(tmp_path)
    loader = DataLoader(Unlabelled(points), batch_size=9)
    run.fit(model, loader)
    assert run.callback_metrics["train/num_clusters"] == 2 and "train/error" not in run.callback_metrics
    assert assignment_error(model.fitted["clusters"].numpy(), label.numpy()) == 0
    assert torch.equal(model.fitted["points"], points)
    with pytest.raises(ValueError, match="no point to test has a label"):
        run.test(model, loader, verbose=False)
    with pytest.raises(ValueError, match="the batches hold image but no points"):
        model.training_step({"image": points}, 0)


@pytest.mark.parametrize("batch_size", [1, 7, 48])
def test_one_assignment_for_the_whole_test(tmp_path: Path, batch_size: int) -> None:
    points, label = UnionOfSubspaces(**SMALL).load()  # type: ignore[arg-type]
    model = SubspaceClustering("omp", {"max_atoms": 3}, num_clusters=2)
    model.fitted = {"points": points, "clusters": label}
    told = label.clone()
    told[:6] = 1 - told[:6]  # wrong
    told[6:8] = -1  # unknown
    run = trainer(tmp_path)
    run.test(model, DataLoader(Points(points, told), batch_size=batch_size), verbose=False)
    assert run.callback_metrics["test/error"] == pytest.approx(6 / 46)
    with pytest.raises(ValueError, match="no point to test has a label"):
        run.test(model, DataLoader(Points(points), batch_size=batch_size), verbose=False)


def test_an_unconnected_point_is_a_wrong_one() -> None:
    clusters, label = np.array([1, 1, 0, UNCONNECTED, 0, 0]), np.array([4, 4, 2, 2, 2, -1])
    assert assignment_error(clusters, label) == pytest.approx(1 / 5)
    assert assignment_error(np.full(6, UNCONNECTED), label) == 1


def orthogonal_points() -> tuple[Tensor, Tensor]:
    """Unit vectors of two 3-dimensional subspaces, and directions orthogonal to both up to round-off."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.standard_normal((30, 30)))[0]
    points = [random.standard_normal((20, 3)) @ basis[3 * k : 3 * k + 3] for k in range(2)]
    return torch.from_numpy(np.concatenate(points)), torch.from_numpy(basis[6:])


@pytest.mark.parametrize(
    ("algorithm", "options", "scale"),
    [
        ("omp", {"max_atoms": 3}, 1.0),
        ("omp", {"max_atoms": 3}, 1e-9),
        ("mp", {"max_steps": 5}, 1e6),
        ("tsc", {}, 1.0),
        ("nsn", {"num_neighbors": 3}, 1e-9),
        ("lasso", {}, 1.0),
    ],
)
def test_round_off_connects_no_point(algorithm: str, options: dict[str, Any], scale: float) -> None:
    points, others = orthogonal_points()
    model = SubspaceClustering(algorithm, options)
    model.fitted = {"points": points, "clusters": torch.arange(40) // 20}
    assert (others @ points.T).abs().max() > 0
    queries = torch.cat((scale * others, torch.zeros(1, 30), scale * points))
    found = model.predict_step({"points": queries}, 0)
    assert (found[: len(others) + 1] == UNCONNECTED).all()
    assert torch.equal(found[len(others) + 1 :], model.fitted["clusters"])


def test_a_studys_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="not one of SubspaceClustering"):
        SubspaceClustering().on_load_checkpoint({"records": []})


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
    study = ClusteringStudy(
        {"omp": {"solver": "omp", "max_atoms": [2, 3]}, "fast": {"solver": "mp", "max_steps": 3}}, restarts=3
    )
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
    labels = SubspaceClusterer(2, algorithm="omp", max_atoms=3).fit_predict(points.numpy())
    assert len(set(zip(labels, label.tolist(), strict=True))) == 2
    with pytest.raises(ValueError, match="NaN"):
        SubspaceClusterer().fit(np.full((5, 3), np.nan))


def test_estimator_takes_any_matrix_and_labels_new_points() -> None:
    points = orthogonal_points()[0].numpy()
    model = SubspaceClusterer(2, algorithm="omp", max_atoms=3).fit(points)
    kinds: list[Any] = [points.astype(kind) for kind in (np.float16, np.longdouble, object, ">f8", np.float32)]
    for same in (*kinds, points[::-1][::-1], np.asfortranarray(points), points.tolist(), torch.from_numpy(points)):
        again = clone(model).fit(same)
        assert np.array_equal(again.labels_, model.labels_)
        assert again.points_.dtype == (np.float32 if getattr(same, "dtype", None) == np.float32 else np.float64)
    assert model.n_features_in_ == 30
    assert np.array_equal(model.predict(3 * points[::-1]), model.labels_[::-1])


def test_estimator_refuses() -> None:
    points = orthogonal_points()[0].numpy()
    model = SubspaceClusterer(2, algorithm="omp", max_atoms=3)
    with pytest.raises(NotFittedError):
        model.predict(points)
    with pytest.raises(ValueError, match="expecting 30 features"):
        model.fit(points).predict(points[:, :5])
    with pytest.raises(TypeError, match="dense data is required"):
        model.fit(csr_array(points))
    with pytest.raises(ValueError, match="Complex data"):
        model.fit(points + 1j)
    with pytest.raises(ValueError, match=r"whole number or None, not 2\.0"):
        model.set_params(n_clusters=2.0).fit(points)


def test_estimator_is_one_of_scikit_learns() -> None:
    model = SubspaceClusterer(2, algorithm="tsc", num_neighbors=2)
    check_estimator(model, expected_failed_checks={"check_clustering": "its clusters are blobs, not subspaces"})


def test_estimator_has_an_option_for_every_option_of_every_algorithm() -> None:
    inputs = {"points", "queries", "rows", "return"}
    options = {name for solve in SOLVERS.values() for name in solve.__annotations__} - inputs
    assert set(SubspaceClusterer().get_params()) == options | set(COMMON)
    points = orthogonal_points()[0].numpy()
    with pytest.raises(ValueError, match="tsc has no option max_atoms"):
        SubspaceClusterer(2, algorithm="tsc", max_atoms=3).fit(points)
    found = SubspaceClusterer(algorithm="mp", max_steps=2, max_clusters=5).fit(points)
    assert 1 <= found.n_clusters_ <= 5
    graph = abs(found.coefficients_)
    np.testing.assert_allclose(found.affinity_matrix_.toarray(), (graph + graph.T).toarray())


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
    assert len(Path("runs/000/labels.csv").read_text().splitlines()) == 241
    assert Path("runs/000/clusters.png").is_file()
    small = ["--data.init_args.batch_size=100", "--run.dir=runs", "--ckpt_path=last"]
    main(["predict", f"--config={CONFIGS / 'union.yaml'}", *small])
    assert Path("runs/000/labels.predict.csv").read_text() == Path("runs/000/labels.csv").read_text()


def test_high_dimensions_in_single_precision_are_no_round_off() -> None:
    points = torch.randn(12, 100_000, generator=torch.Generator().manual_seed(0))
    fitted = SubspaceClusterer(2, algorithm="omp", max_atoms=2).fit(points.numpy())
    far = points[:4] + 20 * torch.randn(4, 100_000, generator=torch.Generator().manual_seed(1))  # cosine .05
    assert (fitted.predict(far.numpy()) >= 0).all()
