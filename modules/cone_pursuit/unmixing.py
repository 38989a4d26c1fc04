"""Hyperspectral unmixing (section 5.6): endmembers from the image, abundances of every pixel by cone pursuit.

Letters: N pixels, d bands, r endmembers.
"""

from typing import Any, cast

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from modules.components.checkpoint_file import entry
from modules.components.gathering import Batch, all_items, of_all_ranks
from modules.components.gathering_module import Gathering, Study
from modules.components.options import at_least
from modules.cone_pursuit.coding import EXACT, by_key
from modules.cone_pursuit.endmembers import EXTRACTIONS, extract
from modules.cone_pursuit.nnls import nnls
from modules.cone_pursuit.objectives import LeastSquares
from modules.cone_pursuit.oracles import Dictionary
from modules.cone_pursuit.solvers import ALGORITHMS, pursue

HALS = "hals"


def hals_sweep(codes: Tensor, endmembers: Tensor, right: Tensor) -> Tensor:
    """Codes [N, r] after a sweep of exact coordinate descent over the endmembers [d, r]; right = pixels endmembers."""
    gram, codes = endmembers.T @ endmembers, codes.clone()
    for k in torch.nonzero(gram.diagonal()).flatten().tolist():
        codes[:, k] = (codes[:, k] + (right[:, k] - codes @ gram[:, k]) / gram[k, k]).clamp_min(0)
    return codes


def abundance_error(codes: Tensor, truth: Tensor) -> float:
    """Root mean square difference of abundances [N, r] that sum to 1, under the best matching of the endmembers."""
    shares = codes / codes.sum(1, keepdim=True).clamp_min(torch.finfo(codes.dtype).tiny)
    squares = (shares[:, :, None] - truth[:, None]).square().mean(0)
    rows, columns = linear_sum_assignment(squares.cpu().numpy())
    return float(squares[rows, columns].mean().sqrt())


class Unmixing(Gathering, Study):
    """Endmembers from the gathered pixels, then each solver's abundances of all pixels, without the sum-to-one rule.

    Records for study_table.py, by ``endmembers`` (how they were found), ``algorithm`` and
    ``with_iteration``: ``error`` = 100 |Y - X|_F / |Y|_F and, where the batches hold ``abundances``,
    ``abundance_rmse`` after the last iteration. Every rank codes its share of the pixels. ``predict`` gives the exact
    abundances [B, r] over the endmembers of the first extraction.

    Args:
        num_endmembers: r.
        extractions: spa, vca, xray, h2nmf, snpa; all of them if not given.
        algorithms: nnmp, amp, pwmp, fcmp0, fcmp1, hals (from zero, one iteration is a sweep), nnls (exact).
        max_iterations: of each solver; the paper gives all of them 10.
    """

    def __init__(
        self,
        num_endmembers: int = 6,
        extractions: list[str] | None = None,
        algorithms: list[str] | None = None,
        max_iterations: int = 10,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.extractions = list(EXTRACTIONS) if extractions is None else extractions
        self.algorithms = ["nnmp", "amp", "pwmp", "fcmp1", HALS, EXACT] if algorithms is None else algorithms
        if unknown := set(self.algorithms) - {*ALGORITHMS, HALS, EXACT}:
            raise ValueError(f"unknown {unknown}: choose from {', '.join((*ALGORITHMS, HALS, EXACT))}")
        at_least(1, num_endmembers=num_endmembers, max_iterations=max_iterations)
        self.num_endmembers, self.max_iterations = num_endmembers, max_iterations
        self.endmembers: Tensor | None = None  # [d, r]
        self.fitted: Batch = {}  # index int64 [N] and the exact abundances [N, r] of the pixels of the last fit

    def on_train_epoch_end(self) -> None:
        items = all_items(self.gathered)
        self.gathered, self.records = [], []
        pixels, truth = items["points"], items.get("abundances")
        for name in reversed(self.extractions):  # the first one stays
            self.endmembers = pixels[extract(pixels, self.num_endmembers, name)].T.contiguous()
            for algorithm in self.algorithms:
                self.measure(name, algorithm, pixels, truth)
        index = items.get("index", torch.arange(len(pixels)))
        self.fitted = {"index": index, "abundances": nnls(cast(Tensor, self.endmembers), pixels).coefficients}
        for record in self.records:
            if record["with_iteration"] == self.max_iterations:
                self.log(f"train/error_{record['endmembers']}_{record['algorithm']}", record["error"])

    def measure(self, extraction: str, algorithm: str, pixels: Tensor, truth: Tensor | None) -> None:
        share = slice(self.global_rank, None, self.trainer.world_size)
        endmembers = cast(Tensor, self.endmembers).to(self.device)
        about = {"draw": 0, "endmembers": extraction, "algorithm": algorithm}
        codes, curve = self.solve(algorithm, endmembers, pixels[share].to(self.device))
        curve += [curve[-1]] * (self.max_iterations + 1 - len(curve))  # it has converged and stopped
        squares = torch.stack(curve)
        squares = self.trainer.strategy.reduce(squares, reduce_op="sum")
        errors = 100 * (squares / pixels.square().sum().to(squares)).sqrt()
        for t, error in enumerate(errors.tolist()):
            self.records.append(about | {"with_iteration": t, "error": error})
        if truth is not None and truth.shape[1] == self.num_endmembers:
            both = of_all_ranks((codes.cpu(), truth[share]))
            self.records[-1]["abundance_rmse"] = abundance_error(*(torch.cat(part) for part in zip(*both, strict=True)))

    def solve(self, algorithm: str, endmembers: Tensor, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Codes [N, r], and |Y - X|_F^2 before the first and after each iteration; of nnls all are the last one."""

        def square(codes: Tensor) -> Tensor:
            return (codes @ endmembers.T - pixels).square().sum()

        if algorithm == EXACT:
            codes = nnls(endmembers, pixels).coefficients
            return codes, [square(codes)]
        if algorithm == HALS:
            codes, right = pixels.new_zeros(len(pixels), self.num_endmembers), pixels @ endmembers
            curve = [square(codes)]
            for _ in range(self.max_iterations):
                codes = hals_sweep(codes, endmembers, right)
                curve.append(square(codes))
            return codes, curve
        result = pursue(LeastSquares(pixels), Dictionary(endmembers), pixels, algorithm, self.max_iterations)
        return by_key(result, self.num_endmembers), [2 * value.sum() for value in result.values]

    def predict_step(self, batch: Batch, batch_index: int) -> Tensor:
        if self.endmembers is None:
            raise ValueError("no endmembers to code by: fit first, or give --ckpt_path of a fitted model")
        return nnls(self.endmembers.to(batch["points"]), batch["points"]).coefficients

    def fitted_outputs(self) -> tuple[Tensor, Tensor] | None:
        """Index int64 [N] and abundances [N, r] of the pixels of the last fit, for callbacks/predictions.py."""
        return (self.fitted["index"], self.fitted["abundances"]) if self.fitted else None

    def fitted_arrays(self) -> dict[str, Tensor] | None:
        """``endmembers`` [d, r] of the first extraction, one in each column, for callbacks/fitted_arrays.py."""
        return None if self.endmembers is None else {"endmembers": self.endmembers}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint |= {"endmembers": self.endmembers, "fitted": self.fitted}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.endmembers, self.fitted = entry(checkpoint, "endmembers", self), checkpoint.get("fitted", {})
