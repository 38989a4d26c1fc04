"""Non-negative matrix and tensor factorisation by cone pursuit over rank-one atoms (sections 5.2 and 5.5)."""

from typing import Any

import torch
from torch import Tensor

from modules.cone_pursuit.factors import HalsCorrection, compose, decompose, hals
from modules.cone_pursuit.gathering import Batch, Study, all_items
from modules.cone_pursuit.nnls import nnls
from modules.cone_pursuit.objectives import LeastSquares
from modules.cone_pursuit.oracles import RankOne
from modules.cone_pursuit.solvers import ALGORITHMS, pursue

HALS = "hals"
Found = dict[int, tuple[list[float], list[Tensor]]]
"""By rank: objectives, of every start, and factors."""


class Factorization(Study):
    """Approximate the gathered array [N, ...] by a sum of non-negative rank-one terms, in 0.5 |Y - X|_F^2.

    A pursuit adds terms one after the other and corrects all of them after each iteration; HALS from random factors,
    for every rank anew, is the baseline. Records for callbacks/study_table.py: ``with_rank``, ``objective``,
    ``relative_error`` |Y - X|_F / |Y|_F. The best factors are kept in the checkpoint, and ``predict`` codes new items
    of the first mode by them, exactly.

    Args:
        ranks: at which to measure; the largest one ends a pursuit.
        algorithms: nnmp, amp, pwmp, fcmp0, fcmp1, hals.
        correction: sweeps of HALS after each iteration of a pursuit; 0 for none (authors: 20 of greedy coordinate
            descent for matrices, 40 of a CP solver for tensors).
        baseline: sweeps of HALS from random factors.
        restarts: of the baseline, each of them a draw in the records.
        oracle_sweeps, oracle_starts: of the power iterations of the oracle.
        seed: of all random starts.
    """

    def __init__(
        self,
        ranks: list[int],
        algorithms: list[str] | None = None,
        correction: int = 20,
        baseline: int = 100,
        restarts: int = 10,
        oracle_sweeps: int = 99,
        oracle_starts: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.algorithms = ["nnmp", "amp", "pwmp", "fcmp1", HALS] if algorithms is None else algorithms
        unknown = set(self.algorithms) - {*ALGORITHMS, HALS}
        if unknown or not ranks or min(ranks) < 1:
            raise ValueError(f"choose from {(*ALGORITHMS, HALS)} and ranks >= 1, not {self.algorithms}, {ranks}")
        if min(correction, baseline - 1, restarts - 1) < 0:
            raise ValueError(f"correction >= 0, baseline >= 1, restarts >= 1: {correction}, {baseline}, {restarts}")
        self.ranks, self.correction, self.seed = sorted(ranks), correction, seed
        self.baseline, self.restarts = baseline, restarts
        self.oracle = {"sweeps": oracle_sweeps, "starts": oracle_starts}
        self.factors: list[Tensor] = []  # [n_m, K] of the lowest objective

    def on_train_epoch_end(self) -> None:
        """Every rank solves the same; the seeds make them agree."""
        target = all_items(self.gathered)["points"].to(self.device)
        self.gathered, self.records = [], []
        check(target)
        lowest = float("inf")
        for name in self.algorithms:
            found = self.random_starts(target) if name == HALS else self.pursuit(target, name)
            for rank, (objectives, factors) in found.items():
                for draw, objective in enumerate(objectives):
                    error = (2 * objective) ** 0.5 / float(target.norm())
                    line = {"draw": draw, "algorithm": name, "with_rank": rank}
                    self.records.append(line | {"objective": objective, "relative_error": error})
                if min(objectives) < lowest:
                    lowest, self.factors = min(objectives), factors
            last = found[self.ranks[-1]][0]
            self.log(f"train/objective_{name}", sum(last) / len(last))
        self.log("train/relative_error", (2 * lowest) ** 0.5 / float(target.norm()), prog_bar=True)

    def pursuit(self, target: Tensor, name: str) -> Found:
        """The lowest objective with at most so many terms; the factors are the last ones."""
        shape, flat = tuple(target.shape), target.reshape(1, -1)
        correct = HalsCorrection(target[None], self.correction) if self.correction else None
        most = self.ranks[-1]
        oracle = RankOne(shape, **self.oracle, seed=self.seed)
        result = pursue(LeastSquares(flat), oracle, flat, name, 3 * most, max_atoms=most, correct=correct)
        factors = [factor[0] for factor in decompose(result.atoms, result.coefficients, shape)]
        values, counts = result.values[:, 0], result.counts[:, 0]
        return {rank: ([float(values[counts <= rank].min())], factors) for rank in self.ranks}

    def random_starts(self, target: Tensor) -> Found:
        """HALS from factors of U(0, 1), scaled to fit, all restarts at once; the factors are those of the best."""
        found = {}
        for rank in self.ranks:
            random = torch.Generator().manual_seed(1000 * self.seed + rank)  # whatever the other ranks
            starts = [torch.rand(self.restarts, n, rank, generator=random).to(target) for n in target.shape]
            whole = compose(starts).sum(1).flatten(1)
            starts[0] *= ((whole @ target.flatten()) / whole.square().sum(1))[:, None, None]
            factors = hals(target.expand(self.restarts, *target.shape), starts, self.baseline, floor=1e-16)
            rest = target - compose(factors).sum(1)
            objectives = (0.5 * rest.flatten(1).square().sum(1)).tolist()
            best = objectives.index(min(objectives))
            found[rank] = objectives, [factor[best] for factor in factors]
        return found

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Non-negative weights [B, K] of the terms of the best factors, for new items of the first mode."""
        if not self.factors:
            raise ValueError("no factors to code by: fit first, or give --ckpt_path of a fitted model")
        points = batch["points"]
        sides = [factor[None].to(points) for factor in self.factors[1:]]
        terms = compose(sides)[0].flatten(1)
        return nnls(terms.T.contiguous(), points.flatten(1)).coefficients

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["factors"] = self.factors

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.factors = checkpoint["factors"]


def check(target: Tensor) -> None:
    """Raises: ValueError, for what has no non-negative factors."""
    if target.ndim < 2 or target.ndim > 6:
        raise ValueError(f"a factorisation needs an array of 2 to 6 modes, not {tuple(target.shape)}")
    if not bool(torch.isfinite(target).all()) or float(target.min()) < 0 or not bool(target.any()):
        raise ValueError("the array holds NaN, infinity or negative numbers, or nothing but zeros")
