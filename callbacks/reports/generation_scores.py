"""How good the generations of a chain and their ensembles are: logged, as a table and in generations.json."""

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from rich.console import Console
from rich.table import Table
from torch import Tensor

from modules.components.files.whole_files import write_whole
from modules.components.frozen import Frozen

Groups = Mapping[str, Sequence[int]]


def papers_ensembles(last: int) -> Groups:
    """Ens*m of a chain that ends with generation ``last``: the first m generations that had a teacher."""
    return {f"ens{m}": range(1, m + 1) for m in range(2, last + 1)}


def complete(ensembles: Groups, generations: Sequence[int]) -> Groups:
    """Those of which every member is there; of the others a warning."""
    for name, members in ensembles.items():
        if missing := set(members) - set(generations):
            files = ", ".join(f"generation_{g}.ckpt" for g in sorted(missing))
            rank_zero_warn(f"{name} is left out: there is no {files}")
    return {name: members for name, members in ensembles.items() if set(members) <= set(generations)}


def evaluate_generations(
    trainer: Trainer, pl_module: LightningModule, split: str, networks: Mapping[int, Frozen], ensembles: Groups
) -> dict[str, float]:
    """Each network alone, as ``gen<g>``, and the ensembles on the validation or test set, by ``pl_module.evaluate``.

    Args:
        split: ``val`` or ``test``; scores are logged as ``<group>/<split>/<metric>``.

    Returns:
        ``<group>/<metric>``: score. Empty for a module without ``evaluate``.
    """
    evaluate: Any = getattr(pl_module, "evaluate", None)
    if evaluate is None or not networks:
        return {}
    loader: Any = trainer.val_dataloaders if split == "val" else trainer.test_dataloaders
    limit = (trainer.num_val_batches if split == "val" else trainer.num_test_batches)[0]
    count = None if math.isinf(limit) else int(limit)
    batches = (trainer.strategy.batch_to_device(b, dataloader_idx=0) for b in itertools.islice(loader, count))
    with trainer.precision_plugin.val_step_context():
        scores: dict[str, Tensor] = evaluate(networks, {f"gen{g}": [g] for g in networks} | dict(ensembles), batches)
    logged = {name.replace("/", f"/{split}/", 1): value for name, value in scores.items()}
    # All ranks have the same numbers; their maximum, unlike their mean, is that to the bit.
    pl_module.log_dict(logged, reduce_fx="max", sync_dist=True)
    return {name: float(value) for name, value in scores.items()}


def print_scores(split: str, scores: Mapping[str, float]) -> None:
    """One line a group, one column a metric."""
    groups, metrics = (list(dict.fromkeys(name.split("/", 1)[part] for name in scores)) for part in (0, 1))
    table = Table("", *(f"{split}/{metric}" for metric in metrics))
    for group in groups:
        table.add_row(group, *(f"{scores[f'{group}/{metric}']:.4g}" for metric in metrics))
    Console().print(table)


def save_scores(file: Path, content: Mapping[str, Any]) -> None:
    """Put the entries of ``content`` into a JSON file, beside those that it has; the file is replaced at once."""
    before = json.loads(file.read_text()) if file.exists() else {}
    write_whole(file, f"{json.dumps(before | dict(content), indent=2)}\n".encode())
