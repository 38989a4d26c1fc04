"""The learning rate of the paper's experiment falls every five epochs, however long an epoch is on these devices."""

from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

from modules.l3c.module import L3C
from modules.l3c.nets import RGBSharedNet

CONFIG = Path(__file__).parents[3] / "configs" / "l3c" / "open_images.yaml"


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_what_the_schedule_counts(interval: str) -> None:
    given = yaml.safe_load(CONFIG.read_text())["model"]["init_args"]
    schedule = partial(torch.optim.lr_scheduler.StepLR, **given["lr_scheduler"]["init_args"])
    module = L3C(RGBSharedNet(), partial(torch.optim.RMSprop, lr=0.0001), schedule, lr_interval=interval)  # type: ignore[arg-type]
    configured = module.configure_optimizers()["lr_scheduler"]
    assert configured["interval"] == interval and given["lr_interval"] == "epoch"
    for _ in range(5):
        assert configured["scheduler"].get_last_lr() == [0.0001]
        configured["scheduler"].step()
    assert configured["scheduler"].get_last_lr() == [pytest.approx(0.000075)]
