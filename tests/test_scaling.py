"""What docs/cluster.md says of accumulated gradients and bfloat16, method by method, is what the modules do."""

import re
from pathlib import Path

import pytest
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import DataLoader

from tests.shipped_models import ON_THE_CPU, Experiment, all_experiments, batch, build

ROOT = Path(__file__).parents[1]
ROWS = re.findall(r"^\| `(\w+)/(\w+)` \|(.*)\|$", (ROOT / "docs" / "cluster.md").read_text(), re.MULTILINE)
COLUMNS = ("accumulation", "bf16", "compile", "ddp", "fsdp")
OPTIONS = {"accumulation": {"accumulate_grad_batches": 2}, "bf16": {"precision": "bf16-mixed"}}


def experiment(method: str, name: str) -> Experiment:
    return next(one for one in all_experiments() if one.name.split()[0] == f"{method}/{name}")


def outcome(one: Experiment, column: str) -> str:
    """``yes``, or ``refused`` in one line of Lightning's or ours."""
    module: LightningModule = build(one)
    module.log = module.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]
    try:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=2,
            limit_val_batches=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **OPTIONS[column],  # type: ignore[arg-type]
        )
        trainer.fit(module, DataLoader([batch(one)] * 4, batch_size=None))
    except Exception as error:
        assert "automatic" in str(error) or "manual" in str(error), error
        return "refused"
    return "yes"


def test_every_method_has_a_row() -> None:
    assert {row[0] for row in ROWS} == {path.name for path in (ROOT / "configs").iterdir() if path.is_dir()} - {"data"}


@pytest.mark.parametrize("column", OPTIONS)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_page_says_what_happens(row: tuple[str, str, str], column: str) -> None:
    if column == "bf16" and f"modules.{row[0]}" in ON_THE_CPU:
        pytest.skip("solves in float64, whatever the precision, and more points than the batch has")
    said = dict(zip(COLUMNS, (cell.strip() for cell in row[2].split("|")), strict=True))
    assert said[column].split(",")[0].split(":")[0] == outcome(experiment(row[0], row[1]), column)
