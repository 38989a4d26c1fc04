"""Learning to multiply matrices, as a LightningModule: many starts at once, exactness in integers."""

from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor

from modules.strassen.additions import count_additions
from modules.strassen.algorithm_file import to_json, to_table
from modules.strassen.bilinear import Algorithm, multiplies_blocks
from modules.strassen.starts import BilinearStarts
from modules.strassen.symmetry import canonical, count_different

Batch = dict[str, Tensor]


class MatmulSearch(LightningModule):
    """Train all starts of ``network`` on pairs of matrices; validation counts the exact ones.

    ``exact_share`` is the share of starts whose weights, rounded to -1, 0, 1, satisfy Brent's equations, ``exact``
    their number, ``different`` how many of them differ by more than the order and signs of their products. Each of the
    different ones also multiplies random integer matrices of blocks.

    Two ways of training are two optimizers: ``LevenbergMarquardt``, which takes the equations themselves and uses the
    pairs for the logged loss alone, and SGD in two phases (``callbacks.training_phases``), the paper's.

    Args:
        network: the starts.
        optimizer: called with the three weights.
    """

    instead_of_predict = (
        "`fit` leaves the algorithms, `python -m modules.strassen.verify <algorithms.json>` proves them"
    )

    def __init__(self, network: BilinearStarts, optimizer: OptimizerCallable = torch.optim.SGD) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network, self.optimizer = network, optimizer

    def on_fit_start(self) -> None:
        if self.trainer.world_size > 1:
            raise ValueError("a search trains all its starts on one device: set trainer.devices and num_nodes to 1")

    def losses(self, batch: Batch) -> Tensor:
        """Half the squared error of each start [S], mean over pairs and entries of the product.

        Raises:
            ValueError: for matrices of other sides than the network's.
        """
        left, right = batch["left"], batch["right"]
        found = (*left.shape[1:], right.shape[2])
        if found != self.network.sides:
            raise ValueError(f"the data have n, m, p = {found}, the network has {self.network.sides}: set both")
        expected = (left @ right).to(self.network.first)
        return 0.5 * (self.network(left, right) - expected).square().flatten(1).mean(1)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        losses = self.losses(batch)
        self.log("train/loss", losses.detach().mean(), prog_bar=True, batch_size=len(batch["left"]))
        return losses.sum()  # of independent starts, so that each has its own gradient

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        losses = self.losses(batch)
        self.log("val/median_loss", losses.median(), batch_size=len(batch["left"]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        algorithms, exact = self.different(), self.network.exact()
        self.log("exact_share", exact.double().mean(), prog_bar=True)
        self.log("exact", exact.double().sum())
        self.log("different", float(len(algorithms)))
        if wrong := [a for a in algorithms if not multiplies_blocks(a)]:
            raise RuntimeError(f"{len(wrong)} algorithms satisfy Brent's equations and multiply wrongly")

    def different(self) -> list[Algorithm]:
        """The exact algorithms, without those that differ in order and signs of their products only."""
        return list({canonical(algorithm): algorithm for algorithm in self.network.algorithms()}.values())

    def products(self) -> dict[str, str]:
        """What a search leaves, by file name: the algorithms as integers and as equations, and a summary."""
        found = sorted(self.different(), key=lambda algorithm: count_additions(algorithm)[::-1])
        exact = self.network.exact()
        additions = [count_additions(algorithm) for algorithm in found]
        summary = [f"{int(exact.sum())} of {len(exact)} starts are exact"]
        summary += [f"different up to {name.replace('_', ' ')}: {n}" for name, n in count_different(found).items()]
        if additions:
            summary.append(f"additions: {min(a for a, _ in additions)} as written, {additions[0][1]} with shared sums")
        tables = [f"# {number}\n{to_table(algorithm)}" for number, algorithm in enumerate(found[:100], 1)]
        return {
            "algorithms.json": to_json(found, self.network.sides),
            "algorithms.txt": "\n".join(["\n".join(summary) + "\n", *tables]),
        }

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.network.parameters())
