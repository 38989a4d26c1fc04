"""Non-negative matrix and tensor factorisation by cone pursuit over rank-one atoms (sections 5.2 and 5.5)."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from modules.components.checkpoint_file import entry
from modules.components.gathering import Batch, all_items
from modules.components.gathering_module import Gathering, Study
from modules.components.options import at_least
from modules.cone_pursuit.factors import (
    FactorCorrection,
    Update,
    best_rank_one,
    ccd,
    compose,
    decompose,
    hals,
    multiplicative,
    total,
    unit_terms,
    weigh,
)
from modules.cone_pursuit.nnls import nnls
from modules.cone_pursuit.objectives import KullbackLeibler, LeastSquares
from modules.cone_pursuit.oracles import RankOne
from modules.cone_pursuit.solvers import ALGORITHMS, pursue

Found = dict[int, tuple[list[float], list[Tensor]]]
"""By rank: objectives, of every start, and factors."""


class Loss(NamedTuple):
    objective: type[LeastSquares] | type[KullbackLeibler]
    correct: Update
    correction: int  # sweeps of it after each iteration of a pursuit
    baselines: dict[str, tuple[Update, int]]  # and their sweeps
    pursuits: list[str]  # of the algorithms, those run by default
    code: Callable[[Tensor, Tensor], Tensor]  # atoms [K, d], points [B, d] -> weights [B, K]


LOSSES = {
    "squared": Loss(
        objective=LeastSquares,
        correct=hals,
        correction=20,
        baselines={"hals": (partial(hals, floor=1e-16), 100)},
        pursuits=["nnmp", "amp", "pwmp", "fcmp1"],
        code=lambda atoms, points: nnls(atoms.T.contiguous(), points).coefficients,
    ),
    "kullback_leibler": Loss(
        objective=KullbackLeibler,
        correct=multiplicative,
        correction=240,
        baselines={"multiplicative": (multiplicative, 1200), "ccd": (ccd, 100)},
        pursuits=["nnmp", "amp", "pwmp", "fcmp0", "fcmp1"],
        code=weigh,
    ),
}


class Factorization(Gathering, Study):
    """Approximate the gathered array [N, ...] by a sum X of non-negative rank-one terms.

    A pursuit adds terms one after the other and corrects all of them after each iteration; a baseline corrects random
    factors, for every rank anew. The squared loss is 0.5 |Y - X|_F^2: pursuits begin at 0, HALS corrects. The
    Kullback-Leibler loss is sum (y log(y / x) - y + x): pursuits begin at the best array of rank one, which counts as
    their first term, since the gradient at 0 is without bound; multiplicative updates correct.

    Records for study_table.py: ``with_rank``, ``objective`` and, for the squared loss, ``relative_error``
    |Y - X|_F / |Y|_F. Logged: their means at the largest rank and the CPU seconds of all ranks and starts. The best
    factors are kept in the checkpoint, and ``predict`` codes new items of the first mode by them, exactly.

    Args:
        ranks: at which to measure; the largest one ends a pursuit.
        algorithms: nnmp, amp, pwmp, fcmp0, fcmp1; hals for the squared loss, multiplicative and ccd for the other one.
        loss: squared or kullback_leibler.
        correction: sweeps after each iteration of a pursuit, 0 for none. Not given: 20 of HALS, 240 multiplicative
            ones (authors: 20 of greedy coordinate descent for matrices, 40 of a CP solver for tensors; 240).
        baseline: sweeps of the baselines from random factors. Not given: 100 of HALS and ccd, 1200 multiplicative.
        steps: Kullback-Leibler, by algorithm: a fixed step instead of line search, such as the authors' 1e-5 of nnmp.
            Variant 0 of FCMP always has one, by default the authors' 0.1; variant 1 takes no step.
        restarts: of the baselines, each of them a draw in the records.
        oracle_sweeps, oracle_starts: of the power iterations of the oracle.
        seed: of all random starts.
    """

    def __init__(
        self,
        ranks: list[int],
        algorithms: list[str] | None = None,
        loss: Literal["squared", "kullback_leibler"] = "squared",
        correction: int | None = None,
        baseline: int | None = None,
        steps: dict[str, float] | None = None,
        restarts: int = 10,
        oracle_sweeps: int = 99,
        oracle_starts: int = 3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss}: choose from {', '.join(LOSSES)}")
        self.loss = LOSSES[loss]
        self.baselines = {
            k: (update, sweeps if baseline is None else baseline) for k, (update, sweeps) in self.loss.baselines.items()
        }
        self.algorithms = [*self.loss.pursuits, *self.baselines] if algorithms is None else algorithms
        choice = (*ALGORITHMS, *self.baselines)
        if set(self.algorithms) - set(choice) or not ranks or min(ranks) < 1:
            raise ValueError(f"choose from {choice} and ranks >= 1, not {self.algorithms}, {ranks}")
        self.correction = self.loss.correction if correction is None else correction
        at_least(0, correction=correction, oracle_sweeps=oracle_sweeps)
        at_least(1, baseline=baseline, restarts=restarts, oracle_starts=oracle_starts)
        self.steps = {} if self.loss.objective is LeastSquares else {"fcmp0": 0.1}
        takers = {"nnmp", "amp", "pwmp", "fcmp0"} if self.steps else set()
        if set(steps or {}) - takers or min((steps or {}).values(), default=1.0) <= 0:
            raise ValueError(f"steps > 0 of {sorted(takers) or 'no algorithm under this loss'}, not {steps}")
        self.steps |= steps or {}
        self.ranks, self.restarts, self.seed = sorted(ranks), restarts, seed
        self.oracle = {"sweeps": oracle_sweeps, "starts": oracle_starts}
        self.factors: list[Tensor] = []  # [n_m, K] of the lowest objective

    def on_train_epoch_end(self) -> None:
        """Every rank solves the same; the seeds make them agree."""
        target = all_items(self.gathered)["points"].to(self.device)
        self.gathered, self.records = [], []
        check(target)
        lowest, objective = float("inf"), self.loss.objective(target.reshape(1, -1))
        for name in self.algorithms:
            begin = time.process_time()
            found = self.random_starts(target, name) if name in self.baselines else self.pursuit(target, name)
            self.log(f"train/seconds_{name}", time.process_time() - begin)
            for rank, (objectives, factors) in found.items():
                about = {"algorithm": name, "with_rank": rank}
                self.records += [{"draw": i} | about | self.measures(v, target) for i, v in enumerate(objectives)]
                value = float(objective.value(total([factor[None] for factor in factors]).flatten(1)))
                if value < lowest:  # of the factors: a fixed step may have left the lowest objective behind
                    lowest, self.factors = value, factors
            last = found[self.ranks[-1]][0]
            self.log(f"train/objective_{name}", sum(last) / len(last))
        for measure, value in self.measures(lowest, target).items():
            self.log(f"train/{measure}", value, prog_bar=True)

    def measures(self, objective: float, target: Tensor) -> dict[str, float]:
        if self.loss.objective is not LeastSquares:
            return {"objective": objective}
        return {"objective": objective, "relative_error": (2 * objective) ** 0.5 / float(target.norm())}

    def pursuit(self, target: Tensor, name: str) -> Found:
        """The lowest objective with at most so many terms; the factors are the last ones."""
        shape, flat = tuple(target.shape), target.reshape(1, -1)
        objective = self.loss.objective(flat)
        if name in self.steps:
            objective.smoothness = 1 / self.steps[name]
        correct = FactorCorrection(self.loss.correct, target[None], self.correction) if self.correction else None
        start = None if self.loss.objective is LeastSquares else unit_terms(best_rank_one(target[None]))
        most = self.ranks[-1]
        oracle = RankOne(shape, **self.oracle, seed=self.seed)
        result = pursue(objective, oracle, flat, name, 3 * most, max_atoms=most, correct=correct, start=start)
        factors = [factor[0] for factor in decompose(result.atoms, result.coefficients, shape)]
        values, counts = result.values[:, 0], result.counts[:, 0]
        return {rank: ([float(values[counts <= rank].min())], factors) for rank in self.ranks}

    def random_starts(self, target: Tensor, name: str) -> Found:
        """A baseline from factors of U(0, 1), scaled to fit, all restarts at once; the factors are the best one's."""
        found = {}
        update, sweeps = self.baselines[name]
        objective = self.loss.objective(target.reshape(1, -1))
        for rank in self.ranks:
            random = torch.Generator().manual_seed(1000 * self.seed + rank)  # whatever the other ranks
            starts = [torch.rand(self.restarts, n, rank, generator=random).to(target) for n in target.shape]
            starts[0] *= objective.scale(total(starts).flatten(1))[:, None, None]
            factors = update(target.expand(self.restarts, *target.shape), starts, sweeps)
            objectives = objective.value(total(factors).flatten(1)).tolist()
            best = objectives.index(min(objectives))
            found[rank] = objectives, [factor[best] for factor in factors]
        return found

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Non-negative weights [B, K] of the terms of the best factors, for new items of the first mode."""
        if not self.factors:
            raise ValueError("no factors to code by: fit first, or give --ckpt_path of a fitted model")
        points = batch["points"]
        sides = [factor[None].to(points) for factor in self.factors[1:]]
        return self.loss.code(compose(sides)[0].flatten(1), points.flatten(1))

    def fitted_arrays(self) -> dict[str, Tensor] | None:
        """``mode_0`` [N, K], ``mode_1``, ...: the best factors of the last fit, for callbacks/fitted_arrays.py."""
        return {f"mode_{m}": factor for m, factor in enumerate(self.factors)} or None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["factors"] = self.factors

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.factors = entry(checkpoint, "factors", self)


def check(target: Tensor) -> None:
    """Raises: ValueError, for what has no non-negative factors."""
    if target.ndim < 2 or target.ndim > 6:
        raise ValueError(f"a factorisation needs an array of 2 to 6 modes, not {tuple(target.shape)}")
    if not bool(torch.isfinite(target).all()) or float(target.min()) < 0 or not bool(target.any()):
        raise ValueError("the array holds NaN, infinity or negative numbers, or nothing but zeros")
