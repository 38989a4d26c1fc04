"""Without a terminal the bar is a few lines with the number that matters first."""

import pytest
from pytorch_lightning import Trainer

from callbacks.progress import Progress
from tests.toys import Network, Points, Toy


def test_a_log_file_gets_one_line_a_validation(capsys: pytest.CaptureFixture) -> None:
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, callbacks=[Progress("val/loss")],
        enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Toy(Network()), Points())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert len(lines) == 2
    assert lines[1].startswith("epoch 1 step 8 val/loss ")
