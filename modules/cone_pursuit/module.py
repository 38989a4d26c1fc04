"""Cone pursuit as LightningModules: code a set of points, and the convergence study of the paper."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from modules.components.gathering import Batch, all_items, gather_records, own_items
from modules.components.gathering_module import Gathering, Study
from modules.components.options import at_least
from modules.cone_pursuit.coding import check_algorithm, code, read_dictionary
from modules.cone_pursuit.nnls import nnls
from modules.cone_pursuit.objectives import LeastSquares
from modules.cone_pursuit.oracles import Dictionary
from modules.cone_pursuit.solvers import ALGORITHMS, pursue


class ConeCoding(Gathering):
    """Non-negative sparse codes of points over a dictionary (least squares on its cone).

    ``fit`` gathers the points, codes them at the end of the epoch (each rank its own, none twice) and logs
    ``train/relative_error`` |x - y|_F / |y|_F, ``train/atoms`` (active atoms a point) and ``train/certificate``, the
    largest -min_z <g, z> left. The codes are kept in the checkpoint. ``predict`` returns the coefficients [B, n] of new
    points.

    Args:
        dictionary: .npy, .csv or .mat file [d, n], an atom in each column.
        algorithm: nnmp, amp, pwmp, fcmp0, fcmp1, or nnls for the exact solution.
        max_iterations: oracle calls of a pursuit.
        max_atoms: active atoms at which the pursuit of a point ends.
        variable: of a .mat file; not needed where it holds one array.

    Raises:
        FileNotFoundError, ValueError: for a missing file, one that holds no finite real matrix, and options out of
            range; later, for points of another dimension than the atoms.
    """

    def __init__(
        self,
        dictionary: str,
        algorithm: str = "fcmp1",
        max_iterations: int = 50,
        max_atoms: int | None = None,
        variable: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_algorithm(algorithm)
        if max_iterations < 1 or (max_atoms is not None and max_atoms < 1):
            raise ValueError(f"need max_iterations >= 1 and max_atoms >= 1, not {max_iterations}, {max_atoms}")
        self.dictionary = dictionary
        self.register_buffer("atoms", read_dictionary(Path(dictionary), variable), persistent=False)
        self.algorithm, self.max_iterations, self.max_atoms = algorithm, max_iterations, max_atoms
        self.fitted: Batch = {}  # codes [N, n] of the last fit and, where known, index int64 [N]

    def code(self, points: Tensor) -> Tensor:
        """Coefficients [B, n] of points [B, d], float64.

        Raises:
            ValueError: for points of another dimension.
        """
        atoms = cast(Tensor, self.atoms)
        if points.ndim != 2 or points.shape[1] != atoms.shape[0]:
            found = f"points {[*points.shape]} do not fit the atoms of {self.dictionary}"
            raise ValueError(f"{found}, a matrix {[*atoms.shape]} with an atom in each column: transpose one of them?")
        if not len(points):  # a rank whose points are all repeated
            return atoms.new_zeros(0, atoms.shape[1])
        return code(atoms, points.to(atoms), self.algorithm, self.max_iterations, self.max_atoms)

    def on_train_epoch_end(self) -> None:
        atoms = cast(Tensor, self.atoms)
        items = own_items(self.gathered, self.global_rank)
        self.gathered = []
        points = items["points"].to(atoms)
        codes = self.code(points)
        own = {name: items[name] for name in ("index",) if name in items}
        self.fitted = all_items([own | {"codes": codes.cpu()}])
        rest = codes @ atoms.T - points
        sums = torch.stack(
            (rest.square().sum(), points.square().sum(), (codes > 0).sum(), rest.new_tensor(len(points)))
        )
        error, energy, active, number = self.trainer.strategy.reduce(sums, reduce_op="sum")
        lowest = (-(rest @ atoms)).flatten().clamp_min(0)
        largest = torch.cat((lowest, lowest.new_zeros(1))).amax()
        certificate = self.trainer.strategy.reduce(largest, reduce_op="max")
        relative = (error / torch.where(energy > 0, energy, 1.0)).sqrt()  # 0 where all points are zero
        outcome = {"relative_error": relative, "atoms": active / number, "certificate": certificate}
        self.log_dict({f"train/{name}": value for name, value in outcome.items()}, prog_bar=True)

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.code(batch["points"])

    def fitted_outputs(self) -> tuple[Tensor, Tensor] | None:
        """Index int64 [N] and codes [N, n] of the points of the last fit, for callbacks/predictions.py."""
        if not self.fitted:
            return None
        codes = self.fitted["codes"]
        return self.fitted.get("index", torch.arange(len(codes))), codes

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["fitted"] = self.fitted

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.fitted = checkpoint.get("fitted", {})


class ConvergenceStudy(Study):
    """Suboptimality in |x - y|^2 (no 1/2) after each iteration, against a converged NNLS (section 7 of the sheet).

    Records for study_table.py: ``with_iteration``, ``suboptimality``, ``atoms`` (active ones) and, after the
    last iteration, ``drops`` (of all iterations).

    Args:
        algorithms: to compare: nnmp, amp, pwmp, fcmp0, fcmp1; all of them if not given.
        max_iterations: oracle calls.
    """

    def __init__(self, algorithms: list[str] | None = None, max_iterations: int = 50) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.algorithms = list(ALGORITHMS) if algorithms is None else algorithms
        if not self.algorithms or set(self.algorithms) - set(ALGORITHMS):
            raise ValueError(f"unknown or no algorithms {self.algorithms}: choose from {', '.join(ALGORITHMS)}")
        at_least(1, max_iterations=max_iterations)
        self.max_iterations = max_iterations

    def training_step(self, batch: Batch, batch_index: int) -> None:
        y, atoms = batch["points"], batch["atoms"]
        optimum = (nnls(atoms, y).coefficients @ atoms.T - y).square().sum()
        for name in self.algorithms:
            result = pursue(LeastSquares(y), Dictionary(atoms), y, name, self.max_iterations)
            curve = list(zip((2 * result.values[:, 0] - optimum).tolist(), result.counts[:, 0].tolist(), strict=True))
            curve += [curve[-1]] * (self.max_iterations + 1 - len(curve))  # it has converged and stopped
            about = {"draw": int(batch["index"]), "algorithm": name}
            self.records += [
                about | {"with_iteration": t, "suboptimality": value, "atoms": float(count)}
                for t, (value, count) in enumerate(curve)
            ]
            self.records[-1]["drops"] = float(result.drops.sum())
        self.count_step()

    def on_train_epoch_end(self) -> None:
        self.records = gather_records(self.records)
        for name in self.algorithms:
            last = [r for r in self.records if r["algorithm"] == name and r["with_iteration"] == self.max_iterations]
            self.log(f"train/suboptimality_{name}", float(np.mean([r["suboptimality"] for r in last])), sync_dist=True)
