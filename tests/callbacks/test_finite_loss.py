from types import SimpleNamespace

import pytest
import torch

from callbacks.finite_loss import FiniteLoss


def end_batch(loss: float, step: int = 20, every: int = 10) -> None:
    trainer = SimpleNamespace(global_step=step, log_every_n_steps=every)
    FiniteLoss().on_train_batch_end(trainer, None, {"loss": torch.tensor(loss)}, None, step)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(loss):
    with pytest.raises(ValueError, match="step 20"):
        end_batch(loss)
    end_batch(loss, step=21)  # not looked at


def test_a_run_that_logs_no_steps_is_looked_at_too():
    with pytest.raises(ValueError, match="step 100"):
        end_batch(float("nan"), step=100, every=0)
    end_batch(float("nan"), step=99, every=0)


def test_numbers_and_modules_without_a_loss_go_on():
    end_batch(1.0)
    FiniteLoss().on_train_batch_end(SimpleNamespace(global_step=0, log_every_n_steps=1), None, None, None, 0)
